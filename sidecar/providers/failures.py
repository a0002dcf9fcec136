"""A vendor's refusal, in the words of our error tree and still with the vendor's own message.

One table for every way a refusal arrives: an HTTP answer, the SDK's error or an error object
inside a stream that began with 200. Pure; knows no HTTP library. Keys never get into a text.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import JsonValue

from sidecar import jsons
from sidecar.errors import (
    ContentFiltered,
    ContextTooLong,
    KeyRejected,
    ModelNotFound,
    ModelNoTools,
    ModelNoVision,
    ProviderBadResponse,
    ProviderError,
    ProviderFailed,
    ProviderOverloaded,
    ProxyAuthRequired,
    QuotaExhausted,
    RateLimited,
)
from sidecar.messages import JsonObject

MAX_WORDS = 600  # characters of a vendor's message: some servers answer with a whole stack trace

_BY_CODE: dict[str, type[ProviderError]] = {
    "insufficient_quota": QuotaExhausted,
    "insufficient_credits": QuotaExhausted,
    "exceeded_current_quota_error": QuotaExhausted,  # Moonshot
    "billing_error": QuotaExhausted,
    "billing_not_active": QuotaExhausted,
    "billing_hard_limit_reached": QuotaExhausted,
    "invalid_api_key": KeyRejected,
    "authentication_error": KeyRejected,
    "permission_error": KeyRejected,
    "model_not_found": ModelNotFound,
    "not_found_error": ModelNotFound,  # Anthropic
    "request_too_large": ContextTooLong,  # Anthropic
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,  # llama.cpp
    "content_filter": ContentFiltered,
    "content_policy_violation": ContentFiltered,
    "rate_limit_exceeded": RateLimited,
    "rate_limit_error": RateLimited,
    "overloaded_error": ProviderOverloaded,
    "engine_overloaded": ProviderOverloaded,
    "server_error": ProviderFailed,
    "internal_error": ProviderFailed,
    "internal_server_error": ProviderFailed,
    "api_error": ProviderFailed,  # Anthropic
    "timeout_error": ProviderFailed,  # Anthropic
    # Google's reasons, which stand before its statuses
    "API_KEY_INVALID": KeyRejected,  # which comes as INVALID_ARGUMENT
    "BILLING_DISABLED": QuotaExhausted,
    "UNAUTHENTICATED": KeyRejected,
    "PERMISSION_DENIED": KeyRejected,
    "RESOURCE_EXHAUSTED": RateLimited,
    "NOT_FOUND": ModelNotFound,
    "UNAVAILABLE": ProviderOverloaded,
    "INTERNAL": ProviderFailed,
    "DEADLINE_EXCEEDED": ProviderFailed,
}
# Where vendors give no code of their own, only a sentence.
_BY_WORDS: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"input token count .*exceeds the maximum", ContextTooLong),  # Google
        (r"prompt is too long|maximum context length|exceeds? the \w* ?context", ContextTooLong),
        (r"payload size exceeds the limit", ContextTooLong),  # Google
        (r"max_tokens\W+exceed context limit", ContextTooLong),  # Anthropic, before 4.5
        (r"not support (tools|tool use|function calling)|support tool use", ModelNoTools),
        (r"function calling is not enabled", ModelNoTools),  # Google, of Gemma
        (r"enable-auto-tool-choice|tools param requires", ModelNoTools),  # vLLM; llama.cpp
        (r"credit balance is too low|insufficient (balance|credits?|funds)", QuotaExhausted),
        (r"reached your specified API usage limits", QuotaExhausted),  # Anthropic's spend limit
        (r"please enable billing", QuotaExhausted),  # Google, where nothing is free
        (r"API key (not valid|expired)", KeyRejected),  # Google, through proxies
    )
)
# Before every code: llama.cpp calls it a fault of the server, others a model that is not found.
_NO_VISION = re.compile(
    r"image_url is only supported by"  # OpenAI
    r"|support image input|(does not|doesn't) support (image|vision|multimodal)"  # OpenRouter …
    r"|image input is not (supported|enabled)|not compiled for multimodal"  # llama.cpp, Mistral
    r"|not a multimodal model|at most 0 image"  # vLLM
    r"|unknown variant `image_url`"  # DeepSeek
    r"|content' : value must be a string",  # Groq; ours is a list only where there is an image
    re.IGNORECASE,
)
_BY_STATUS: dict[int, type[ProviderError]] = {
    401: KeyRejected,
    402: QuotaExhausted,
    403: KeyRejected,
    404: ModelNotFound,
    407: ProxyAuthRequired,
    408: ProviderFailed,
    409: ProviderFailed,
    413: ContextTooLong,
    429: RateLimited,
    503: ProviderOverloaded,
    529: ProviderOverloaded,
}
_USED_UP = re.compile(  # Google's quotas of a day, or of nothing at all: no wait brings them back
    r"PerDay|per_day|limit: 0(?![.\d])|\"quotaValue\": \"?0\b"
)
_CODE = re.compile(r'"(?:code|type|status)"\s*:\s*"(\w+)"')
_KEYLIKE = re.compile(
    r"\b(?:(?:sk|pk|rk|xai|nvapi)-|gsk_|hf_|AIza)[-\w*.…]{8,}"  # as vendors shape them
    r"|(?<=Bearer )\S+"
    r"|(?:^|(?<=[\s'\"]))[^\s'\"]*\*{3,}[^\s'\"]*"  # as vendors mask them when they quote them
)


@dataclass(frozen=True, slots=True)
class _Report:
    """An error body, whichever of a dozen shapes it had."""

    words: str
    codes: tuple[str, ...]
    structured: bool
    is_used_up: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Vendor:
    """Who was asked, for the texts of errors; `key` is there to be kept out of them.

    `advice` is what may help where there is nothing at an address.
    """

    name: str
    base_url: str
    key: str | None = field(default=None, repr=False)
    model: str | None = None
    advice: str = ""

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error for an HTTP answer that is no success."""
        report = _read(_json(body))
        if 300 <= status < 400:
            where = headers.get("location", "elsewhere")
            report = _Report(f"it redirects to {where}; write that as `base_url`.", (), False)
        elif not report.structured:
            report = _unstructured(body, headers)
        return self._error(report, status, retry_after_s(headers))

    def reported(self, error: JsonValue) -> ProviderError:
        """The error for an `error` value inside a stream that had begun well."""
        return self._told(_read({"error": error}))

    def not_streamed(self, media_type: str, body: bytes) -> ProviderError:
        """The error for an answer of success that is no stream."""
        report = _read(_json(body))
        if report.structured:
            return self._told(report)
        return self.bad_response(f"answered with {media_type} instead of a stream of events.")

    def bad_response(self, what: str) -> ProviderBadResponse:
        return ProviderBadResponse(f"{self.name} {what}", provider=self.name)

    def no_vision(self) -> ModelNoVision:
        """For a model that is known to see no images, before it is asked."""
        sentence = self._sentence(ModelNoVision, _Report("", (), False), None, None)
        return ModelNoVision(sentence, provider=self.name)

    def cut_short(self) -> ProviderBadResponse:
        return self.bad_response("ended its answer in the middle, without saying why.")

    def nameless_call(self) -> ProviderBadResponse:
        return self.bad_response("called a tool without naming it.")

    def _told(self, report: _Report) -> ProviderError:
        """The vendor's own status, where it gives one, stands for the 200 that came before."""
        statuses = [int(code) for code in report.codes if re.fullmatch(r"[45]\d\d", code)]
        return self._error(report, statuses[0] if statuses else None, None)

    def _error(
        self, report: _Report, status: int | None, retry_after: float | None
    ) -> ProviderError:
        kind = _kind(report, status)
        if retry_after is None:
            retry_after = report.retry_after_s
        if kind is ModelNotFound and (self.model is None or not report.structured):
            kind = ProviderError  # nothing at this path: the address is wrong, not the model
        return kind(
            self._sentence(kind, report, status, retry_after),
            provider=self.name,
            http_status=status,
            retry_after_s=retry_after,
            detail=self._without_key(", ".join(report.codes)) or None,
        )

    def _sentence(
        self, kind: type[ProviderError], report: _Report, status: int | None, after: float | None
    ) -> str:
        name, model = self.name, self.model or "the model"
        words = _cut(self._without_key(report.words))  # in this order: half a key is a key too
        said = f": {words}" if words else "."
        http = f" (HTTP {status})" if status else ""
        if kind is KeyRejected and self.key is None:
            return f"{name} wants an API key (`sidecar keys set {name}`){said}"
        if kind is KeyRejected:
            return f"{name} refused the API key; set another with `sidecar keys set {name}`{said}"
        if kind is QuotaExhausted:
            return f"The account at {name} has no quota or credit left{said}"
        if kind is RateLimited:
            when = f"in {after:.0f} s" if after else "in a moment"
            return f"{name} is limiting requests; try again {when}{said}"
        if kind is ProviderOverloaded:
            return f"{name} is overloaded; try again in a moment{said}"
        if kind is ModelNotFound:
            is_about_models = "model" in report.words.lower()
            return f"{name} has no model {model}{said}{'' if is_about_models else self.advice}"
        if kind is ModelNoTools:
            return f"{model} at {name} cannot call tools; choose another or switch them off{said}"
        if kind is ModelNoVision:
            return f"{model} at {name} cannot see images; choose another or leave them out{said}"
        if kind is ContextTooLong:
            return f"The conversation is too long for {model}{said}"
        if kind is ContentFiltered:
            return f"{name} filtered the request{said}"
        if kind is ProxyAuthRequired:
            return f"The proxy on the way to {name} wants a login; write it into `network.proxy`."
        if kind is ProviderFailed:
            return f"{name} failed{http}{said}"
        if status == 404:
            where = f"{self.base_url}; is `base_url` complete?{self.advice}"
            return f"There is no such API at {where}{http}{said}"
        return f"{name} refused the request{http}{said}"

    def _without_key(self, text: str) -> str:
        if self.key:
            text = text.replace(self.key, "[key]")
        return _KEYLIKE.sub("[key]", text)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from `retry-after-ms`, or from `retry-after` as seconds or as an HTTP date.

    None also for what nobody can mean, such as a number of 400 digits.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            seconds = float(value) * unit_s
            return seconds if math.isfinite(seconds) else None
        if value and name == "retry-after":
            return _until(value)
    return None


def said(body: bytes) -> str:
    """All that an error body says, for finding the parameter it complains of."""
    report = _read(_json(body))
    return " ".join((report.words, *report.codes))


def _until(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max((when - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return None


def _kind(report: _Report, status: int | None) -> type[ProviderError]:
    if _NO_VISION.search(report.words):
        return ModelNoVision
    if report.is_used_up:
        return QuotaExhausted
    for code in report.codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    if status is None or 400 <= status < 500:
        for pattern, kind in _BY_WORDS:
            if pattern.search(report.words):
                return kind
    if status is None:
        return ProviderError
    return _BY_STATUS.get(status, ProviderFailed if status >= 500 else ProviderError)


def _json(body: bytes) -> JsonValue:
    try:
        return jsons.loads(body)
    except ValueError:
        return None


def _read(value: JsonValue) -> _Report:
    """`{"error": {…}}`, `{"error": "…"}`, `[{"error": …}]`, `{"message": …}` or `{"detail": …}`."""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _Report("", (), structured=False)
    error = value.get("error") or value
    if isinstance(error, str):
        return _Report(error, (), structured=True)
    if not isinstance(error, dict):
        return _Report("", (), structured=False)
    codes = (error.get(name) for name in ("code", "type", "status", "status_code", "param"))
    message = error.get("message")
    raw = metadata.get("raw") if isinstance(metadata := error.get("metadata"), dict) else None
    words = [text for text in (message, raw) if isinstance(text, str)]  # raw: OpenRouter's upstream
    # Google's ErrorInfo, QuotaFailure, RetryInfo and others.
    details = jsons.rows(error.get("details"))
    quotas = " ".join(json.dumps(detail) for detail in details if "violations" in detail)
    return _Report(
        " — ".join(words) or json.dumps(error.get("detail") or error),
        tuple(
            str(code)
            for code in (*(detail.get("reason") for detail in details), *codes)
            if isinstance(code, str | int) and code
        ),
        structured=bool(words),
        is_used_up=error.get("status") == "RESOURCE_EXHAUSTED"
        and _USED_UP.search(f"{quotas} {words}") is not None,
        retry_after_s=next(filter(None, map(_delay_s, details)), None),
    )


def _delay_s(detail: JsonObject) -> float | None:
    delay = detail.get("retryDelay")
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)s", delay) if isinstance(delay, str) else None
    return float(found[1]) if found else None


def _unstructured(body: bytes, headers: Mapping[str, str]) -> _Report:
    """A text, or JSON that was cut off: its code may have come before the cut."""
    text = _plain(body, headers)
    return _Report(text, tuple(_CODE.findall(text)), structured=False)


def _plain(body: bytes, headers: Mapping[str, str]) -> str:
    text = body.decode("utf-8", "replace").strip()
    if "html" in headers.get("content-type", "") or text.startswith("<"):
        return "it answered with a web page."
    return text


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_WORDS else text[:MAX_WORDS] + "…"

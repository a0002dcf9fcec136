"""OpenAI's HTTP format, as its clients read it: our errors in its words.

Pure: knows no request and no run. `error_info` stands beside OpenAI's `error`, as it does in every
other refusal of ours.
"""

from math import ceil

from sidecar.errors import BadRequest
from sidecar.messages import ErrorInfo, JsonObject

_WORDS = {  # where OpenAI has a word of its own, and clients look for it
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "quota_exhausted": "insufficient_quota",
    "context_too_long": "context_length_exceeded",
    "content_filtered": "content_filter",
}

_STATUSES = {
    **dict.fromkeys(("unauthorized", "key_missing", "key_rejected"), 401),
    **dict.fromkeys(("not_found", "model_not_found"), 404),
    **dict.fromkeys(("rate_limited", "quota_exhausted"), 429),
    **dict.fromkeys(("overloaded", "provider_overloaded", "keyring_unavailable"), 503),
    **dict.fromkeys(("bad_request", "invalid_json", "model_no_tools"), 400),
    **dict.fromkeys(("context_too_long", "content_filtered"), 400),
    "busy": 409,
    "timeout": 504,
}


class BadField(BadRequest):
    """`param` is the field of the request that cannot be served."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def status_of(info: ErrorInfo) -> int:
    """The HTTP status that says it best; a vendor's own where it blames the request."""
    if info.code in _STATUSES:
        return _STATUSES[info.code]
    if info.http_status is not None and 400 <= info.http_status < 500:
        return info.http_status
    return 500 if info.origin == "server" else 502


def error_body(message: str, info: ErrorInfo, status: int, param: str | None = None) -> JsonObject:
    """`param` is the field of the request that the error is about."""
    error: JsonObject = {
        "message": message,
        "type": _type(status),
        "code": _WORDS.get(info.code, info.code),
        "param": param,
    }
    return {"error": error, "error_info": info.model_dump()}


def error_headers(info: ErrorInfo, *, is_repeatable: bool = True) -> dict[str, str]:
    """Says when to ask again, and stops clients that would do so where it does not help.

    A request is not repeatable when it has called tools: they would be called once more.
    """
    may_retry = info.retryable and is_repeatable
    headers = {"X-Should-Retry": "true" if may_retry else "false"}
    if info.retry_after_ms is not None:
        headers["Retry-After"] = str(ceil(info.retry_after_ms / 1000))
    return headers


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"

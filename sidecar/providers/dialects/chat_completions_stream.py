"""An answer in OpenAI's chat completions format, as its many speakers really write it.

Promises that every call the model made is told exactly once with an id of its own, that a stream
without its terminal is an error and never a success, and that what is unknown is skipped.
"""

import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import Cost, JsonObject, Usage
from sidecar.providers.base import (
    Citation,
    Finished,
    Media,
    ModelEvent,
    ReasoningDelta,
    StopReason,
    TextDelta,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.base import count, first_answer, output_of, parse_chunk
from sidecar.providers.dialects.call_pieces import CallPieces
from sidecar.providers.dialects.chat_extras import ChatExtras, joined
from sidecar.providers.dialects.silent_cut import notice_of_cut
from sidecar.providers.dialects.think_tags import ThinkTags
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseEvent

FORMAT = "chat_completions"
_STOP_REASONS: dict[str, StopReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Zhipu
    "refusal": "refusal",
}
_GAVE_UP = re.compile(  # OpenRouter, DeepSeek, SGLang, Zhipu, Gemini
    r"error|insufficient_system_resource|abort|network_error|.*MALFORMED_FUNCTION_CALL.*",
    re.DOTALL,
)
_DATA_URL = re.compile(r"data:(image/[\w.+-]+);base64,")


class ChatCompletionsStream:
    def __init__(self, vendor: Vendor, body: JsonObject) -> None:
        self.done = False
        self.sequel: JsonObject | None = None
        self._vendor = vendor
        self._body = body
        self._tags = ThinkTags()
        self._calls = CallPieces()
        self._extras = ChatExtras()
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._refused = False

    @property
    def is_whole(self) -> bool:
        return self.done or self._finish is not None

    def feed(self, event: SseEvent) -> Iterator[ModelEvent]:
        """Raises ProviderError for an error inside the stream, after what came before it."""
        if self.done:
            return
        if event.data.startswith("[DONE]"):
            self.done = True
            return
        chunk = parse_chunk(event, self._vendor, is_whole=self.is_whole)
        choice = first_answer(chunk.get("choices"))
        self._usage = _usage(chunk, choice) or self._usage
        yield from self._delta(jsons.fields(choice.get("delta")))
        self._finish = jsons.text(choice.get("finish_reason")) or self._finish
        error = chunk.get("error") or (chunk if event.event == "error" else None)
        gave_up = _GAVE_UP.fullmatch(self._finish or "")
        if (error or gave_up) and self._usage is not None:
            yield UsageReport(self._usage)
        if error:
            raise self._vendor.reported(error)
        if gave_up:
            raise self._vendor.bad_response(f"gave up on its answer ({gave_up[0][:80]}).")

    def end(self) -> Iterator[ModelEvent]:
        """The calls, the usage and Finished. Raises ProviderBadResponse for an answer cut short."""
        if not self.is_whole:
            raise self._vendor.cut_short()
        yield from self._tags.end()
        # Gemini says "content_filter: SAFETY".
        reason = _STOP_REASONS.get((self._finish or "").partition(":")[0], "stop")
        calls = self._calls.complete(was_cut=reason in ("length", "content_filter"))
        if any(not call.name for call in calls):
            raise self._vendor.nameless_call()
        yield from calls
        yield from notice_of_cut(self._vendor.name, self._body, self._usage)
        if self._usage is not None:
            yield UsageReport(self._usage)
        if extras := self._extras.verbatim(self._calls, self._tags.were_there):
            yield Verbatim(FORMAT, extras)
        if calls:
            reason = "tool_calls"
        elif self._refused:
            reason = "refusal"
        yield Finished(reason, self._finish)

    def _delta(self, delta: JsonObject) -> Iterator[ModelEvent]:
        self._extras.add(delta)
        # Some servers send one text under both names.
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            yield from self._tags.end()  # a server that tells it apart does not write it into text
            yield ReasoningDelta(reasoning)
        content = delta.get("content")
        if isinstance(content, str):
            yield from self._tags.read(content)
        elif content:
            yield from _content_parts(jsons.rows(content))
        if refusal := jsons.text(delta.get("refusal")):
            self._refused = True
            yield TextDelta(refusal)
        for piece in jsons.rows(delta.get("tool_calls")):
            yield from self._calls.add(piece)
        for annotation in jsons.rows(delta.get("annotations")):
            yield from _citation(annotation)
        for image in jsons.rows(delta.get("images")):
            yield from _media(image)


def _content_parts(parts: Sequence[JsonObject]) -> Iterator[TextDelta | ReasoningDelta]:
    """Content as a list: `{type: text, text}` and `{type: thinking, thinking: [{text}]}`."""
    for part in parts:
        if text := joined(part.get("text")):
            yield TextDelta(text)
        if thinking := joined(part.get("thinking")):
            yield ReasoningDelta(thinking)


def _citation(annotation: JsonObject) -> Iterator[Citation]:
    cited = jsons.fields(annotation.get("url_citation"))
    if url := jsons.text(cited.get("url")):
        yield Citation(url, jsons.text(cited.get("title")) or None)


def _media(image: JsonObject) -> Iterator[Media]:
    """An image as OpenRouter sends it; one that is only an address is left where it is."""
    url = jsons.text(jsons.fields(image.get("image_url")).get("url"))
    if found := _DATA_URL.match(url):
        with suppress(ValueError):  # broken base64
            yield Media(found[1], b64decode(url[found.end() :], validate=True))


def _usage(chunk: JsonObject, choice: JsonObject) -> Usage | None:
    """Groq has it in a place of its own, Moonshot in the choice."""
    usage = chunk.get("usage") or choice.get("usage")
    usage = jsons.fields(usage or jsons.fields(chunk.get("x_groq")).get("usage"))
    if not usage:
        return None
    prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    details = usage.get("prompt_tokens_details")
    cached = count(details, "cached_tokens")
    reasoning = count(usage.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(
        cost=_cost(usage.get("cost")),
        input=prompt,
        output=output_of(usage, completion, reasoning, read=prompt),
        cached=cached or count(usage, "prompt_cache_hit_tokens"),  # DeepSeek's older name
        cache_written=count(details, "cache_write_tokens"),  # OpenRouter's
        reasoning=reasoning,
    )


def _cost(cost: JsonValue) -> Cost | None:
    """OpenRouter's own word."""
    if isinstance(cost, bool) or not isinstance(cost, int | float) or cost < 0:
        return None
    return Cost(amount=cost, estimated=False)

"""An answer in Google's generateContent format, read chunk by chunk.

Promises that each call the model made is told once with an id of its own, that what must go back
is kept as it came, signatures on their parts, and that a stream without its terminal
(`finishReason` or `promptFeedback.blockReason`) is an error and never a success. What is unknown
is skipped.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Usage
from sidecar.providers.base import (
    Citation,
    Finished,
    Media,
    ModelEvent,
    ProviderItem,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCall,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.base import count, first_answer, parse_chunk, stopped
from sidecar.providers.dialects.partial_arguments import PartialArguments
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseEvent

FORMAT = "generate_content"

_STOP_REASONS: dict[str, StopReason] = {
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
_GAVE_UP = frozenset(
    (
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "PUP_LIMITED_DISABLED",
        "IMAGE_OTHER",
        "NO_IMAGE",
    )
)
_ITEMS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse", "fileData")
_SOURCES = ("web", "retrievedContext", "maps", "image")


@dataclass(slots=True)
class _Call:
    """A call whose arguments still come."""

    name: str
    vendor_id: str
    part: JsonObject
    arguments: PartialArguments = field(default_factory=PartialArguments)


class GenerateContentStream:
    def __init__(self, vendor: Vendor) -> None:
        self.done = False
        self.sequel: JsonObject | None = None
        self._vendor = vendor
        self._said = _Said()
        self._open: _Call | None = None
        self._ids: set[str] = set()
        self._cited: set[tuple[str | None, str | None]] = set()
        self._counts: JsonValue = None
        self._finish: str | None = None
        self._is_blocked = False
        self._why = ""

    @property
    def is_whole(self) -> bool:
        return self._finish is not None

    def feed(self, event: SseEvent) -> Iterator[ModelEvent]:
        """Raises ProviderError for an error inside the stream, after what came before it."""
        chunk = parse_chunk(event, self._vendor, is_whole=self.is_whole)
        counts = chunk.get("usageMetadata")
        if isinstance(counts, dict) and "promptTokenCount" in counts:
            self._counts = counts
        yield from self._candidate(first_answer(chunk.get("candidates")))
        feedback = jsons.fields(chunk.get("promptFeedback"))
        if blocked := jsons.text(feedback.get("blockReason")):
            self._finish, self._is_blocked = blocked, True
            self._why = jsons.text(feedback.get("blockReasonMessage"))
        error = chunk.get("error")
        if error or self._finish in _GAVE_UP:
            yield from self._usage()
        if error:
            raise self._vendor.reported(error)
        if self._finish in _GAVE_UP:
            told = f"{self._finish}: {self._why[:300]}" if self._why else self._finish
            raise self._vendor.bad_response(f"gave up on its answer ({told}).")

    def end(self) -> Iterator[ModelEvent]:
        """The rest and Finished. Raises ProviderBadResponse for an answer cut short."""
        if self._finish is None:
            raise self._vendor.cut_short()
        reason = "content_filter" if self._is_blocked else _STOP_REASONS.get(self._finish, "stop")
        if self._open is not None:
            yield self._close(self._open, was_cut=reason != "stop")
        if reason == "content_filter":
            yield from stopped(self._vendor, reason, self._why)
        yield from self._usage()
        if self._said.is_its_own:
            yield Verbatim(FORMAT, self._said.parts())
        yield Finished("tool_calls" if self._ids else reason, self._finish)

    def _candidate(self, candidate: JsonObject) -> Iterator[ModelEvent]:
        for part in jsons.rows(jsons.fields(candidate.get("content")).get("parts")):
            yield from self._part(part)
        yield from self._citations(candidate)
        self._finish = jsons.text(candidate.get("finishReason")) or self._finish
        self._why = jsons.text(candidate.get("finishMessage")) or self._why

    def _part(self, part: JsonObject) -> Iterator[ModelEvent]:
        if isinstance(call := part.get("functionCall"), dict):
            yield from self._function_call(call, part)
            return
        if isinstance(text := part.get("text"), str):
            self._said.add_text(part, text)
            if text:
                yield ReasoningDelta(text) if part.get("thought") else TextDelta(text)
            return
        if isinstance(blob := part.get("inlineData"), dict):
            if not part.get("thought"):  # a sketch, of which the model only thought
                yield from self._media(blob, part)
            return
        if any(isinstance(value, dict) for value in part.values()):
            self._said.add(part)
        elif "thoughtSignature" in part:
            self._said.add_text(part, "")
        yield from (ProviderItem(kind) for kind in _ITEMS if isinstance(part.get(kind), dict))

    def _media(self, blob: JsonObject, part: JsonObject) -> Iterator[Media]:
        try:
            data = base64.b64decode(jsons.text(blob.get("data")), validate=True)
        except binascii.Error:
            return
        mime, name = jsons.text(blob.get("mimeType")), jsons.text(blob.get("displayName"))
        if data and mime:
            self._said.add(part | {"inlineData": {"mimeType": mime}})  # the data is kept once
            yield Media(mime, data, name or None)

    def _function_call(self, call: JsonObject, part: JsonObject) -> Iterator[ToolCall]:
        """Whole, or in pieces: a name, then `partialArgs`, then a piece that does not continue."""
        name, vendor_id = jsons.text(call.get("name")), jsons.text(call.get("id"))
        known = self._open
        if known is not None and _begins_anew(known, name, vendor_id):
            yield self._close(known)
            known = None
        if known is None:
            if not name:
                if call.get("args") or call.get("partialArgs"):
                    raise self._vendor.nameless_call()
                return
            known = _Call(name, vendor_id, part)
            self._said.add(part)
        elif "thoughtSignature" in part:
            known.part["thoughtSignature"] = part["thoughtSignature"]
        known.arguments.add(call.get("partialArgs"))
        self._open = known
        if not call.get("willContinue"):
            yield self._close(known, whole=call.get("args"))

    def _close(self, call: _Call, whole: JsonValue = None, was_cut: bool = False) -> ToolCall:
        self._open = None
        value = call.arguments.value if whole is None else whole
        arguments = value if isinstance(value, dict) else None
        wire: JsonObject = {"name": call.name, "args": arguments or {}}
        if call.vendor_id:
            wire["id"] = call.vendor_id
        self._said.settle(call.part, wire)
        call_id = call.vendor_id
        while not call_id or call_id in self._ids:
            call_id = uuid4().hex
        self._ids.add(call_id)
        return ToolCall(call_id, call.name, None if was_cut else arguments, json.dumps(value))

    def _citations(self, candidate: JsonObject) -> Iterator[Citation]:
        for url, title in _sources(candidate):
            if (url or title) and (url, title) not in self._cited:
                self._cited.add((url, title))
                yield Citation(url, title)

    def _usage(self) -> Iterator[UsageReport]:
        counts = self._counts
        if counts is not None:
            thoughts = count(counts, "thoughtsTokenCount")
            usage = Usage(
                input=count(counts, "promptTokenCount") + count(counts, "toolUsePromptTokenCount"),
                output=count(counts, "candidatesTokenCount") + thoughts,
                cached=count(counts, "cachedContentTokenCount"),
                reasoning=thoughts,
            )
            yield UsageReport(usage)


class _Said:
    """The answer in Google's own parts, texts joined where no signature stands between them."""

    def __init__(self) -> None:
        self.is_its_own = False  # it has what our own parts cannot say
        self._parts: list[JsonObject] = []
        self._texts: list[list[str]] = []  # of each part
        self._thinks: bool | None = None  # whether the open text is a thought; None: no text is

    def add_text(self, part: JsonObject, text: str) -> None:
        is_signed, thinks = "thoughtSignature" in part, bool(part.get("thought"))
        if not is_signed and thinks is self._thinks:
            self._texts[-1].append(text)
        elif text or is_signed:
            self._keep(part, [text])
            self._thinks = None if is_signed else thinks
            self.is_its_own |= is_signed or thinks

    def add(self, part: JsonObject) -> None:
        self._keep(part, [])
        self._thinks = None
        self.is_its_own |= "functionCall" not in part or "thoughtSignature" in part

    def settle(self, part: JsonObject, call: JsonObject) -> None:
        """What the call in this part has come to."""
        index = next(i for i in reversed(range(len(self._parts))) if self._parts[i] is part)
        self._parts[index] = part | {"functionCall": call}
        self.is_its_own |= "id" in call or "thoughtSignature" in part

    def parts(self) -> list[JsonValue]:
        return [
            part | {"text": "".join(texts)} if texts else part
            for part, texts in zip(self._parts, self._texts, strict=True)
        ]

    def _keep(self, part: JsonObject, texts: list[str]) -> None:
        self._parts.append(part)
        self._texts.append(texts)


def _begins_anew(call: _Call, name: str, vendor_id: str) -> bool:
    if vendor_id and call.vendor_id:
        return vendor_id != call.vendor_id
    return bool(name) and name != call.name


def _sources(candidate: JsonObject) -> Iterator[tuple[str | None, str | None]]:
    grounding = jsons.fields(candidate.get("groundingMetadata"))
    for chunk in jsons.rows(grounding.get("groundingChunks")):
        for kind in _SOURCES:
            source = jsons.fields(chunk.get(kind))
            url = jsons.text(source.get("uri")) or jsons.text(source.get("sourceUri"))
            yield url or None, jsons.text(source.get("title")) or None
    for name in ("citationSources", "citations"):  # the Gemini API's, and Vertex AI's
        for source in jsons.rows(jsons.fields(candidate.get("citationMetadata")).get(name)):
            yield jsons.text(source.get("uri")) or None, jsons.text(source.get("title")) or None
    for page in jsons.rows(jsons.fields(candidate.get("urlContextMetadata")).get("urlMetadata")):
        if page.get("urlRetrievalStatus") == "URL_RETRIEVAL_STATUS_SUCCESS":
            yield jsons.text(page.get("retrievedUrl")) or None, None

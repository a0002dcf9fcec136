"""An answer in OpenAI's Responses format, read event by event.

A response is a list of items, each announced, written in deltas and given once more when it is
done; the last event has all of them again. Promises that whatever any of these says is told once,
also where a server leaves the others out, that items are known by their place and not by their
ids, which some servers change on the way, and that a stream without its last event is an error.
Goes by `data.type`: not every server writes `event:` lines. Types that nobody knows are skipped.
"""

import binascii
import json
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias
from uuid import uuid4

from pydantic import JsonValue

from sidecar import jsons
from sidecar.errors import ProviderError
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
    ToolArguments,
    ToolCall,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.base import count, output_of, parse_chunk
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseEvent

FORMAT = "responses"
CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that a tool must answer, and where each has what it asks."""

_Stretch: TypeAlias = tuple[str, int]  # one text of an item: what it is, and which of them


class _Kind(NamedTuple):
    """What a delta is a piece of."""

    item: str
    text: str
    number: str = "content_index"


_KINDS = {
    "response.output_text": _Kind("message", "output_text"),
    "response.refusal": _Kind("message", "refusal"),
    "response.reasoning_summary_text": _Kind("reasoning", "summary_text", "summary_index"),
    "response.reasoning_text": _Kind("reasoning", "reasoning_text"),
    "response.function_call_arguments": _Kind("function_call", "arguments"),
    "response.custom_tool_call_input": _Kind("custom_tool_call", "input"),
}
_DELTAS = {f"{name}.delta": kind for name, kind in _KINDS.items()}
_WHOLES = {f"{name}.done": kind for name, kind in _KINDS.items()}
_LAST = frozenset(("response.completed", "response.incomplete", "response.failed"))
_TEXTS = {"output_text": "text", "refusal": "refusal"}  # a message's parts, and where their text is
_MIMES = {"jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "svg": "image/svg+xml"}


@dataclass(slots=True)
class _Item:
    """One item of the output as it grows; `whole` is what the server says it was in the end."""

    type: str
    index: int
    vendor_id: str = ""
    call_id: str = ""
    name: str = ""
    is_announced: bool = False
    pieces: list[str] = field(default_factory=list)
    stretches: set[_Stretch] = field(default_factory=set)
    citations: dict[int, int] = field(default_factory=dict)  # told so far, by part
    whole: JsonObject | None = None

    @property
    def told(self) -> str:
        return "".join(self.pieces)


class ResponsesStream:
    def __init__(self, vendor: Vendor) -> None:
        self.done = False
        self.sequel: JsonObject | None = None
        self._vendor = vendor
        self._items: list[_Item] = []
        self._at: dict[int, _Item] = {}
        self._status: str | None = None
        self._reason: StopReason = "stop"
        self._usage: Usage | None = None
        self._call_ids: set[str] = set()
        self._refused = False
        self._reasoning: tuple[_Item, _Stretch] | None = None  # told last, with nothing since

    @property
    def is_whole(self) -> bool:
        return self._status is not None

    def feed(self, event: SseEvent) -> Iterator[ModelEvent]:
        if self.done:
            return
        if event.data.startswith("[DONE]"):
            self.done = True
            return
        data = parse_chunk(event, self._vendor, is_whole=False)
        type = data.get("type")
        if not isinstance(type, str):
            type = event.event
        if type in _DELTAS:
            delta = data.get("delta")
            if isinstance(delta, str) and delta:
                yield from self._delta(_DELTAS[type], data, delta)
        elif type == "response.output_item.added":
            self._announced(data)
        elif type == "response.output_item.done":
            yield from self._item_done(data)
        elif type == "response.output_text.annotation.added":
            yield from self._annotated(data)
        elif type in _WHOLES:
            yield from self._stretch_done(_WHOLES[type], data)
        elif type in _LAST:
            yield from self._ended(type, data)
        elif type == "error" or (not type and data.get("error")):
            raise self._vendor.reported(_error(data))

    def end(self) -> Iterator[ModelEvent]:
        if self._status is None:
            raise self._vendor.cut_short()
        for item in self._items:
            if item.whole is None and item.type in CALLS:
                yield from self._call(item, {"type": item.type, "status": self._status})
        if self._usage is not None:
            yield UsageReport(self._usage)
        items = [whole for item in self._in_order() if (whole := item.whole or _as_told(item))]
        if not all(map(_is_plain, items)):
            yield Verbatim(FORMAT, list[JsonValue](items))
        reason = self._reason
        if self._call_ids:
            reason = "tool_calls"
        elif self._refused:
            reason = "refusal"
        yield Finished(reason, self._status)

    def _delta(self, kind: _Kind, data: JsonObject, delta: str) -> Iterator[ModelEvent]:
        item = self._item(kind.item, data)
        number = data.get(kind.number)
        return self._tell(item, (kind.text, number if isinstance(number, int) else 0), delta)

    def _tell(self, item: _Item, stretch: _Stretch, text: str) -> Iterator[ModelEvent]:
        item.pieces.append(text)
        item.stretches.add(stretch)
        kind = stretch[0]
        if kind == "output_text" or kind == "refusal":
            self._reasoning = None
            self._refused = self._refused or kind == "refusal"
            yield TextDelta(text)
        elif kind == "summary_text" or kind == "reasoning_text":
            if self._reasoning is not None and self._reasoning != (item, stretch):
                yield ReasoningDelta("\n\n")
            self._reasoning = item, stretch
            yield ReasoningDelta(text)
        elif item.name:
            yield ToolArguments(item.call_id, item.name, text)

    def _stretch_done(self, kind: _Kind, data: JsonObject) -> Iterator[ModelEvent]:
        """The whole of a text, for servers that send no deltas of it."""
        text = data.get("text", data.get(kind.text))
        number = data.get(kind.number)
        stretch = kind.text, number if isinstance(number, int) else 0
        item = self._place(data)
        is_late = item is not None and item.type == kind.item and item.whole is not None
        if not isinstance(text, str) or not text or is_late:
            return
        item = self._item(kind.item, data)
        if stretch not in item.stretches:
            yield from self._tell(item, stretch, text)

    def _announced(self, data: JsonObject) -> None:
        raw = data.get("item")
        if not isinstance(raw, dict) or not isinstance(type := raw.get("type"), str):
            return
        item = self._place(data)
        if item is None or item.type != type or item.whole is not None or item.is_announced:
            item = self._open(type, data)
        item.is_announced = True
        item.vendor_id = jsons.text(raw.get("id"))
        if type in CALLS:
            self._name(item, raw)

    def _item_done(self, data: JsonObject) -> Iterator[ModelEvent]:
        raw = data.get("item")
        if not isinstance(raw, dict) or not isinstance(type := raw.get("type"), str):
            return
        item = self._place(data)
        if item is None or item.type != type:
            item = self._open(type, data)
        elif item.whole is not None:
            if item.vendor_id == jsons.text(raw.get("id")):
                return
            item = self._open(type, data)  # a server that gives every item the same place
        yield from self._complete(item, raw)

    def _annotated(self, data: JsonObject) -> Iterator[ModelEvent]:
        item = self._item("message", data)
        number = data.get("content_index")
        part = number if isinstance(number, int) else 0
        item.citations[part] = item.citations.get(part, 0) + 1
        yield from _citation(data.get("annotation"))

    def _ended(self, type: str, data: JsonObject) -> Iterator[ModelEvent]:
        response = jsons.fields(data.get("response"))
        status = jsons.text(response.get("status"))
        if status not in ("completed", "incomplete", "failed", "cancelled"):
            status = type.removeprefix("response.")
        yield from self._left_out(jsons.items(response.get("output")))
        self._usage = _usage(response.get("usage"))
        if status == "failed" or status == "cancelled":
            if self._usage is not None:
                yield UsageReport(self._usage)
            raise self._failed(response)
        if status == "incomplete":
            reason = jsons.fields(response.get("incomplete_details")).get("reason")
            self._reason = "content_filter" if reason == "content_filter" else "length"
        self._status = status
        self.done = True

    def _failed(self, response: JsonObject) -> ProviderError:
        if error := response.get("error"):
            return self._vendor.reported(error)
        return self._vendor.bad_response("gave up on its answer without saying why.")

    def _left_out(self, output: list[JsonValue]) -> Iterator[ModelEvent]:
        """What only the last event has, or has more of.

        The first message there is the first that was streamed, and so on: neither ids nor places
        are the same everywhere.
        """
        seen: defaultdict[str, deque[_Item]] = defaultdict(deque)
        for item in self._in_order():
            seen[item.type].append(item)
        for index, raw in enumerate(output):
            if not isinstance(raw, dict) or not isinstance(type := raw.get("type"), str):
                continue
            item = seen[type].popleft() if seen[type] else self._open(type, {"output_index": index})
            if item.whole is None:
                yield from self._complete(item, raw)

    def _complete(self, item: _Item, raw: JsonObject) -> Iterator[ModelEvent]:
        item.vendor_id = jsons.text(raw.get("id")) or item.vendor_id
        item.whole = raw
        if item.type == "message":
            yield from self._message(item, raw)
        elif item.type == "reasoning":
            yield from self._reasoned(item, raw)
        elif item.type in CALLS:
            yield from self._call(item, raw)
        else:
            self._reasoning = None
            yield ProviderItem(item.type)
            yield from _image(raw)

    def _message(self, item: _Item, raw: JsonObject) -> Iterator[ModelEvent]:
        parts = jsons.rows(raw.get("content"))
        texts = [
            ((kind, number), jsons.text(part.get(_TEXTS[kind])))
            for number, part in enumerate(parts)
            if (kind := jsons.text(part.get("type"))) in _TEXTS
        ]
        yield from self._rest(item, texts)
        for number, part in enumerate(parts):
            for annotation in jsons.items(part.get("annotations"))[item.citations.get(number, 0) :]:
                yield from _citation(annotation)

    def _reasoned(self, item: _Item, raw: JsonObject) -> Iterator[ModelEvent]:
        """A summary stands for the raw text, unless it is the latter that has been told."""
        told = item.told
        for kind, name in (("summary_text", "summary"), ("reasoning_text", "content")):
            parts = jsons.rows(raw.get(name))
            texts = [((kind, n), jsons.text(part.get("text"))) for n, part in enumerate(parts)]
            whole = "".join(text for _, text in texts)
            if whole and whole.startswith(told):
                yield from self._rest(item, texts)
                break
        if not item.pieces:
            yield ReasoningDelta("")

    def _rest(self, item: _Item, texts: list[tuple[_Stretch, str]]) -> Iterator[ModelEvent]:
        told = item.told
        if not "".join(text for _, text in texts).startswith(told):
            return
        left = len(told)
        for stretch, text in texts:
            if rest := text[left:]:
                yield from self._tell(item, stretch, rest)
            left = max(left - len(text), 0)

    def _call(self, item: _Item, raw: JsonObject) -> Iterator[ModelEvent]:
        self._name(item, raw)
        asked = raw.get(CALLS[item.type])
        if asked and not isinstance(asked, str):
            asked = json.dumps(asked)
        text = asked if isinstance(asked, str) and asked else item.told
        if not item.name:
            raise self._vendor.nameless_call()
        arguments = jsons.parse_object(text) if item.type == "function_call" else None
        if not text.strip() and raw.get("status") == "incomplete":
            arguments = None  # nothing is how "no arguments" is written, unless it was cut there
        item.whole = raw | {"call_id": item.call_id, "name": item.name, CALLS[item.type]: text}
        self._call_ids.add(item.call_id)
        self._reasoning = None
        yield ToolCall(item.call_id, item.name, arguments, text)

    def _name(self, item: _Item, raw: JsonObject) -> None:
        """The id under which a call is told stays, whatever the server calls it later."""
        item.name = item.name or jsons.text(raw.get("name"))
        if item.call_id:
            return
        others = {other.call_id for other in self._items}
        wanted = jsons.text(raw.get("call_id")) or jsons.text(raw.get("id"))
        item.call_id = wanted if wanted and wanted not in others else f"call_{uuid4().hex[:24]}"

    def _item(self, type: str, data: JsonObject) -> _Item:
        """The item that a piece belongs to; a new one where nobody announced it."""
        item = self._place(data)
        if item is None or item.type != type or item.whole is not None:
            item = self._open(type, data)
            item.vendor_id = jsons.text(data.get("item_id"))
        return item

    def _place(self, data: JsonObject) -> _Item | None:
        index = data.get("output_index")
        if isinstance(index, int):
            return self._at.get(index)
        vendor_id = jsons.fields(data.get("item")).get("id") or data.get("item_id")
        found = [item for item in self._items if item.vendor_id == vendor_id]
        return found[-1] if found else None

    def _open(self, type: str, data: JsonObject) -> _Item:
        index = data.get("output_index")
        place = index if isinstance(index, int) else len(self._items)
        item = _Item(type, place)
        self._items.append(item)
        self._at[place] = item
        return item

    def _in_order(self) -> list[_Item]:
        return sorted(self._items, key=lambda item: item.index)


def _as_told(item: _Item) -> JsonObject | None:
    """A message that no server ever gave whole; anything else is good for nothing then."""
    if item.type != "message" or not item.pieces:
        return None
    content: JsonObject = {"type": "output_text", "text": item.told, "annotations": []}
    return {"type": "message", "role": "assistant", "content": [content]}


def _is_plain(item: JsonObject) -> bool:
    """Whether the events say all that there is to say of it."""
    if item["type"] == "function_call":
        return not item.get("namespace") and not item.get("caller")
    if item["type"] != "message" or item.get("phase"):
        return False
    return not any(part.get("annotations") for part in jsons.rows(item.get("content")))


def _citation(annotation: JsonValue) -> Iterator[Citation]:
    if not isinstance(annotation, dict):
        return
    url = jsons.text(annotation.get("url")) or None
    title = jsons.text(annotation.get("title")) or jsons.text(annotation.get("filename")) or None
    if url or title:
        yield Citation(url, title)


def _image(raw: JsonObject) -> Iterator[Media]:
    result = raw.get("result")
    if raw.get("type") != "image_generation_call" or not isinstance(result, str) or not result:
        return
    try:
        data = binascii.a2b_base64(result.rpartition(",")[2])
    except ValueError:
        return
    yield Media(_MIMES.get(jsons.text(raw.get("output_format")), "image/png"), data)


def _usage(usage: JsonValue) -> Usage | None:
    if not isinstance(usage, dict) or not usage:
        return None
    read, written = count(usage, "input_tokens"), count(usage, "output_tokens")
    details = usage.get("input_tokens_details")
    reasoning = count(usage.get("output_tokens_details"), "reasoning_tokens")
    return Usage(
        input=read,
        output=output_of(usage, written, reasoning, read=read),
        cached=count(details, "cached_tokens"),
        cache_written=count(details, "cache_write_tokens"),
        reasoning=reasoning,
    )


def _error(data: JsonObject) -> JsonValue:
    """`{"type": "error", "code", "message"}`, or the same one level below."""
    return data.get("error") or {name: value for name, value in data.items() if name != "type"}

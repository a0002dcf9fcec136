"""The content blocks of an Anthropic answer, as they grow: none is lost, whatever its type.

Promises that each call is told once with an id of its own, and that a block can go back to the
vendor as it came, in the order in which it began. Takes every value for what it is, not for what
it should be: it comes from outside.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import uuid4

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject
from sidecar.providers.base import (
    Citation,
    ModelEvent,
    ProviderItem,
    ReasoningDelta,
    TextDelta,
    ToolArguments,
    ToolCall,
)

Index: TypeAlias = int | None  # None for all blocks of a server that does not number them


@dataclass(slots=True)
class _Block:
    """`content` is whole once the block is complete; `pieces` are of its text or of its input."""

    kind: str
    content: JsonObject
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    is_complete: bool = False

    @property
    def raw_input(self) -> str:
        if self.pieces:
            return "".join(self.pieces)
        given = self.content.get("input")
        return json.dumps(given, ensure_ascii=False) if given else ""

    def citations(self) -> list[JsonValue]:
        return jsons.items(self.content.get("citations"))

    def is_blank(self) -> bool:
        return self.kind == "text" and not str(self.content["text"]).strip()


class Blocks:
    """All blocks of one answer, also where it comes in several bodies."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._open: dict[Index, _Block] = {}
        self._call_ids: set[str] = set()

    @property
    def has_calls(self) -> bool:
        return any(block.kind == "tool_use" for block in self._blocks)

    def start(self, index: Index, content: JsonObject) -> Iterator[ModelEvent]:
        kind = jsons.text(content.get("type"))
        if not kind:
            return
        block = self._opened(index, kind, content)
        if kind in ("text", "thinking"):
            told = self._more(block, content.get(kind))
            if told is not None:
                yield told

    def grow(self, index: Index, delta: JsonObject) -> ModelEvent | None:
        match delta.get("type"):
            case "text_delta":
                return self._more(self._text_block(index, "text"), delta.get("text"))
            case "thinking_delta":
                return self._more(self._text_block(index, "thinking"), delta.get("thinking"))
            case "input_json_delta":
                return self._more_input(index, delta.get("partial_json"))
            case "citations_delta":
                block = self._open.get(index)
                if block is not None and block.kind == "text":
                    cited = block.content["citations"] = block.citations()
                    cited.append(delta.get("citation"))
            case "signature_delta":
                block = self._open.get(index)
                signature = delta.get("signature")
                if block is not None and block.kind == "thinking" and isinstance(signature, str):
                    block.content["signature"] = signature
            case _:
                self._merge(index, delta)
        return None

    def stop(self, index: Index) -> Iterator[ModelEvent]:
        block = self._open.pop(index, None)
        if block is not None:
            yield from self._completed(block)

    def stop_all(self) -> Iterator[ModelEvent]:
        self._open.clear()
        for block in self._blocks:
            if not block.is_complete:
                yield from self._completed(block)

    def calls(self, was_cut: bool) -> Iterator[ToolCall]:
        """All calls in the order in which they began, once all blocks are complete."""
        for block in self._blocks:
            if block.kind == "tool_use":
                raw = block.raw_input
                # Nothing means no arguments, unless the answer was cut off before they began.
                arguments = None if was_cut and not raw.strip() else jsons.parse_object(raw)
                yield ToolCall(block.call_id, block.name, arguments, raw)

    def content(self) -> list[JsonObject]:
        """What the vendor said, to be sent back, once all blocks are complete.

        Without empty text, which it refuses.
        """
        return [block.content for block in self._blocks if not block.is_blank()]

    def _completed(self, block: _Block) -> Iterator[ModelEvent]:
        """What only a complete block says."""
        block.is_complete = True
        match block.kind:
            case "text":
                block.content["text"] = "".join(block.pieces)
                # One page is often cited for several of its sentences.
                yield from dict.fromkeys(filter(None, map(_citation, block.citations())))
            case "thinking":
                block.content["thinking"] = "".join(block.pieces)
                if not block.pieces:
                    yield ReasoningDelta("")
            case "redacted_thinking":
                yield ReasoningDelta("")
            case "tool_use":
                block.pieces = [block.raw_input]
                arguments = jsons.parse_object(block.raw_input) or {}
                block.content |= {"id": block.call_id, "name": block.name, "input": arguments}
            case kind:
                if block.pieces:
                    block.content["input"] = jsons.parse_object(block.raw_input) or {}
                yield ProviderItem(f"{kind}:{block.name}" if kind == "server_tool_use" else kind)

    def _opened(self, index: Index, kind: str, content: JsonObject) -> _Block:
        block = _Block(kind, content, name=jsons.text(content.get("name")))
        if kind == "tool_use":
            wanted = jsons.text(content.get("id"))
            while not wanted or wanted in self._call_ids:
                wanted = f"toolu_{uuid4().hex}"
            self._call_ids.add(wanted)
            block.call_id = wanted
        self._blocks.append(block)
        self._open[index] = block
        return block

    def _text_block(self, index: Index, kind: str) -> _Block:
        """The open block; a new one where the server forgot to say that it begins."""
        block = self._open.get(index)
        if block is None or block.kind != kind:
            block = self._opened(index, kind, {"type": kind})
        return block

    def _more(self, block: _Block, piece: JsonValue) -> TextDelta | ReasoningDelta | None:
        if not piece or not isinstance(piece, str):
            return None
        block.pieces.append(piece)
        return TextDelta(piece) if block.kind == "text" else ReasoningDelta(piece)

    def _more_input(self, index: Index, piece: JsonValue) -> ToolArguments | None:
        block = self._open.get(index)
        if block is None or block.kind in ("text", "thinking"):
            return None
        if not piece or not isinstance(piece, str):
            return None
        block.pieces.append(piece)
        if block.kind == "tool_use" and block.name:
            return ToolArguments(block.call_id, block.name, piece)
        return None

    def _merge(self, index: Index, delta: JsonObject) -> None:
        """A delta of another kind, such as a compaction's: its fields are those of its block."""
        block = self._open.get(index)
        if block is None or block.kind in ("text", "thinking", "tool_use"):
            return
        for name, value in delta.items():
            before = block.content.get(name)
            if name == "type":
                continue
            grows = isinstance(before, str) and isinstance(value, str)
            block.content[name] = f"{before}{value}" if grows else value


def _citation(cited: JsonValue) -> Citation | None:
    """From a page of the web, a search result that a tool gave, or a document of the request."""
    said = jsons.fields(cited)
    address = said.get("url") or said.get("source")
    url = address if isinstance(address, str) and address.startswith("http") else None
    titles = (said.get("title"), said.get("document_title"), address)
    title = next((text for title in titles if (text := jsons.text(title))), None)
    return Citation(url, None if title == url else title) if url or title else None

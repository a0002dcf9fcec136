"""Which call a piece of one belongs to, for servers that number them well, badly or not at all.

Made for the deltas of chat completions. Promises that every call is told once, whole and with an
id of its own, and that what came before its name is held back. Looks at each piece once.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject
from sidecar.providers.base import ToolArguments, ToolCall

_MARK = re.compile(r'\\.|[\\"{}]', re.DOTALL)  # a backslash alone is the last of its piece


class _Extent:
    """Finds the end of a JSON object that comes in pieces, looking at each piece once."""

    def __init__(self) -> None:
        self._seen = 0
        self._depth = 0
        self._has_begun = False
        self._in_string = False
        self._is_escaped = False  # the next piece begins with a character after a backslash

    def has_ended(self, pieces: Sequence[str]) -> bool:
        """`pieces` are all there are so far; none is empty."""
        for piece in pieces[self._seen :]:
            self._look_at(piece)
        self._seen = len(pieces)
        return self._has_begun and self._depth <= 0

    def _look_at(self, piece: str) -> None:
        start, self._is_escaped = int(self._is_escaped), False
        for mark in _MARK.findall(piece, start):
            if mark == '"':
                self._in_string = not self._in_string
            elif mark == "\\":
                self._is_escaped = True
            elif mark == "{" and not self._in_string:
                self._has_begun = True
                self._depth += 1
            elif mark == "}" and not self._in_string:
                self._depth -= 1


@dataclass(slots=True)
class Call:
    """A call as it grows: what came before the name is known is held back.

    `extra` is what the server put beside it and wants back.
    """

    name: str = ""
    vendor_id: str = ""
    call_id: str = ""
    arguments: list[str] = field(default_factory=list)
    shown: int = 0
    extent: _Extent = field(default_factory=_Extent)
    extra: JsonObject = field(default_factory=dict)

    def news(self) -> Iterator[ToolArguments]:
        if self.name and len(self.arguments) > self.shown:
            text = "".join(self.arguments[self.shown :])
            self.shown = len(self.arguments)
            yield ToolArguments(self.call_id, self.name, text)

    def is_complete(self) -> bool:
        """Whether the arguments are an object that has ended."""
        return self.extent.has_ended(self.arguments)


class CallPieces:
    """A known id wins; a new id opens a new call, even at a used index; without an id the index
    decides; without either it is the open call's.
    """

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}
        self._ids: set[str] = set()

    def add(self, piece: dict[str, JsonValue]) -> Iterator[ToolArguments]:
        function = jsons.fields(piece.get("function"))
        name = jsons.text(function.get("name"))
        arguments = _arguments_text(function.get("arguments"))
        call = self._call_of(piece, name, arguments)
        call.name = call.name or name
        if arguments:
            call.arguments.append(arguments)
        if isinstance(extra := piece.get("extra_content"), dict):
            call.extra = {"extra_content": extra}
        yield from call.news()

    @property
    def begun(self) -> Sequence[Call]:
        """The calls so far, in the order in which they began."""
        return [call for call in self._calls if call.name or any(map(str.strip, call.arguments))]

    def complete(self, was_cut: bool) -> list[ToolCall]:
        """All calls in the order in which they began."""
        made = []
        for call in self.begun:
            raw = "".join(call.arguments)
            # Nothing is how many servers write "no arguments", unless the answer was cut off there.
            arguments = None if was_cut and not raw.strip() else jsons.parse_object(raw)
            made.append(ToolCall(call.call_id, call.name, arguments, raw))
        return made

    def _call_of(self, piece: Mapping[str, JsonValue], name: str, arguments: str) -> Call:
        vendor_id = jsons.text(piece.get("id"))
        index = number if isinstance(number := piece.get("index"), int) else None
        if vendor_id in self._by_id:
            return self._by_id[vendor_id]
        open_call = self._calls[-1] if self._calls else None
        known = open_call if index is None else self._by_index.get(index)
        if vendor_id:
            if known is not None and not known.vendor_id and not name:
                return self._named(known, vendor_id)  # the id came after the name
            return self._open(index, vendor_id)
        if known is None and not name:
            known = open_call  # a rest under a number that nobody has
        if known is None or _begins_anew(known, name, arguments):
            return self._open(index, vendor_id)
        return known

    def _open(self, index: int | None, vendor_id: str) -> Call:
        wanted = vendor_id
        while not wanted or wanted in self._ids:
            wanted = uuid4().hex[:9]  # Mistral takes back only ids of nine characters
        call = Call(call_id=wanted)
        self._ids.add(wanted)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return self._named(call, vendor_id) if vendor_id else call

    def _named(self, call: Call, vendor_id: str) -> Call:
        call.vendor_id = vendor_id
        self._by_id[vendor_id] = call
        return call


def _begins_anew(call: Call, name: str, arguments: str) -> bool:
    """Whether a name without an id is another call's: some servers number all of them 0."""
    if not name or not call.name:
        return False
    return name != call.name or (bool(arguments) and call.is_complete())


def _arguments_text(arguments: JsonValue) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)

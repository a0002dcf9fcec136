"""JSON text in, values out that know the line they stand on.

Comments and trailing commas pass, since programs let people write them. What is wrong is said with
its line and what to do, and quotes no value. Knows no setting.
"""

import json
import re
from bisect import bisect_left
from typing import NoReturn

from sidecar.errors import ConfigInvalid
from sidecar.settings.nodes import MAX_DEPTH, MAX_VALUES, Node, Origin

_BLANK = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_BARE = re.compile(r"[\w$'‘’“”]")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_STRAIGHT = 'Put it into straight double quotes, as in "command".'


def parse(text: str, source: str) -> dict[str, Node]:
    """Read an object. Raises ConfigInvalid."""
    return _Reader(text, source).document()


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._at = 0
        self._count = 0

    def document(self) -> dict[str, Node]:
        self._skip()
        if self._next() != "{":
            self._fail("JSON settings begin with {.")
        entries = self._object(0)
        self._skip()
        if self._next():
            self._fail("there is more text after the last }. Remove it, or a } before it.")
        return entries

    def _value(self, origin: Origin, depth: int) -> Node:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise ConfigInvalid(f"{origin}: there is more here than any settings have.")
        match self._next():
            case "{":
                return Node(self._object(depth), origin)
            case "[":
                return Node(self._array(depth), origin)
        return self._scalar(origin)

    def _object(self, depth: int) -> dict[str, Node]:
        opened = self._at
        entries: dict[str, Node] = {}
        self._at += 1
        while not self._closed("}", opened):
            origin = self._origin()
            name = self._name()
            if name in entries:
                first = entries[name].origin.line
                raise ConfigInvalid(
                    f"{origin}: {name} stands already on line {first}. Remove one of the two."
                )
            self._skip()
            if self._next() != ":":
                self._fail('a colon is missing, as in "command": "npx".')
            self._at += 1
            self._skip()
            entries[name] = self._value(origin, depth + 1)
            self._separate("}")
        return entries

    def _array(self, depth: int) -> list[Node]:
        opened = self._at
        items: list[Node] = []
        self._at += 1
        while not self._closed("]", opened):
            items.append(self._value(self._origin(), depth + 1))
            self._separate("]")
        return items

    def _closed(self, end: str, opened: int) -> bool:
        """Whether the bracket ends here; passes it then."""
        self._skip()
        if not self._next():
            line = self._line(opened)
            self._fail(f"the text ends before the {self._text[opened]} of line {line} is closed.")
        if self._next() == end:
            self._at += 1
            return True
        if self._next() in "}]":
            self._fail(f"{self._next()} stands where {end} is expected; look for one too many.")
        return False

    def _separate(self, end: str) -> None:
        written = self._at
        self._skip()
        if self._next() == ",":
            self._at += 1
        elif self._next() and self._next() not in "}]":
            self._at = written
            self._fail(f"a comma or a {end} is missing after this value.")

    def _name(self) -> str:
        if self._next() != '"':
            self._fail("a name is expected here. " + _STRAIGHT)
        name = self._scalar(self._origin()).value
        assert isinstance(name, str)
        return name

    def _scalar(self, origin: Origin) -> Node:
        try:
            value, end = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._fail(self._complaint(error.msg))
        except ValueError:  # NaN, or thousands of digits
            raise ConfigInvalid(f"{origin}: no settings have such a number.") from None
        written = self._text[self._at : end]
        self._at = end
        if isinstance(value, str):
            value = written = _HALF_CHARACTER.sub("\ufffd", value)
        return Node(value, origin, written=written)

    def _complaint(self, problem: str) -> str:
        if "escape" in problem:
            return r"a \ in a text is written \\, as in C:\\Users."
        if self._next() == '"':
            return 'this text does not end on its line. Close it with ", and write \\n for a break.'
        if _BARE.match(self._next()):
            return "this is no value. " + _STRAIGHT
        if self._text.startswith("/*", self._at):
            return "the comment that begins here does not end. Close it with */."
        return "a value is missing here."

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _next(self) -> str:
        """Empty at the end."""
        return self._text[self._at : self._at + 1]

    def _line(self, at: int) -> int:
        return bisect_left(self._ends, at) + 1

    def _origin(self) -> Origin:
        return Origin(self._source, self._line(self._at))

    def _fail(self, complaint: str) -> NoReturn:
        last = len(self._text.rstrip()) - 1  # nobody looks for a line below the last one
        line = self._line(min(self._at, max(last, 0)))
        raise ConfigInvalid(f"{Origin(self._source, line)}: {complaint}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)

"""A call's arguments as Google streams them: values, each with the JSON path where it belongs.

A value comes whole, or a string in pieces under one path. Never raises: a path that leads nowhere
is skipped.
"""

import re

from pydantic import JsonValue

from sidecar.jsons import MAX_DEPTH
from sidecar.messages import JsonObject

_STEP = re.compile(
    r"\.(?P<name>[^.\[\]]+)"
    r"|\[(?P<index>\d{1,9})\]"
    r"|\[(?P<quote>['\"])(?P<quoted>(?:\\.|(?!(?P=quote)).)*)(?P=quote)\]",
    re.DOTALL,
)


class PartialArguments:
    """The arguments so far; `add` takes the next `partialArgs`."""

    def __init__(self) -> None:
        self._value: JsonObject = {}
        self._texts: dict[str, list[str]] = {}  # by path, because texts grow piece by piece

    @property
    def value(self) -> JsonObject:
        for path, pieces in self._texts.items():
            _put(self._value, _parse(path), "".join(pieces))
        return self._value

    def add(self, pieces: JsonValue) -> None:
        if not isinstance(pieces, list):
            return
        for piece in pieces:
            if isinstance(piece, dict) and isinstance(path := piece.get("jsonPath"), str):
                self._add(path, piece)

    def _add(self, path: str, piece: JsonObject) -> None:
        if isinstance(text := piece.get("stringValue"), str):
            if path in self._texts:
                self._texts[path].append(text)
                return
            self._texts[path] = [text]
            _put(self._value, _parse(path), "")  # arguments keep the order in which they began
            return
        for name in ("numberValue", "boolValue"):
            if isinstance(value := piece.get(name), int | float):
                _put(self._value, _parse(path), value)
                return
        if "nullValue" in piece:
            _put(self._value, _parse(path), None)


def _parse(path: str) -> list[str | int]:
    """The steps of a path such as `$.foo['a b'][0]`; none for what is no such path."""
    if not path.startswith("$"):
        return []
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or len(steps) == MAX_DEPTH:
            return []
        if found["index"] is not None:
            steps.append(int(found["index"]))
        elif found["name"] is not None:
            steps.append(found["name"])
        else:
            steps.append(re.sub(r"\\(.)", r"\1", found["quoted"], flags=re.DOTALL))
        at = found.end()
    return steps


def _put(root: JsonObject, steps: list[str | int], value: JsonValue) -> None:
    place: JsonValue = root
    for step, following in zip(steps, [*steps, None][1:], strict=True):
        inner: JsonValue = value
        if following is not None:
            inner = [] if isinstance(following, int) else {}
        if isinstance(place, dict) and isinstance(step, str):
            if following is None or not isinstance(place.get(step), type(inner)):
                place[step] = inner
            place = place[step]
        elif isinstance(place, list) and isinstance(step, int):
            step = min(step, len(place))  # whoever skips a million places gets the next one
            if step == len(place):
                place.append(inner)
            elif following is None or not isinstance(place[step], type(inner)):
                place[step] = inner
            place = place[step]
        else:
            return

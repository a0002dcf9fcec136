"""JSON that others wrote, read so that it can always be written again.

What is read has no half of a character in it, no number that JSON cannot write and no depth on
which a later walk could fail. Every refusal is a ValueError. Does not know what the JSON is for.
"""

import json
import re
import sys

from pydantic import JsonValue

MAX_DEPTH = 100  # honest JSON has a tenth of it, and pydantic ends at 200
LARGEST = sys.float_info.max
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def loads(text: str | bytes) -> JsonValue:
    """The value; half a character, also in invalid UTF-8, becomes U+FFFD, and 1e999 LARGEST.

    Raises ValueError and nothing else, also for NaN and for more than MAX_DEPTH levels.
    """
    whole = text.decode("utf-8-sig", "replace") if isinstance(text, bytes) else text
    if not whole.isascii():
        whole = _HALF_CHARACTER.sub("\ufffd", whole)
    try:
        value: JsonValue = _DECODER.decode(whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if whole.count("[") + whole.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise ValueError("nested too deeply")
    if "\\ud" in whole or "\\uD" in whole:
        written = json.dumps(value, ensure_ascii=False)
        repaired: JsonValue = _DECODER.decode(_HALF_CHARACTER.sub("\ufffd", written))
        return repaired
    return value


def parse_object(raw: str) -> dict[str, JsonValue] | None:
    """The arguments of a call; None for what is no JSON object. Nothing means no arguments."""
    if not raw.strip():
        return {}
    try:
        value = loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def text(value: JsonValue) -> str:
    """Empty for what is no text."""
    return value if isinstance(value, str) else ""


def items(value: JsonValue) -> list[JsonValue]:
    """Empty for what is no list."""
    return value if isinstance(value, list) else []


def fields(value: JsonValue) -> dict[str, JsonValue]:
    """Empty for what is no object."""
    return value if isinstance(value, dict) else {}


def rows(value: JsonValue) -> list[dict[str, JsonValue]]:
    """The objects in a list; empty for what is none."""
    return [row for row in items(value) if isinstance(row, dict)]


def _is_too_deep(value: JsonValue) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _finite(digits: str) -> float:
    return max(-LARGEST, min(float(digits), LARGEST))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


# Made once: making one costs as much as a use.
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)

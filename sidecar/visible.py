"""Text of others, made fit to be shown: nothing in it may hide, reorder or fake what is read.

Joiners and emoji selectors stay: scripts and emoji need them, and they move nothing.
"""

import re

from pydantic import JsonValue

# controls but tab and newline; bidirectional marks and overrides; fillers, tags, half surrogates
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Characters that show nothing, or move others, stand as their `\\u…` escapes."""
    return _HIDDEN.sub(_escape, text)


def visible_json(value: JsonValue, max_chars: int) -> JsonValue:
    """The same for every string and name in `value`, each string cut to `max_chars`."""
    if isinstance(value, str):
        return visible(value if len(value) <= max_chars else value[:max_chars] + "…")
    if isinstance(value, list):
        return [visible_json(item, max_chars) for item in value]
    if isinstance(value, dict):
        return {visible(name): visible_json(item, max_chars) for name, item in value.items()}
    return value


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

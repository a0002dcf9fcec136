"""What another program fills in where an entry says `${…}`; here a person must.

Nothing is looked up: an entry that others wrote could name any variable, and send it anywhere.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sidecar.visible import visible

QUESTION_CHARS = 200
_REFERENCE = re.compile(r"\$\{([^{}]*)\}|\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_WITH_SIMPLE = re.compile(rf"{_REFERENCE.pattern}|\$([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Filled:
    """A text in which a `{name}` stands for each of `missing`, which are written as found.

    Braces, since a text may be for a shell, to which `<name>` is a file to read.
    """

    text: str
    missing: tuple[str, ...] = ()


def filled(written: str, known: Mapping[str, str], *, has_simple: bool = False) -> Filled:
    """With `has_simple` a `$NAME` is a reference too. What is in `{{…}}` is never known."""
    missing: list[str] = []

    def replaced(found: re.Match[str]) -> str:
        name = next(group for group in found.groups() if group is not None)
        if name in known and not found[0].startswith("{{"):
            return known[name]
        missing.append(name)
        return f"{{{_short(name)}}}"

    text = (_WITH_SIMPLE if has_simple else _REFERENCE).sub(replaced, written)
    return Filled(text, tuple(dict.fromkeys(missing)))


def of_this_machine() -> dict[str, str]:
    """What is no secret and is the same for every program. Only for what is started here."""
    home = os.path.expanduser("~")
    return {
        **dict.fromkeys(("userHome", "HOME", "env:HOME", "env:USERPROFILE"), home),
        **dict.fromkeys(("pathSeparator", "/"), os.sep),
    }


def to_give(field: str, result: Filled, questions: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each thing that a person must write, with what its program asks for."""
    for name in result.missing:
        question = questions.get(name, "").strip().rstrip(".")
        asked = f" ({visible(question[:QUESTION_CHARS])})" if question else ""
        yield f"Write a value in place of {{{visible(_short(name))}}} in {visible(field)}{asked}."


def _short(name: str) -> str:
    """`input:key` → `key`, `NAME:-default` → `NAME`."""
    kind, _, rest = name.partition(":")
    return (kind if not rest or rest.startswith("-") else rest).strip() or "?"

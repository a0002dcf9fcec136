"""How Windows is told to run a batch file, such as `npx.cmd`, without reading its arguments.

Only the command processor runs these, and it has a language of its own, in which `&` and `%` do
things. In quotes all of it is text but `%`, and a quote, which is written twice; a percent sign is
written so that the variable it could begin ends at once: `%cd:~,%` is the empty beginning of one
that always exists. What cannot be written is refused.
"""

import re
from collections.abc import Sequence

_PERCENT = "%%cd:~,%"
_UNWRITABLE = re.compile(r"[\0\r\n]")
_BEFORE_QUOTE = re.compile(r'\\+(?="|\Z)')


def is_batch_file(executable: str) -> bool:
    return executable.lower().endswith((".cmd", ".bat"))


def batch_line(script: str, args: Sequence[str]) -> str:
    """For the command processor's `/c`. Raises ValueError."""
    return " ".join(map(_quoted, (script, *args)))


def _quoted(text: str) -> str:
    if _UNWRITABLE.search(text):
        raise ValueError("a batch file takes no argument with a line break in it")
    # what runs in the end would take a quote after a backslash for a part of the text
    text = _BEFORE_QUOTE.sub(lambda found: found[0] * 2, text)
    return '"' + text.replace('"', '""').replace("%", _PERCENT) + '"'

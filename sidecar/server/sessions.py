"""The codes that a browser is opened with, and the page tokens that they are exchanged for.

A code stands in a browser's command line, which others on this machine may read. So it is good
once and for a minute, and a second use ends the session that the first one made: one of the two
was somebody else's. In memory only; touches no request.
"""

import hmac
import json
import secrets
from collections.abc import Callable, Iterable

from sidecar.errors import BadRequest, Unauthorized

CODE_S = 60.0  # for a browser that has to start first
CODES = 16  # waiting for their browser; the oldest makes room
SESSIONS = 64  # more tabs than a person keeps; the oldest makes room


class Sessions:
    """The sessions of one sidecar. `redact` is told every page token before it is used."""

    def __init__(self, now: Callable[[], float], redact: Callable[[str], None]) -> None:
        self._now = now
        self._redact = redact
        self._codes: dict[str, float] = {}  # until when each is good
        self._tokens: dict[str, str] = {}  # by the code that made it

    def new_code(self) -> str:
        code = secrets.token_urlsafe(32)
        self._codes[code] = self._now() + CODE_S
        _make_room(self._codes, CODES)
        return code

    def exchange(self, given: str) -> str:
        """The page token for a code. Raises Unauthorized; a used code ends what it made."""
        used = _find(self._tokens, given)
        if used is not None:
            del self._tokens[used]
        code = _find(self._codes, given)
        if code is None or self._codes.pop(code) < self._now():
            raise Unauthorized(
                "The code is wrong, old or used: it is good once, for a minute. "
                "Run `sidecar` again, which opens a new page."
            )
        token = secrets.token_urlsafe(32)
        self._redact(token)
        self._tokens[code] = token
        _make_room(self._tokens, SESSIONS)
        return token

    def knows(self, token: str) -> bool:
        """Whether this is a page token, compared in constant time."""
        return _find(self._tokens.values(), token) is not None


def parse_code(body: bytes) -> str:
    """Of `{"code": "…"}`. Raises BadRequest for anything else."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BadRequest('The body is no JSON object with a "code".') from error
    if not isinstance(code, str):
        raise BadRequest("The code is no text.")
    return code


def _find(known: Iterable[str], given: str) -> str | None:
    """Looks at all of them, so that the time tells nothing."""
    data = given.encode(errors="replace")
    equal = [each for each in known if hmac.compare_digest(each.encode(), data)]
    return equal[0] if equal else None


def _make_room(kept: dict[str, float] | dict[str, str], limit: int) -> None:
    while len(kept) > limit:
        del kept[next(iter(kept))]

"""Text and values without secrets: by the shapes that keys have, and by the values we know.

Pure but for the set of known values, which only grows. What is hidden wrongly is a nuisance in a
log; what is shown wrongly is somebody's money: in doubt, it hides.
"""

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
MAX_CHARS = 16_384  # of one text
MAX_DEPTH = 6  # of a value

_PREFIXED_KEY = (
    r"(?:c?sk-|sk_|pk_|rk_|gsk_|xai-|pplx-|hf_|r8_|nvapi-|fw_|tgp_|gh[opsur]_|github_pat_|glpat-"
    r"|xox[abeoprs]-|AKIA|ASIA|AIza|ya29\.|AQ\.)[A-Za-z0-9_*./+-]{8,}"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(sidecar\.token\.)[A-Za-z0-9_-]+"), rf"\1{REDACTED}"),
    (re.compile(rf"(?<![A-Za-z0-9]){_PREFIXED_KEY}"), REDACTED),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}"), REDACTED),  # JWT, JWE
    (re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*://)[^/\s\"'@]+@", re.I), rf"\1{REDACTED}@"),
    (re.compile(r"\b(bearer\s+)[\w.~+/=*-]{6,}", re.I), rf"\1{REDACTED}"),
    (  # a header, in a dump of a map, of pairs or of bytes
        re.compile(
            r"((?:proxy-)?authorization|x-api-key|api-key|x-goog-api-key|x-auth-token)"
            r"(['\"]?\s*[:=,]\s*(?:b?['\"])?(?:(?:bearer|basic|token|digest)\s+)?)"
            r"(?!\[redacted\])[^\s\"',;)}\]]+",
            re.I,
        ),
        rf"\1\2{REDACTED}",
    ),
    (
        re.compile(r"((?:set-)?cookie['\"]?\s*[:=,]\s*(?:b?['\"])?)[^\"'\r\n]+", re.I),
        rf"\1{REDACTED}",
    ),
    (  # ?key=…, &access_token=…, #code=…
        re.compile(
            r"([?&#](?:[\w.-]*(?:key|token|secret|password|signature|credential)|sig|code|state)=)"
            r"[^&\s\"'#<>]+",
            re.I,
        ),
        rf"\1{REDACTED}",
    ),
    (  # api_key='…', "client_secret": "…", OPENAI_API_KEY=…
        re.compile(
            r"((?:api[_-]?key|client[_-]?secret|passw(?:or)?d|(?:access|refresh|id|auth)[_-]?token)"
            r"\\?['\"]?\s*[:=]\s*\\?['\"]?)(?!\[redacted\])[^\s\"',;&}\\]{4,}",
            re.I,
        ),
        rf"\1{REDACTED}",
    ),
)
_SECRET_FIELD = re.compile(
    r"(?:.*[_.-])?(?:token|secret|passw(?:or)?d|api[_-]?key|apikey|authorization|cookie|credential)s?",
    re.I,
)
_SHORT = 8  # shorter secrets are hidden as whole words only: "test" is a part of "latest"


class _Secrets:
    """Values that are secret whatever their shape."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        if len(value) < 4 or value in self._values:
            return
        self._values.add(value)
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(self._alternative, longest_first)))

    def hidden(self, text: str) -> str:
        return self._pattern.sub(REDACTED, text) if self._pattern else text

    @staticmethod
    def _alternative(value: str) -> str:
        word = re.escape(value)
        return word if len(value) >= _SHORT else rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])"


_secrets = _Secrets()


def redact_value(secret: str) -> None:
    """Hide this value wherever it appears from now on: our token, and each key that is read."""
    _secrets.add(secret)


def redact(text: str) -> str:
    """The text without what is, or looks like, a secret; for a crash's last words too."""
    text = _secrets.hidden(text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted(value: object, depth: int = 0) -> Any:
    """The same for a value of any type, as plain values: nothing is left to be described later."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _shortened(value)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {
            _shortened(str(name)): REDACTED if _is_secret(name, item) else redacted(item, depth + 1)
            for name, item in value.items()
        }
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [redacted(item, depth + 1) for item in value]
    return _shortened(_described(value))


def is_secret_name(name: str) -> bool:
    """Whether a field or a variable of this name holds a secret."""
    return _SECRET_FIELD.fullmatch(name) is not None


def _described(value: object) -> str:
    try:
        return str(value) if isinstance(value, BaseException) else repr(value)
    except Exception as error:  # the object's own code; whoever logs it must not fail with it
        return f"<{type(value).__name__} that raises {type(error).__name__}>"


def _is_secret(name: object, value: object) -> bool:
    """Token counts are numbers; what has text under such a name is a secret."""
    return (
        not isinstance(value, bool | int | float | None)
        and isinstance(name, str)
        and is_secret_name(name)
    )


def _shortened(text: str) -> str:
    """Redacts before it cuts, so that the cut leaves no half of a key."""
    clean = redact(text[: 2 * MAX_CHARS])
    return clean if len(clean) <= MAX_CHARS else f"{clean[:MAX_CHARS]}… ({len(text)} characters)"

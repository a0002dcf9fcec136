"""What an entry of the settings keeps secret, hidden in whatever its server says.

Servers repeat their keys: in errors, in usage texts, in the address that they could not reach.
"""

import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

from sidecar.config import McpServerConfig
from sidecar.mcp_host.variables import is_inherited
from sidecar.redaction import REDACTED

SHORTEST = 4  # "1" and "on" are no secrets, and are parts of everything
SHORT = 8  # shorter values are hidden as whole words only: "test" is a part of "latest"


def hiding(config: McpServerConfig) -> Callable[[str], str]:
    """What replaces these values in a text; what only looks like a secret is for `redact`."""
    values = {value for value in _values(config) if len(value) >= SHORTEST}
    longest_first = sorted(values, key=len, reverse=True)
    pattern = re.compile("|".join(map(_occurrence, longest_first)) or "(?!)")  # which is nowhere
    return lambda text: pattern.sub(REDACTED, text)


def _values(config: McpServerConfig) -> Iterator[str]:
    for name, value in config.env.items():
        if not is_inherited(name, value):  # PATH and its like are told in errors
            yield from value.splitlines()
    for value in config.headers.values():
        yield value
        yield value.partition(" ")[2]  # the token after its scheme
    yield config.oauth.client_secret or ""
    if config.url is not None:
        parts = urlsplit(config.url)
        yield from (parts.username or "", parts.password or "", parts.query)
        yield from (value for _, value in parse_qsl(parts.query))


def _occurrence(value: str) -> str:
    word = re.escape(value)
    return word if len(value) >= SHORT else rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])"

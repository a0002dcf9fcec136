"""How an MCP server says that it wants to know who asks, or wants more permission: RFC 6750."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PARAMETER = re.compile(r'\b([a-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))', re.I)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749


@dataclass(frozen=True, slots=True)
class Challenge:
    """A status of 401 or 403, and the `WWW-Authenticate` that came with it."""

    status: int
    header: str

    @property
    def wants_more(self) -> bool:
        """Whether the token is good, and may do too little."""
        return self.status == 403 and self.parameters.get("error") == "insufficient_scope"

    @property
    def parameters(self) -> dict[str, str]:
        found = _PARAMETER.finditer(self.header)
        return {match[1].lower(): match[2] or match[3] or "" for match in found}

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(_SCOPE.findall(self.parameters.get("scope", "")))

    def asking_for(self, scopes: Iterable[str]) -> "Challenge":
        """The same, as if the server had asked for these scopes."""
        parameters = {**self.parameters, "scope": " ".join(dict.fromkeys(scopes))}
        said = ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value)
        return Challenge(self.status, f"Bearer {said}")

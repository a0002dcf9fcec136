"""Who may connect: Host, then Origin, then token; before a route, a body or an upgrade.

Nothing here trusts one of them for another: a rebound name makes Host and Origin equal, so that
their equality is never a reason to pass.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from sidecar.errors import BadHost, ConfigInvalid, OriginNotAllowed, Unauthorized
from sidecar.server.sessions import Sessions

TAURI_ORIGINS = ("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
SUBPROTOCOL = "sidecar"
TOKEN_SUBPROTOCOL = "sidecar.token."
TOKEN_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
SUMMARY_S = 60.0  # failures are one log line a minute, so that nobody can fill the log

log = structlog.get_logger()


def new_token() -> str:
    return secrets.token_urlsafe(32)


def given_token(value: str) -> str:
    """The token that a parent chose. Raises ConfigInvalid, which does not repeat it."""
    if 43 <= len(value) <= 128 and set(value) <= TOKEN_CHARACTERS:
        return value
    raise ConfigInvalid(
        "SIDECAR_TOKEN must be 43 to 128 characters of A-Z a-z 0-9 - _ "
        "(32 random bytes in base64url); leave it out to have one made."
    )


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who passed. Without one there is no connection."""

    origin: str | None


class Gate:
    """The rules of one listening address."""

    def __init__(
        self,
        *,
        scheme: str,
        host: str,
        port: int,
        token: str,
        sessions: Sessions,
        allowed_hosts: Iterable[str],
        allowed_origins: Iterable[str],
        opens_door: Callable[[str], Awaitable[bool]],
        now: Callable[[], float],
    ) -> None:
        """`opens_door` judges a door key."""
        self._port = port
        self._default_port = {"http": 80, "https": 443}[scheme]
        shown_port = "" if port == self._default_port else f":{port}"  # as browsers write it
        self.origin = f"{scheme}://{_literal(host)}{shown_port}"
        self._token = token.encode()
        self._sessions = sessions
        self._hosts = LOOPBACK_HOSTS | {host.lower()} | {name.lower() for name in allowed_hosts}
        self._origins = frozenset((self.origin, *TAURI_ORIGINS, *allowed_origins))
        self._opens_door = opens_door
        self._now = now
        self._failures = 0
        self._summarised_at = float("-inf")

    def check_host(self, header: str | None) -> None:
        """Raises BadHost unless `header` names us, with our port."""
        parsed = _host_and_port(header or "", self._default_port)
        if parsed is None or parsed[0] not in self._hosts or parsed[1] != self._port:
            self._failed("host")
            raise BadHost(
                f"This address is not served here: use {self.origin}, "
                "or list the name in server.allowed_hosts."
            )

    def check_origin(self, header: str | None) -> None:
        """Raises OriginNotAllowed unless there is none or it is listed, to the letter."""
        if header is not None and header not in self._origins:
            self._failed("origin")
            raise OriginNotAllowed(
                "This page may not connect: list its exact origin in server.allowed_origins, "
                "or start with --allow-origin."
            )

    def check_own_origin(self, header: str | None) -> None:
        """Raises OriginNotAllowed unless it is our own page that asks; none will not do."""
        if header != self.origin:
            self._failed("origin")
            raise OriginNotAllowed("Only the sidecar's own page may ask for this.")

    def check_token(self, authorization: str | None, subprotocols: str | None) -> str:
        """The token that one of the two headers carries. Raises Unauthorized for a wrong one."""
        offered = [name.strip() for name in (subprotocols or "").split(",")]
        token = _bearer(authorization) or _offered_token(offered)
        if SUBPROTOCOL not in offered and any(map(_is_token, offered)):
            token = None  # there is nothing that we could answer it with
        if token is None or not self.knows(token):
            self._failed("token")
            raise Unauthorized(
                "The token is missing or wrong: send the one of the ready line as "
                "`Authorization: Bearer …` or as the WebSocket subprotocol `sidecar.token.…`."
            )
        return token

    async def check_door(self, authorization: str | None) -> None:
        """For `/v1` only: a token, or the door key. Raises Unauthorized for anything else."""
        given = _bearer(authorization)
        if given is None or not (self.knows(given) or await self._opens_door(given)):
            self._failed("door key")
            raise Unauthorized(
                "The key is missing or wrong: send the one that `sidecar door key` shows as "
                "`Authorization: Bearer …`."
            )

    def knows(self, token: str) -> bool:
        """Whether it is the token of this start, or of a page whose session has not ended."""
        is_main = hmac.compare_digest(token.encode(errors="replace"), self._token)
        return self._sessions.knows(token) or is_main

    def is_literal(self, header: str | None) -> bool:
        """Whether a page was asked for by the address that we print."""
        return header == urlsplit(self.origin).netloc

    def _failed(self, what: str) -> None:
        self._failures += 1
        if self._now() - self._summarised_at >= SUMMARY_S:
            log.warning("connections_refused", count=self._failures, last=what)
            self._failures, self._summarised_at = 0, self._now()


def _literal(host: str) -> str:
    """The address to print: `localhost` may be another one next door, and no name leads to all."""
    host = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _host_and_port(header: str, default_port: int) -> tuple[str, int] | None:
    """Strictly `name`, `name:port`, `[v6]` or `[v6]:port`; anything else is None."""
    if header.startswith("["):
        host, bracket, rest = header[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:] if rest else None
    else:
        host, colon, port_text = header.partition(":")
        port = port_text if colon else None
    if port is None:
        return host.lower(), default_port
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    return host.lower(), int(port)


def _bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _is_token(subprotocol: str) -> bool:
    return subprotocol.startswith(TOKEN_SUBPROTOCOL)


def _offered_token(offered: list[str]) -> str | None:
    return next((name.removeprefix(TOKEN_SUBPROTOCOL) for name in offered if _is_token(name)), None)

"""What a server is given as a secret: in the settings file by name, in the keyring by value.

A name belongs to one server and one place of it, so that no entry can ask for another's secret,
nor for the key of a vendor.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

from sidecar.config import McpServerConfig
from sidecar.errors import KeyringUnavailable, McpStartFailed

Place = Literal["env", "headers", "oauth"]
PLACES: tuple[Place, ...] = ("env", "headers", "oauth")
CLIENT_SECRET = "client_secret"  # what is secret of `oauth`
_REFERENCE = re.compile(r"\$\{keyring:([^}]*)\}")

Reveal = Callable[[Sequence[str]], Awaitable[Mapping[str, str | None]]]
"""The secrets of these names; None for one that is not there. Raises KeyringUnavailable."""


def secret_name(server: str, place: Place, name: str) -> str:
    return f"mcp.{server}.{place}.{name}"


def reference(server: str, place: Place, name: str) -> str:
    """What stands in the settings file."""
    return f"${{keyring:{secret_name(server, place, name)}}}"


def references(server: str, config: McpServerConfig) -> Mapping[tuple[Place, str], str]:
    """The places of this entry whose value is in the keyring, with its name there."""
    return {
        (place, name): secret_name(server, place, name)
        for place in PLACES
        for name, value in _values(config, place).items()
        if value == reference(server, place, name)
    }


async def revealed(server: str, config: McpServerConfig, reveal: Reveal) -> McpServerConfig:
    """The entry with its secrets. Raises McpStartFailed for one that is not to be had."""
    wanted = references(server, config)
    _check(server, config, frozenset(wanted.values()))
    if not wanted:
        return config
    try:
        found = await reveal(list(wanted.values()))
    except KeyringUnavailable as error:
        raise McpStartFailed(
            f"The MCP server {server} cannot start: its secrets are in the keyring. {error}",
            server=server,
        ) from error
    filled = {place: dict(_values(config, place)) for place in PLACES}
    for (place, name), secret in wanted.items():
        value = found.get(secret)
        if value is None:
            raise McpStartFailed(
                f"The MCP server {server} cannot start: the keyring has no secret for {name} any "
                "more. Give it again.",
                server=server,
            )
        filled[place][name] = value
    oauth = config.oauth.model_copy(update=filled["oauth"])
    return config.model_copy(
        update={"env": filled["env"], "headers": filled["headers"], "oauth": oauth}
    )


def _values(config: McpServerConfig, place: Place) -> Mapping[str, str]:
    """What may be secret there."""
    match place:
        case "env":
            return config.env
        case "headers":
            return config.headers
        case "oauth":
            secret = config.oauth.client_secret
            return {} if secret is None else {CLIENT_SECRET: secret}


def _check(server: str, config: McpServerConfig, own: frozenset[str]) -> None:
    for place in PLACES:
        for value in _values(config, place).values():
            if any(name not in own for name in _REFERENCE.findall(value)):
                raise McpStartFailed(
                    f"The MCP server {server} cannot start: {place} refers to a secret in the "
                    "keyring that is not its own.",
                    server=server,
                )

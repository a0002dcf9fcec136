"""The entries of MCP servers in the person's settings file, as a client changes them.

What a client adds or changes starts nothing: it waits until a person agrees to exactly what it
would start. Values are literal, and secrets go to the keyring, never into the file.
"""

from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any

from sidecar.credentials import Keyring
from sidecar.errors import BadRequest, Conflict, KeyringUnavailable, NotFound
from sidecar.live_settings import LiveSettings
from sidecar.mcp_host import config_import
from sidecar.mcp_host.config_import import ImportedServer
from sidecar.mcp_host.host import Host
from sidecar.mcp_host.secrets import (
    CLIENT_SECRET,
    PLACES,
    Place,
    reference,
    references,
    secret_name,
)
from sidecar.messages import JsonObject
from sidecar.protocol.mcp import (
    Masked,
    McpServersImportResult,
    McpServerStatus,
    ServerEntry,
    ServerLeftOut,
    ServerPreview,
    ServersImportPayload,
)
from sidecar.settings.edit import inside, literal
from sidecar.threads import run_in_thread
from sidecar.visible import visible

SETTLED_S = 5.0  # to find a command on a slow disk


class Entries:
    def __init__(self, settings: LiveSettings, host: Host, keyring: Keyring) -> None:
        self._settings = settings
        self._host = host
        self._keyring = keyring

    async def add(self, entry: ServerEntry) -> McpServerStatus:
        """Raises Conflict for a name that is taken, and what `LiveSettings.change` does."""
        if entry.server in self._settings.now.config.mcp.servers:
            raise Conflict(f"There is an MCP server {entry.server} already; update it.")
        return await self._write(entry, {})

    async def import_text(self, asked: ServersImportPayload) -> McpServersImportResult:
        """Another program's servers: a preview, or the accepted ones stored.

        Raises ConfigInvalid for a text that is damaged, NotFound for a name that is not in it, and
        what `add` does: then those before it are stored.
        """
        parse = partial(config_import.parse, asked.text)
        found = await run_in_thread(parse, "import MCP servers")
        servers = self._settings.now.config.mcp.servers
        chosen = {each.name: each for each in found.servers}
        for name in asked.accept or ():
            if name not in chosen:
                raise NotFound(f"There is no server {name} in what is imported.")
        taken = frozenset(servers)
        stored = [await self.add(_as_entry(chosen[name])) for name in asked.accept or ()]
        return McpServersImportResult(
            items=tuple(_preview(each, is_taken=each.name in taken) for each in found.servers),
            left_out=tuple(
                ServerLeftOut(server=visible(each.name), reason=each.reason)
                for each in found.left_out
            ),
            stored=tuple(stored),
        )

    async def update(self, entry: ServerEntry) -> McpServerStatus:
        """In place of what is there; a masked value stays as it is. Raises as `add` does."""
        return await self._write(entry, self._entry(entry.server))

    async def delete(self, name: str) -> None:
        """With its secrets, and signed out. Raises NotFound and Conflict."""
        self._entry(name)
        config = self._settings.now.config.mcp.servers[name]
        secrets = references(name, config)
        await self._settings.change(lambda top: _drop(_servers(top, name), name))
        for secret in secrets.values():
            await self._forget(secret)
        await self._host.gone(name, SETTLED_S)
        await self._host.sign_out(name, config)

    async def enable(self, name: str, *, is_enabled: bool) -> McpServerStatus:
        """Raises NotFound and Conflict."""
        self._entry(name)

        def change(top: MutableMapping[str, Any]) -> None:
            _servers(top, name)[name]["enabled"] = is_enabled

        await self._settings.change(change)
        return await self._host.settled_as(name, SETTLED_S)

    async def approve(self, name: str, fingerprint: str) -> McpServerStatus:
        """Let it start as it is. Raises NotFound, and Conflict when that is not what was shown."""
        self._entry(name)
        status = self._host.status(name)
        if status.fingerprint != fingerprint:
            raise Conflict(
                f"What the MCP server {name} starts is not what you were shown; look at it again."
            )
        if self._settings.now.config.mcp.servers[name].approved is None:
            return status

        def change(top: MutableMapping[str, Any]) -> None:
            _servers(top, name)[name]["approved"] = fingerprint

        await self._settings.change(change)
        return await self._host.settled_as(name, SETTLED_S)

    async def _write(self, entry: ServerEntry, before: JsonObject) -> McpServerStatus:
        name = entry.server
        written, secrets = _written(entry, before)
        for secret, value in secrets.items():
            await self._keep(secret, value)

        def change(top: MutableMapping[str, Any]) -> None:
            servers = _servers(top, name) if before else inside(top, "mcp", "servers")
            servers[name] = written

        await self._settings.change(change)
        return await self._host.settled_as(name, SETTLED_S)

    async def _keep(self, secret: str, value: str) -> None:
        try:
            await self._keyring.write(secret, value)
        except KeyringUnavailable as error:
            raise KeyringUnavailable(
                f"{error} Values of `env` and `headers` and a `client_secret` are kept there and "
                "nowhere else; without a keyring, write them into the settings file yourself, as "
                "`${NAME}`."
            ) from error

    async def _forget(self, secret: str) -> None:
        try:
            await self._keyring.delete(secret)
        except KeyringUnavailable:
            return  # nothing refers to it any more

    def _entry(self, name: str) -> JsonObject:
        """As it is written. Raises NotFound."""
        found = self._settings.now.config.mcp.servers.get(name)
        if found is None:
            known = ", ".join(self._settings.now.config.mcp.servers) or "none"
            raise NotFound(f"There is no MCP server {name} in the settings; there are: {known}.")
        return found.model_dump(mode="json", exclude_unset=True)


def _as_entry(imported: ImportedServer) -> ServerEntry:
    given = imported.config.model_dump(mode="json", exclude_unset=True)
    fields = {name: given[name] for name in ServerEntry.model_fields if name in given}
    return ServerEntry.model_validate({"server": imported.name, **fields})


def _preview(imported: ImportedServer, *, is_taken: bool) -> ServerPreview:
    """As the text had it, which is the client's own; only what would hide itself is shown."""
    config = imported.config
    return ServerPreview(
        server=imported.name,
        command=None if config.command is None else visible(config.command),
        args=tuple(map(visible, config.args)),
        env_names=tuple(sorted(config.env)),
        url=None if config.url is None else visible(config.url),
        warnings=imported.warnings,
        is_taken=is_taken,
    )


def _written(entry: ServerEntry, before: JsonObject) -> tuple[JsonObject, Mapping[str, str]]:
    """The entry for the file, and the secrets for the keyring by their names."""
    given = entry.model_dump(
        mode="json",
        exclude_none=True,
        exclude={"server": True, "env": True, "headers": True, "oauth": {CLIENT_SECRET}},
    )
    written: dict[str, Any] = {**literal(given), "approved": ""}
    if "deny" in before:  # to trust and to allow was for what it was
        written["deny"] = literal(before["deny"])
    secrets: dict[str, str] = {}
    for place in PLACES:
        old = before.get(place)
        for name, value in _secret_values(entry, place).items():
            values = written.setdefault(place, {})
            if isinstance(value, str):
                secrets[secret_name(entry.server, place, name)] = value
                values[name] = reference(entry.server, place, name)
            elif isinstance(old, dict) and name in old:
                is_reference = old[name] == reference(entry.server, place, name)
                values[name] = old[name] if is_reference else literal(old[name])
            else:
                raise BadRequest(f"{place}.{name} is masked, and there is no value that it hides.")
    return written, secrets


def _secret_values(entry: ServerEntry, place: Place) -> Mapping[str, str | Masked]:
    match place:
        case "env":
            return entry.env or {}
        case "headers":
            return entry.headers or {}
        case "oauth":
            secret = None if entry.oauth is None else entry.oauth.client_secret
            return {} if secret is None else {CLIENT_SECRET: secret}


def _servers(top: MutableMapping[str, Any], name: str) -> MutableMapping[str, Any]:
    """The map that has this entry. Raises Conflict where the file has it in an old shape."""
    mcp = top.get("mcp")
    servers = mcp.get("servers") if isinstance(mcp, MutableMapping) else None
    if not isinstance(servers, MutableMapping) or name not in servers:
        raise Conflict(
            f"The MCP server {name} is not under `mcp.servers` of your settings file: it came from "
            "elsewhere or is written in an old shape. Change it there."
        )
    return servers


def _drop(servers: MutableMapping[str, Any], name: str) -> None:
    del servers[name]

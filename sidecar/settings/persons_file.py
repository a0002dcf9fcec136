"""The settings file a person wrote: its `${NAME}` references and the old shapes it may have.

Only this file is read so; nothing that comes over the socket or from another program is.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sidecar.errors import ConfigInvalid
from sidecar.settings import nodes
from sidecar.settings.layers import Steps, dotted, nearest
from sidecar.settings.nodes import Node


def load(
    path: Path, environ: Mapping[str, str], notes: list[str], text: str | None = None
) -> Mapping[str, Node]:
    """Read it; `notes` grows by a sentence for each thing to change. Raises ConfigInvalid.

    `text` is what it would have, where that is to be tried.
    """
    source = f"file {path}"
    layer = nodes.load(path, source) if text is None else nodes.parse(text, source)
    _move_openai(layer, notes)
    _name_listed_servers(layer, notes)
    _move_community_servers(layer, notes)
    _note_written_keys(layer, notes)
    return {name: _resolved(node, (name,), environ) for name, node in layer.items()}


_REFERENCE = re.compile(r"(?<!\$)\$\{([^}]*)\}")
_LITERAL = "$${"  # is a `${` that is meant
_IN_KEYRING = "keyring:"  # is replaced when its server is started
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _resolved(node: Node, path: Steps, environ: Mapping[str, str]) -> Node:
    """Replace each `${NAME}`, in maps and lists too."""
    match node.value:
        case dict() as entries:
            value = {
                name: _resolved(item, (*path, name), environ) for name, item in entries.items()
            }
            return replace(node, value=value)
        case list() as items:
            return replace(node, value=[_resolved(item, path, environ) for item in items])
        case str() as written if "${" in written:
            return _replaced(node, written, path, environ)
    return node


def _replaced(node: Node, written: str, path: Steps, environ: Mapping[str, str]) -> Node:
    """A value made of a reference means what its text means, quoted or not: ports are numbers."""
    is_key = path[0] == "providers" and path[-1] == "api_key"
    for name in _REFERENCE.findall(written):
        if name.startswith(_IN_KEYRING):
            continue
        if not _VARIABLE.fullmatch(name):
            raise ConfigInvalid(
                f"{node.origin}: {dotted(path)} has ${{{name}}}; only ${{NAME}} is replaced."
            )
        if is_key and not environ.get(name):
            return replace(node, value=None, reference=written)
        if name not in environ:
            raise ConfigInvalid(
                f"{node.origin}: {dotted(path)} needs the environment variable {name}, which is not"
                " set. Set it, or write the value itself."
            )
    text = _REFERENCE.sub(lambda found: environ.get(found[1], found[0]), written)
    text = text.replace(_LITERAL, "${")
    if _REFERENCE.search(written) is None:
        return replace(node, value=text, text=text)
    meant = nodes.resolve(text)
    return replace(node, value=text if meant is None else meant, text=text, reference=written)


_OLD_OPENAI: Mapping[str, Steps] = {
    "api_key": ("providers", "openai", "api_key"),
    **{
        name: ("chat", name)
        for name in ("model", "temperature", "top_p", "max_tokens", "system_prompt")
    },
}


def _move_openai(layer: dict[str, Node], notes: list[str]) -> None:
    section = layer.pop("openai", None)
    if section is None:
        return
    if not isinstance(section.value, dict):
        raise ConfigInvalid(f"{section.origin}: openai: a map of keys and values is expected.")
    for name, node in section.value.items():
        if name not in _OLD_OPENAI:
            raise ConfigInvalid(
                f"{node.origin}: openai.{name} is not a setting{nearest(name, _OLD_OPENAI)}"
            )
        if name == "model" and isinstance(node.value, str):
            node = replace(node, value=f"openai/{node.value.removeprefix('openai/')}")
        _put(layer, _OLD_OPENAI[name], node)
    moves = ", ".join(f"{name} to {dotted(_OLD_OPENAI[name])}" for name in section.value)
    notes.append(f"{section.origin}: the section `openai` is an old shape; move {moves}.")


def _name_listed_servers(layer: dict[str, Node], notes: list[str]) -> None:
    mcp = layer.get("mcp")
    if mcp is None or not isinstance(mcp.value, dict):
        return
    servers = mcp.value.get("servers")
    if servers is None or not isinstance(servers.value, list):
        return
    named: dict[str, Node] = {}
    for item in servers.value:
        entry = dict(item.value) if isinstance(item.value, dict) else {}
        name = entry.pop("name", None)
        if name is None or not isinstance(name.value, str) or name.value in named:
            raise ConfigInvalid(f"{item.origin}: a server in a list needs a `name` of its own.")
        _name_transport(entry)
        if "timeout" in entry:
            entry["call_timeout_s"] = entry.pop("timeout")
        named[name.value] = replace(item, value=entry)
    mcp.value["servers"] = replace(servers, value=named)
    notes.append(
        f"{servers.origin}: mcp.servers as a list is an old shape; write a map from name to server,"
        " without `name`, and `call_timeout_s` for `timeout`."
    )


def _move_community_servers(layer: dict[str, Node], notes: list[str]) -> None:
    servers = layer.pop("mcpServers", None)
    if servers is None:
        return
    if not isinstance(servers.value, dict):
        raise ConfigInvalid(f"{servers.origin}: mcpServers: a map from name to server is expected.")
    for name, server in servers.value.items():
        if isinstance(server.value, dict):
            entry = dict(server.value)
            _name_transport(entry)
            disabled = entry.get("disabled")
            if disabled is not None and isinstance(disabled.value, bool):
                entry["enabled"] = replace(entry.pop("disabled"), value=not disabled.value)
            server = replace(server, value=entry)
        _put(layer, ("mcp", "servers", name), server)
    notes.append(
        f"{servers.origin}: `mcpServers` is another program's shape; move it to mcp.servers."
    )


_TRANSPORTS: Mapping[str, str | None] = {  # by what other programs call them, in small letters
    "stdio": None,
    "http": "http",
    "streamablehttp": "http",
    "sse": "sse",
}


def _name_transport(entry: dict[str, Node]) -> None:
    """`type` or `transport` → our `transport`; what we do not know is left for validation."""
    node = entry.pop("type", None)
    node = entry.pop("transport", node)
    if node is None or not isinstance(node.value, str):
        return
    plain = re.sub("[_-]", "", node.value.lower())
    transport = _TRANSPORTS.get(plain, node.value)
    if transport is not None:
        entry["transport"] = replace(node, value=transport)


def _put(layer: dict[str, Node], path: Steps, node: Node) -> None:
    """Add a moved value, unless the same file has it in its new place."""
    for step in path[:-1]:
        inner = layer.get(step)
        if inner is None or inner.value is None:
            inner = layer[step] = Node({}, node.origin)
        if not isinstance(inner.value, dict):
            return  # validation will say what is wrong with it
        layer = inner.value
    layer.setdefault(path[-1], node)


def _note_written_keys(layer: Mapping[str, Node], notes: list[str]) -> None:
    providers = layer.get("providers")
    entries = providers.value if providers and isinstance(providers.value, dict) else {}
    for name, entry in entries.items():
        key = entry.value.get("api_key") if isinstance(entry.value, dict) else None
        if key and isinstance(key.value, str) and key.value and "${" not in key.value:
            notes.append(
                f"{key.origin}: providers.{name}.api_key is written out. Remove it and run"
                f" `sidecar keys set {name}`, or refer to a variable as in ${{NAME}}."
            )

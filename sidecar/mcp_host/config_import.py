"""The text of another program's settings → entries of ours, to be looked at before they count.

Understood are Claude Desktop, VS Code, Cursor, LM Studio, goose and LibreChat, whole files or the
fragment of one that a page shows. One entry that cannot be read costs no other. No reference is
looked up and nothing is taken over that would spare a question. Pure: reads and writes no file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NoReturn, TypeAlias

from pydantic import ValidationError

from sidecar.config import McpServerConfig
from sidecar.errors import ConfigInvalid
from sidecar.mcp_host.placeholders import filled, of_this_machine, to_give
from sidecar.mcp_host.warnings import warnings
from sidecar.settings import jsonc, nodes
from sidecar.settings.nodes import Node
from sidecar.visible import visible

_Entries: TypeAlias = Mapping[str, Node]

NAME_CHARS = 64
_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_CHARS - 1}}}")
_FRAGMENT = re.compile(r'".*}\s*,?', re.DOTALL)

_STANDS_FOR_A_VALUE = re.compile(r"\$\{[^{}]*\}|\{[\w.-]+\}|<[\w.-]+>")

_COMMAND = ("command", "cmd")
_URL = ("url", "uri", "serverUrl", "httpUrl")
_ENV = ("env", "envs")
_TYPE = ("type", "transport")
_TRANSPORTS = {"stdio": "command", "http": "url", "streamablehttp": "url", "sse": "url"}
_INSIDE_GOOSE = ("builtin", "platform", "frontend", "inline_python")
# fmt: off
_TAKEN = frozenset((
    *_COMMAND, *_URL, *_ENV, *_TYPE, "args", "cwd", "headers", "timeout", "initTimeout", "enabled",
    "disabled", "env_keys", "envFile", "available_tools", "oauth", "auth",
))
_WITHOUT_LOSS = frozenset((
    "name", "title", "display_name", "displayName", "description", "icon", "iconPath", "version",
    "bundled", "gallery", "startup", "chatMenu", "requiresOAuth", "customUserVars",
))
# fmt: on
_SURELY_MS = 1000  # programs differ in the unit of `timeout`, and nobody means less than a second


@dataclass(frozen=True, slots=True)
class ImportedServer:
    """An entry under a name that the settings take; `warnings` are sentences with what to do."""

    name: str
    config: McpServerConfig
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`name` is as written; `reason` is a sentence with line and what to do."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    servers: tuple[ImportedServer, ...]
    left_out: tuple[LeftOut, ...]


def parse(text: str, name: str = "the text") -> Imported:
    """`name` is what errors call the text. Raises ConfigInvalid, if it is damaged as a whole."""
    if len(text) > nodes.MAX_BYTES:
        raise ConfigInvalid(f"{name} is too large to be settings; give the part with the servers.")
    shape = _shape(_root(text, f"file {name}"), name)
    taken = {entry for entry in shape.entries if _NAME.fullmatch(entry)}
    servers: list[ImportedServer] = []
    left_out: list[LeftOut] = []
    for written, node in shape.entries.items():
        try:
            config, told = _entry(node, shape)
        except ConfigInvalid as error:
            left_out.append(LeftOut(written, str(error)))
            continue
        free = written if _NAME.fullmatch(written) else _free_name(written, taken)
        taken.add(free)
        renamed = () if free == written else (_renamed(written, free),)
        servers.append(ImportedServer(free, config, (*renamed, *told)))
    return Imported(tuple(servers), tuple(left_out))


# ---- the shapes of files --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where the entries are, and what only their program knows of them."""

    entries: _Entries
    questions: Mapping[str, str] = field(default_factory=dict)
    is_goose: bool = False


def _root(text: str, source: str) -> dict[str, Node]:
    bare = text.strip("\ufeff \t\r\n")
    if bare.startswith('"') and _FRAGMENT.fullmatch(bare):
        return jsonc.parse(f"{{{text}}}", source)
    if bare.startswith(("{", "[", "//", "/*")):
        return jsonc.parse(text, source)
    return nodes.parse(text, source)


def _shape(root: dict[str, Node], name: str) -> _Shape:
    if (found := root.get("mcpServers")) is not None:
        return _Shape(_map(found, "mcpServers", "server"))
    if (found := root.get("servers")) is not None:
        return _Shape(_map(found, "servers", "server"), _questions(root.get("inputs")))
    if (found := root.get("extensions")) is not None:
        return _Shape(_map(found, "extensions", "extension"), is_goose=True)
    if (found := root.get("mcp")) is not None and isinstance(found.value, dict):
        return _shape(found.value, name)
    if any(key in root and not isinstance(root[key].value, dict) for key in (*_COMMAND, *_URL)):
        return _Shape({_own_name(root, name): Node(root, next(iter(root.values())).origin)})
    entries = {key: node for key, node in root.items() if _is_server(node)}
    if entries:
        return _Shape(entries)
    raise ConfigInvalid(
        f"{name} names no MCP servers: they are looked for under mcpServers, servers and"
        " extensions, and as {NAME: {command: ...}}."
    )


def _map(node: Node, name: str, what: str) -> _Entries:
    if node.value is None:  # a section whose every line is commented out
        return {}
    if not isinstance(node.value, dict):
        raise ConfigInvalid(f"{node.origin}: {name}: a map from name to {what} is expected.")
    return node.value


def _is_server(node: Node) -> bool:
    entry = node.value
    return isinstance(entry, dict) and any(key in entry for key in (*_COMMAND, *_URL))


def _own_name(root: _Entries, name: str) -> str:
    node = root.get("name")
    if node is None or not isinstance(node.value, str):
        raise ConfigInvalid(
            f"{name} is one server without a name: write {{NAME: {{...}}}} around it."
        )
    return node.value


def _questions(inputs: Node | None) -> dict[str, str]:
    """VS Code's: what it asks for, by the reference that stands for the answer."""
    questions = {}
    for node in inputs.value if inputs and isinstance(inputs.value, list) else ():
        item = node.value if isinstance(node.value, dict) else {}
        texts = {key: value.value for key, value in item.items() if isinstance(value.value, str)}
        questions[f"input:{texts.get('id')}"] = texts.get("description", "")
    return questions


def _free_name(written: str, taken: set[str]) -> str:
    base = _STRANGE.sub("-", written).strip("._-")[:NAME_CHARS].rstrip("._-") or "server"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base[: NAME_CHARS - 8]}-{number}"
    return name


def _renamed(written: str, free: str) -> str:
    shown = visible(written if len(written) <= NAME_CHARS else f"{written[:NAME_CHARS]}…")
    return f"It is called {free} here: {shown!r} has what a name cannot have, or too much of it."


# ---- one entry ------------------------------------------------------------------------------


def _entry(node: Node, shape: _Shape) -> tuple[McpServerConfig, tuple[str, ...]]:
    """Raises ConfigInvalid."""
    if not isinstance(node.value, dict):
        raise ConfigInvalid(f"{node.origin}: a server is a map with a command or a url.")
    reader = _EntryReader(node, node.value, shape)
    settings = reader.settings()
    try:
        config = McpServerConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        said = ": ".join(filter(None, (name, first["msg"].removeprefix("Value error, "))))
        raise ConfigInvalid(f"{reader.origin(name)}: {said}. Correct it there first.") from None
    return config, (*reader.warnings, *reader.losses(), *warnings(_without_references(config)))


def _without_references(config: McpServerConfig) -> McpServerConfig:
    """What stands for a key among the arguments is none."""
    args = tuple(_STANDS_FOR_A_VALUE.sub("", arg) for arg in config.args)
    return config.model_copy(update={"args": args})


class _EntryReader:
    """Another program's entry, field by field; `warnings` grows with what is noticed."""

    def __init__(self, node: Node, entry: _Entries, shape: _Shape) -> None:
        self._node = node
        self._entry = entry
        self._is_goose = shape.is_goose
        self.warnings: list[str] = []
        self._env = self._texts(_ENV)
        keys = self._list("env_keys")
        self._keys = [key for key in keys if key not in self._env]
        self._questions = {
            **shape.questions,
            **self._custom_questions(),
            **dict.fromkeys(keys, "goose keeps it in its own keyring"),
        }

    def settings(self) -> dict[str, object]:
        """What McpServerConfig is made of."""
        common = {"enabled": self._is_enabled(), **self._timeouts()}
        if self._transport() == "command":
            return {**self._program(), **common}
        return {**self._address(), **common}

    def origin(self, name: str) -> nodes.Origin:
        return self._entry.get(name, self._node).origin

    def losses(self) -> Iterator[str]:
        """What the entry says and ours cannot."""
        if "envFile" in self._entry:
            yield "Its envFile is not read: write the variables that it needs into env."
        if self._has_value("available_tools"):
            yield "Not only its available_tools are offered here: list the others in deny."
        if any(map(self._has_value, ("oauth", "auth"))):
            yield "Its registration with an authorization server is not taken over: sign in again."
        lost = [name for name in self._entry if name not in _TAKEN | _WITHOUT_LOSS]
        if lost:
            names = ", ".join(visible(name[:NAME_CHARS]) for name in lost)
            yield f"Not taken over, since it means nothing here: {names}."

    # ---- the parts ----

    def _transport(self) -> str:
        """`command` or `url`: the field that says how to reach it."""
        kind = self._text(_TYPE)
        if kind is None:
            has_command, has_url = self._field(_COMMAND) is not None, self._field(_URL) is not None
            if has_command and has_url:
                self._fail(self._node, "it has both a command and a url. Remove one of them")
            if not has_command and not has_url:
                self._fail(self._node, "it has neither a command nor a url. Write one of them")
            return "command" if has_command else "url"
        if self._is_goose and kind in _INSIDE_GOOSE:
            self._fail(self._node, "it is a part of goose itself. Leave it there")
        transport = _TRANSPORTS.get(re.sub(r"[-_]", "", kind.lower()))
        if transport is None:
            self._fail(
                self._field(_TYPE) or self._node,
                f"the transport {visible(kind[:NAME_CHARS])} is unknown. There are stdio and http",
            )
        return transport

    def _program(self) -> dict[str, object]:
        if self._has_value("headers"):
            self.warnings.append("Its headers are left out: a program that is started has none.")
        ours = of_this_machine()
        theirs = {name: f"${{{name}}}" for name in (*self._env, *self._keys)}  # left to the program
        env = {**self._env, **{key: f"${{{key}}}" for key in self._keys}}
        cwd = self._text(("cwd",))
        return {
            "command": self._filled("command", self._required(_COMMAND), ours),
            "args": [self._filled("args", text, {**ours, **theirs}) for text in self._list("args")],
            "env": {name: self._filled(f"env.{name}", text, ours) for name, text in env.items()},
            "cwd": cwd and self._filled("cwd", cwd, ours),
        }

    def _address(self) -> dict[str, object]:
        given = {name: text for name, text in self._env.items() if "${" not in text}
        headers = self._texts(("headers",)).items()
        return {
            "url": self._filled("url", self._required(_URL), given),
            "transport": "sse" if self._text(_TYPE) in ("sse", "SSE") else "auto",
            "headers": {
                name: self._filled(f"headers.{name}", text, given) for name, text in headers
            },
        }

    def _is_enabled(self) -> bool:
        disabled, enabled = self._entry.get("disabled"), self._entry.get("enabled")
        return not (
            (disabled is not None and disabled.value is True)
            or (enabled is not None and enabled.value is False)
        )

    def _timeouts(self) -> dict[str, object]:
        found = {"call_timeout_s": "timeout", "connect_timeout_s": "initTimeout"}
        seconds = {ours: self._seconds(theirs) for ours, theirs in found.items()}
        return {ours: value for ours, value in seconds.items() if value is not None}

    def _seconds(self, name: str) -> float | None:
        node = self._entry.get(name)
        if node is None or node.value is None:
            return None
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < inf:
            self.warnings.append(f"Its {name} is no number of seconds and is left out.")
            return None
        return value if self._is_goose or value < _SURELY_MS else value / 1000

    def _custom_questions(self) -> dict[str, str]:
        """LibreChat's `customUserVars`: what it asks each of its users for."""
        node = self._entry.get("customUserVars")
        questions = {}
        for name, item in (node.value if node and isinstance(node.value, dict) else {}).items():
            title = item.value.get("title") if isinstance(item.value, dict) else None
            questions[name] = str(title.value) if title else ""
        return questions

    def _filled(self, where: str, text: str, known: Mapping[str, str]) -> str:
        is_sent = where == "url" or where.startswith("headers.")
        result = filled(text, known, has_simple=self._is_goose and is_sent)
        self.warnings += to_give(where, result, self._questions)
        return result.text

    # ---- fields as values ----

    def _field(self, names: tuple[str, ...]) -> Node | None:
        found = (self._entry[name] for name in names if name in self._entry)
        return next((node for node in found if node.value is not None), None)

    def _has_value(self, name: str) -> bool:
        node = self._entry.get(name)
        return node is not None and bool(node.value)

    def _required(self, names: tuple[str, ...]) -> str:
        text = self._text(names)
        if not text:
            self._fail(self._field(_TYPE) or self._node, f"{names[0]} is missing. Write it")
        return text

    def _text(self, names: tuple[str, ...]) -> str | None:
        node = self._field(names)
        if node is None:
            return None
        if not isinstance(node.value, str):
            self._fail(node, f"{names[0]} must be one text")
        return node.value

    def _texts(self, names: tuple[str, ...]) -> dict[str, str]:
        node = self._field(names)
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self._fail(node, f"{names[0]} must be a map from name to text")
        entries = node.value.items()
        return {name: self._scalar(item) for name, item in entries if item.value is not None}

    def _list(self, name: str) -> list[str]:
        node = self._entry.get(name)
        if node is None or node.value is None:
            return []
        if not isinstance(node.value, list):
            self._fail(node, f"{name} must be a list of texts, such as [-y, package]")
        return [self._scalar(item) for item in node.value]

    def _scalar(self, node: Node) -> str:
        if isinstance(node.value, dict | list) or node.value is None:
            self._fail(node, "a text is expected here. Put it into quotes")
        return node.value if isinstance(node.value, str) else node.written or str(node.value)

    def _fail(self, node: Node, complaint: str) -> NoReturn:
        raise ConfigInvalid(f"{node.origin}: {complaint}.")

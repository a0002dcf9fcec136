"""The settings: frozen models, one per section of the file, and how they come about.

Shipped file < the person's file < environment < command line; each value remembers where it was
written, so that an error names file and line. Passed on by section, never whole. Knows no keyring
and makes no folder.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from sidecar.errors import ConfigInvalid
from sidecar.messages import JsonObject
from sidecar.paths import Folders, shipped_settings
from sidecar.settings import masking, nodes, persons_file
from sidecar.settings.layers import Layers, Steps, nearest
from sidecar.settings.nodes import Node, Origin

PREFIX = "SIDECAR_"
DEMO_MODEL = "demo/scripted"

_STARTER = """\
# Your settings. What is commented out has the value you see; to change one, remove the "#" at the
# margin before it and before its section. "sidecar config validate" checks this file.
#
# An MCP server, to begin with:
#
#mcp:
#  servers:
#    files: {command: npx, args: [-y, "@modelcontextprotocol/server-filesystem", "~/Documents"]}
"""

DEFAULT_BASE_URLS: Mapping[str, str] = {  # by kind: where a vendor itself serves its API
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*?#@]+")


def _exact_origin(origin: str) -> str:
    if origin in ("null", "file://") or (_ORIGIN.fullmatch(origin) and origin == origin.lower()):
        return origin
    raise ValueError(
        "an origin is written exactly and in lower case, as in http://localhost:5173,"
        " without * and without a path"
    )


def _exact_host(host: str) -> str:
    if "*" in host or "/" in host or not host:
        raise ValueError("a host is written exactly, as in my-machine.local, without * or http://")
    return host


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".").encode("idna")
        is_complete = parts.scheme in ("http", "https") and host and parts.port != 0
    except ValueError:  # a port that is no number, an open bracket, a label of 64 letters
        return False
    return bool(is_complete) and url.isprintable() and " " not in url


def _http_url(url: str) -> str:
    if not _is_http_url(url):
        raise ValueError("an address is written in full, as in https://example.com/v1")
    return url


def proxy_url(url: str) -> str:
    """The address of a proxy that can be used. Raises ValueError, which does not repeat it."""
    if not _is_http_url(url):
        raise ValueError("only http and https proxies serve, as in http://proxy.example.com:3128")
    return url


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the header {name} must be one line of ASCII characters")
    return headers


def _metadata_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.path in ("", "/"):
        raise ValueError("a client metadata document has an https address with a path")
    return url


def _redirect_uri(url: str) -> str:
    parts = urlsplit(url)
    is_plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    if not (parts.scheme == "http" and is_loopback(parts.hostname) and parts.port and is_plain):
        raise ValueError(
            "the browser comes back to this machine: an http address of it with a port, as in "
            "http://127.0.0.1:33418/callback"
        )
    return url


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _home_expanded(path: str) -> str:
    return os.path.expanduser(path) if path.startswith(("~/", f"~{os.sep}")) else path


ProviderKind = Literal["openai", "openai_compatible", "anthropic", "gemini", "demo"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Url = Annotated[str, AfterValidator(_http_url)]
ProxyUrl = Annotated[str, AfterValidator(proxy_url)]
Headers = Annotated[dict[str, str], AfterValidator(_sendable)]
Scope = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]  # RFC 6749
LocalPath = Annotated[str, AfterValidator(_home_expanded)]
"""A path, a command or an argument; a leading `~/` is expanded."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class TlsConfig(Section):
    cert: LocalPath | None = None
    key: LocalPath | None = None

    @model_validator(mode="after")
    def _complete(self) -> "TlsConfig":
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; set both or neither")
        return self


class ServerConfig(Section):
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    allowed_origins: tuple[Annotated[str, AfterValidator(_exact_origin)], ...]
    allowed_hosts: tuple[Annotated[str, AfterValidator(_exact_host)], ...]
    tls: TlsConfig


class ChatConfig(Section):
    model: str
    system_prompt: str | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    top_p: Annotated[float, Field(ge=0, le=1)] | None
    max_tokens: Annotated[int, Field(gt=0)] | None
    max_steps: Annotated[int, Field(gt=0, le=1000)]
    titles: Literal["model", "words"]
    compact_at: Annotated[float, Field(ge=0.1, le=0.95)] | None
    max_retries: Annotated[int, Field(ge=0, le=10)]


class TimeoutsConfig(Section):
    connect_s: Seconds
    first_byte_s: Seconds
    silence_s: Seconds
    total_s: Seconds | None


class ProviderConfig(Section):
    """One entry of `providers`."""

    kind: ProviderKind
    base_url: Url | None = None
    api_key: str | None = Field(default=None, repr=False)
    headers: Headers = Field(default_factory=dict, repr=False)
    api: Literal["responses", "chat"] | None = None
    context: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> "ProviderConfig":
        if self.kind == "openai_compatible" and self.base_url is None:
            raise ValueError("kind openai_compatible needs a base_url")
        if self.api is not None and self.kind != "openai":
            raise ValueError("api is for kind openai only; every other kind has one API")
        return self


class OAuthConfig(Section):
    """As whom a server that asks for authorization knows us; by default it is asked to register us.

    That was done beforehand for a `client_id`, and is not needed for a `client_metadata_url`.
    """

    client_id: str | None = None
    client_secret: str | None = Field(default=None, repr=False)
    client_metadata_url: Annotated[Url, AfterValidator(_metadata_url)] | None = None
    redirect_uri: Annotated[Url, AfterValidator(_redirect_uri)] | None = None
    scopes: tuple[Scope, ...] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "OAuthConfig":
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("a client_secret belongs to a client_id")
        if self.client_id is not None and self.client_metadata_url is not None:
            raise ValueError("either client_id or client_metadata_url says who we are, not both")
        return self


class McpServerConfig(Section):
    """One entry of `mcp.servers`: `command` for stdio, `url` for HTTP; exactly one of them."""

    command: LocalPath | None = None
    args: tuple[LocalPath, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    cwd: LocalPath | None = None
    url: Url | None = None
    transport: Literal["auto", "http", "sse"] = "auto"
    headers: Headers = Field(default_factory=dict, repr=False)
    oauth: OAuthConfig = OAuthConfig.model_construct()
    trusted: bool = False
    enabled: bool = True
    connect_timeout_s: Seconds | None = None
    call_timeout_s: Seconds | None = None
    start: Literal["eager", "lazy"] = "eager"
    idle_stop_s: Seconds | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    approved: str | None = None
    """Of an entry that came from a client: the fingerprint that a person agreed to, or empty."""

    @model_validator(mode="after")
    def _complete(self) -> "McpServerConfig":
        if (self.command is None) == (self.url is None):
            raise ValueError("a server has either a command or a url")
        if self.command is not None and "oauth" in self.model_fields_set:
            raise ValueError("oauth is for servers with a url; a command gets its secrets in env")
        if self.url is None and self.transport != "auto":
            raise ValueError("transport is for a url; a command is spoken to over its pipes")
        if self.idle_stop_s is not None and self.start == "eager":
            raise ValueError("idle_stop_s is for `start: lazy`, which starts it again when needed")
        return self


class McpConfig(Section):
    approval_timeout_s: Seconds
    servers: dict[Name, McpServerConfig]


class StorageConfig(Section):
    enabled: bool
    path: LocalPath | None


class LoggingConfig(Section):
    level: LogLevel
    format: Literal["console", "json"]
    file: bool


class NetworkConfig(Section):
    proxy: ProxyUrl | None = Field(repr=False)
    ca_bundle: LocalPath | None
    trust_os_store: bool


class Config(Section):
    server: ServerConfig
    chat: ChatConfig
    timeouts: TimeoutsConfig
    providers: dict[Name, ProviderConfig]
    mcp: McpConfig
    storage: StorageConfig
    logging: LoggingConfig
    network: NetworkConfig


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; None where it said nothing. Origins add to the settings'."""

    host: str | None = None
    port: int | None = None
    log_level: str | None = None
    log_format: str | None = None
    allow_origins: tuple[str, ...] = ()
    demo: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and where they came from.

    `sources` has the dotted name of each value that was written anywhere: `default`, `file PATH`,
    `environment NAME` or `flag`. `notes` are sentences for the person: old shapes, keys in a file.
    `file` is the person's file, there or not; `references` has the values that were written with
    a `${NAME}`, as they were written.
    """

    config: Config
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    revision: str
    file: Path
    references: Mapping[Steps, str]
    reload: "Callable[[str | None], Loaded]" = field(repr=False, compare=False)
    """Reads all layers again; with a text, that in place of the person's file."""


def load(
    folders: Folders,
    *,
    environ: Mapping[str, str],
    flags: Flags = Flags(),
    config_file: Path | None = None,
    managed: bool = False,
    text: str | None = None,
) -> Loaded:
    """Merge the four layers. Raises ConfigInvalid: one sentence with the place and what to do.

    A `config_file` must exist; the one in the folder need not. With `managed` only the flag sets
    the port, and without it any free one is taken. `text` is read in place of the person's file.
    """
    layers, notes = Layers(Config), list[str]()
    layers.add(nodes.load(shipped_settings(), "default"))
    file = config_file or folders.settings_file
    if text is not None or config_file is not None or _is_there(file):
        layers.add(persons_file.load(file, environ, notes, text))
    for layer in _environment(environ, layers.tree):
        layers.add(layer)
    layers.add(_flags(flags, layers, managed))
    config = layers.validated()
    _check_host(config.server, layers)
    _check_model(config, layers)
    return Loaded(
        config=config,
        sources=layers.sources(),
        notes=tuple(notes),
        revision=hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16],
        file=file,
        references=layers.references,
        reload=lambda text: load(
            folders,
            environ=environ,
            flags=flags,
            config_file=config_file,
            managed=managed,
            text=text,
        ),
    )


def masked(loaded: Loaded) -> JsonObject:
    """The settings as written, for `config.get`: every key, header and environment value hidden."""
    settings = loaded.config.model_dump(mode="json", exclude_unset=True)
    return masking.masked(settings, loaded.references)


def show(loaded: Loaded) -> str:
    """The settings as YAML for `config show`, masked, each with its source in a comment."""
    return "\n".join(masking.shown(masked(loaded), loaded.sources)) + "\n"


def starter() -> str:
    """A first config.yaml: every setting there is, commented out with a `#` at the margin."""
    shipped = shipped_settings().read_text("utf-8").splitlines()
    settings = shipped[shipped.index("server:") :]
    return "\n".join((_STARTER, *(f"#{line}" if line else "" for line in settings), ""))


def _is_there(file: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(file).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # it may be, where we may not look: reading it says why it cannot be used
        return True


def _environment(environ: Mapping[str, str], tree: Mapping[str, Any]) -> Iterator[dict[str, Node]]:
    """A layer for each variable, the shorter names first, so that they do not undo the longer."""
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and "__" in variable[len(PREFIX) :]:
            path = _cased(variable[len(PREFIX) :].split("__"), tree)
            node = _from_environment(environ[variable], Origin(f"environment {variable}"))
            for step in reversed(path[1:]):
                node = Node({step: node}, node.origin)
            yield {path[0]: node}


def _cased(steps: list[str], tree: Mapping[str, Any]) -> Steps:
    """The path as the settings spell it: lower case, unless an entry is there in another."""
    path: list[str] = []
    inner: Any = tree
    for step in steps:
        names = {name.lower(): name for name in inner} if isinstance(inner, dict) else {}
        is_variable = path[:2] == ["mcp", "servers"] and path[3:] == ["env"]
        name = step if is_variable else names.get(step.lower(), step.lower())
        inner = inner.get(name) if isinstance(inner, dict) else None
        path.append(name)
    return tuple(path)


def _from_environment(text: str, origin: Origin) -> Node:
    if text[:1] in ("[", "{", '"'):
        try:
            return replace(_from_json(json.loads(text), origin), text=text)
        except (ValueError, RecursionError):
            return Node(text, origin)  # a text that only begins like JSON
    return Node(nodes.resolve(text), origin, text=text)


def _from_json(value: Any, origin: Origin) -> Node:
    match value:
        case dict():
            return Node({name: _from_json(item, origin) for name, item in value.items()}, origin)
        case list():
            return Node([_from_json(item, origin) for item in value], origin)
    return Node(value, origin)


def _flags(flags: Flags, layers: Layers[Config], managed: bool) -> dict[str, Node]:
    origin = Origin("flag")
    server, logging = dict[str, Any](), dict[str, Any]()
    if flags.host is not None:
        server["host"] = flags.host
    if flags.port is not None or managed:
        server["port"] = flags.port or 0
    if flags.allow_origins:
        configured = layers.tree["server"]["allowed_origins"]
        known = configured if isinstance(configured, list) else []
        server["allowed_origins"] = [*known, *flags.allow_origins]
    if flags.log_level is not None:
        logging["level"] = flags.log_level.upper()
    if flags.log_format is not None:
        logging["format"] = flags.log_format
    said: dict[str, Any] = {"server": server, "logging": logging}
    if flags.demo:
        said["providers"] = {"demo": {"kind": "demo"}}
        if layers.origin(("chat", "model")).source == "default":
            said["chat"] = {"model": DEMO_MODEL}
    return {name: _from_json(section, origin) for name, section in said.items()}


def _check_host(server: ServerConfig, layers: Layers[Config]) -> None:
    if server.tls.cert is None and not is_loopback(server.host):
        raise ConfigInvalid(
            f"{layers.origin(('server', 'host'))}: server.host {server.host} is open to other"
            " machines, which needs server.tls. Write `host: 127.0.0.1` to serve this one only."
        )


def _check_model(config: Config, layers: Layers[Config]) -> None:
    origin = layers.origin(("chat", "model"))
    provider, slash, model = config.chat.model.partition("/")
    if not slash or not model:
        raise ConfigInvalid(
            f"{origin}: chat.model is written provider/model, as in openai/gpt-4o-mini."
        )
    if provider not in config.providers and origin.source != "default":
        raise ConfigInvalid(
            f"{origin}: chat.model names the provider {provider}, which there is not"
            f"{nearest(provider, config.providers)}"
        )

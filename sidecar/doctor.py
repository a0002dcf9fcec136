"""What works and what does not: one finding for each thing, with what to do.

`examine` looks at everything at once, and whatever does not answer is told when its time is over.
`run` is the command: it first finds out what would keep a sidecar from starting, then asks one.
No finding has a secret in it. Vendors and MCP servers are known by what they say of themselves.
"""

import asyncio
import errno
import os
import platform
import shutil
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from sidecar import __version__
from sidecar.config import Loaded, McpServerConfig, ProviderConfig, is_loopback
from sidecar.credentials import Credentials, Keyring, KeyStatus
from sidecar.errors import (
    KeyringUnavailable,
    LocalServerDown,
    ProviderTimeout,
    SidecarError,
    StorageError,
)
from sidecar.log import FILE_NAME
from sidecar.paths import Folders
from sidecar.protocol.mcp import McpServerStatus, ServerState
from sidecar.protocol.program import DiagnosticsResult, Finding, FindingArea, FindingStatus
from sidecar.protocol.providers import ProvidersTestResult
from sidecar.redaction import redact
from sidecar.threads import run_in_thread
from sidecar.visible import visible

EXAMINATION_S = 8.0  # of the command's 15: a start takes 1, and MCP servers have 6 to end
VISIT_S = 1.0  # a sidecar on this machine answers at once, also a busy one
BROKEN = 1  # the exit code

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PROBE = "doctor"  # a name under which nothing is stored; reading it needs an unlocked keyring
_NODE = "Install Node.js, from https://nodejs.org."
_UV = "Install uv, from https://docs.astral.sh/uv."
_INSTALL = {"npx": _NODE, "npm": _NODE, "node": _NODE, "uvx": _UV, "uv": _UV}
_COMPANIONS = {"npx": "node", "npm": "node"}  # scripts whose first line asks for it
_MCP_STATUS: dict[ServerState, FindingStatus] = {
    "ready": "ok",
    "disabled": "ok",
    "idle": "ok",
    "degraded": "warning",
    "starting": "warning",
    "needs_approval": "warning",
}


@dataclass(frozen=True, slots=True)
class Patient:
    """A running sidecar, as far as it is looked at."""

    settings: Loaded
    folders: Folders
    keyring: Keyring
    credentials: Credentials
    test_provider: Callable[[str], Awaitable[ProvidersTestResult]]
    count_conversations: Callable[[], Awaitable[int]]
    servers_settled: Callable[[], Awaitable[None]]
    servers: Callable[[], Sequence[McpServerStatus]]


async def examine(patient: Patient, limit_s: float = EXAMINATION_S) -> DiagnosticsResult:
    """Everything about a running sidecar; what takes longer than `limit_s` is told as such."""
    give_up_at = asyncio.get_running_loop().time() + limit_s
    config = patient.settings.config
    place = partial(_place, patient.settings, patient.folders)
    commands = partial(_commands, config.mcp.servers)
    async with asyncio.TaskGroup() as group:
        checks = [
            group.create_task(check)
            for check in (
                _in_time("folder", run_in_thread(place, "look at the folders"), give_up_at),
                _in_time("conversations", _conversations(patient), give_up_at),
                _keys_and_providers(patient, give_up_at),
                _in_time("command", run_in_thread(commands, "look for commands"), give_up_at),
                _mcp_servers(patient, give_up_at),
            )
        ]
    return _result(chain.from_iterable(check.result() for check in checks))


async def run(
    folders: Folders,
    keyring: Keyring,
    load: Callable[[], Loaded],
    ask: Callable[[], Awaitable[DiagnosticsResult]],
    *,
    as_json: bool,
) -> int:
    """Print what is found and return the exit code.

    `load` reads the settings as a sidecar of this place would, `ask` has one examine itself.
    """
    report = await _diagnosed(folders, keyring, load, ask)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        print_report(report)
    return 0 if report.ok else BROKEN


def print_report(report: DiagnosticsResult) -> None:
    for item in report.items:
        about = item.area if item.name is None else f"{item.area} {item.name}"
        print(f"{item.status:<8} {about}: {item.text}")
    broken = sum(item.status == "broken" for item in report.items)
    print(f"\n{broken or 'nothing'} broken", file=sys.stderr)


async def _diagnosed(
    folders: Folders,
    keyring: Keyring,
    load: Callable[[], Loaded],
    ask: Callable[[], Awaitable[DiagnosticsResult]],
) -> DiagnosticsResult:
    try:
        settings = load()
    except SidecarError as error:
        invalid = _failed("broken", "settings", error)
        return _result([_program(), invalid, *_folders(folders), await _keyring(keyring)])
    place = [*_place(settings, folders), await _port(settings)]
    if any(item.status == "broken" and item.area != "port" for item in place):
        return _result([*place, await _keyring(keyring)])
    try:
        report = await ask()
    except SidecarError as error:  # such as a certificate that cannot be read
        return _result([*place, _failed("broken", "settings", error)])
    return _result([*report.items, place[-1]])


async def _in_time(
    area: FindingArea, look: Coroutine[None, None, list[Finding]], give_up_at: float
) -> list[Finding]:
    try:
        async with asyncio.timeout_at(give_up_at):
            return await look
    except TimeoutError:
        text = "Looking at the disk took too long. Is a network drive down?"
        return [_found("broken", area, text)]


# ---- the place ------------------------------------------------------------------------------


def _place(settings: Loaded, folders: Folders) -> list[Finding]:
    """Touches the disk."""
    return [
        _program(),
        *_settings(settings),
        *_folders(folders),
        _log(settings.config.logging.file, folders.log / FILE_NAME),
    ]


def _program() -> Finding:
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return _found("ok", "program", f"sidecar {__version__}, {_packaging()}, {python}.")


def _packaging() -> str:
    unpacked = getattr(sys, "_MEIPASS", None)  # set by the bundle's launcher
    if unpacked is None:
        return "run by Python"
    beside = Path(sys.executable).parent
    return "in a folder" if Path(unpacked).is_relative_to(beside) else "in one file"


def _settings(settings: Loaded) -> list[Finding]:
    is_there = os.path.isfile(settings.file)
    state = "is valid" if is_there else "is not there; the shipped settings are used"
    return [
        _found("ok", "settings", f"{settings.file} {state}."),
        *(_found("warning", "settings", note) for note in settings.notes),
    ]


async def _conversations(patient: Patient) -> list[Finding]:
    try:
        count = await patient.count_conversations()
    except StorageError as error:
        return [_failed("broken", "conversations", error)]
    return [_found("ok", "conversations", f"{count:,} are kept.")]


def _folders(folders: Folders) -> list[Finding]:
    named = {"config": folders.config, "data": folders.data, "log": folders.log}
    return [_folder(name, folder) for name, folder in named.items()]


def _folder(name: str, folder: Path) -> Finding:
    # os.path: for what may not be looked into, pathlib raises
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not there.is_dir():
        text = f"{folder} cannot be made: {there} is no folder. Move it away."
        return _found("broken", "folder", text, name)
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"{there} cannot be written to. Give your user account write access to it."
        return _found("broken", "folder", text, name)
    if there != folder:
        return _found("ok", "folder", f"{folder} is made at the first start.", name)
    if sys.platform != "win32" and folder.stat().st_mode & _OTHERS:
        text = f"{folder} is open to other users; the next start closes it, or `chmod 700` now."
        return _found("warning", "folder", text, name)
    return _found("ok", "folder", f"{folder}", name)


def _log(is_kept: bool, file: Path) -> Finding:
    if not is_kept:
        return _found("ok", "log", "No file is kept (`logging.file`).")
    if os.path.exists(file) and not (os.path.isfile(file) and os.access(file, os.W_OK)):
        return _found("broken", "log", f"{file} cannot be written to. Move it away.")
    return _found("ok", "log", f"{file}")


# ---- the port -------------------------------------------------------------------------------


async def _port(settings: Loaded) -> Finding:
    """Whether a sidecar that is started now could listen."""
    server = settings.config.server
    host, port = server.host, server.port
    if port == 0:
        return _found("ok", "port", "Any free one is taken.")
    problem = _binding_problem(host, port)
    if problem is None:
        return _found("ok", "port", f"{port} on {host} is free.")
    if problem.errno != errno.EADDRINUSE:
        text = f"Cannot listen on {host}:{port}: {problem.strerror}. Correct `server`."
        return _found("broken", "port", text)
    if await _is_sidecar("http" if server.tls.cert is None else "https", host, port):
        return _found("ok", "port", f"{port} on {host} is in use by a sidecar that runs.")
    taken = f"{port} on {host} is in use by another program"
    if settings.sources["server.port"] == "default":
        return _found("warning", "port", f"{taken}; a free one will be taken instead.")
    return _found("broken", "port", f"{taken}: end that, or choose another `server.port`.")


def _binding_problem(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            if sys.platform != "win32":  # there it would share the port with its owner
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        return error
    return None


async def _is_sidecar(scheme: str, host: str, port: int) -> bool:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    limit = aiohttp.ClientTimeout(total=VISIT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as http,
            # who it is matters here, not whether its certificate is trusted: nothing is sent
            http.get(f"{scheme}://{authority}/healthz", ssl=False) as answer,
        ):
            return answer.headers.get("Server") == "sidecar"
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


# ---- keys and providers ---------------------------------------------------------------------


async def _keys_and_providers(patient: Patient, give_up_at: float) -> list[Finding]:
    config = patient.settings.config
    default = config.chat.model.partition("/")[0]
    keyring = await _keyring(patient.keyring)
    try:
        async with asyncio.timeout_at(give_up_at):
            keys = await patient.credentials.status()
    except TimeoutError:
        text = "The keyring takes too long to answer. Unlock it, or restart it."
        return [_found("broken", "keyring", text, code=KeyringUnavailable.code)]
    if keyring.status != "ok":
        keys = [replace(key, reason=None) for key in keys]  # it is told once
        is_missed = any(key.provider == default and key.source is None for key in keys)
        if is_missed and not _needs_no_key(config.providers[default]):
            keyring = keyring.model_copy(update={"status": "broken"})
    async with asyncio.TaskGroup() as group:
        checks = [
            group.create_task(
                _provider(
                    patient,
                    config.providers[key.provider],
                    key,
                    is_needed=key.provider == default,
                    give_up_at=give_up_at,
                )
            )
            for key in keys
        ]
    found = [check.result() for check in checks]
    if default not in config.providers:
        text = f"`chat.model` is {config.chat.model}, and there is no such provider. Correct it."
        found.append(_found("broken", "provider", text, default))
    return [keyring, *found]


async def _keyring(keyring: Keyring) -> Finding:
    """A keyring that fails is a warning: keys may come from elsewhere."""
    try:
        await keyring.read(_PROBE)
    except KeyringUnavailable as error:
        return _failed("warning", "keyring", error)
    return _found("ok", "keyring", f"{keyring.backend} works.")


async def _provider(
    patient: Patient,
    section: ProviderConfig,
    key: KeyStatus,
    *,
    is_needed: bool,
    give_up_at: float,
) -> Finding:
    """Those without a key are left in peace, unless they are on this machine or needed."""
    name = key.provider
    if key.source is None and not is_needed and not _needs_no_key(section):
        text = key.reason or "No key, so it is not asked."
        return _found("warning" if key.reason else "ok", "provider", text, name)
    try:
        async with asyncio.timeout_at(give_up_at):
            verdict = await patient.test_provider(name)
    except TimeoutError:
        text = f"{name} did not answer in time. Check the network, and `network.proxy`."
        late: FindingStatus = "broken" if is_needed else "warning"
        return _found(late, "provider", text, name, ProviderTimeout.code)
    if verdict.ok:
        source = "without a key" if key.source is None else f"key from: {key.source}"
        return _found("ok", "provider", f"It answers; {source}, models: {verdict.models}.", name)
    code = None if verdict.error_info is None else verdict.error_info.code
    text = " ".join(part for part in (verdict.error, key.reason) if part)
    if is_needed:
        return _found("broken", "provider", f"{text} `chat.model` needs it.", name, code)
    is_just_off = code == LocalServerDown.code  # as it may be: nobody has asked for it
    return _found("ok" if is_just_off else "warning", "provider", text, name, code)


def _needs_no_key(section: ProviderConfig) -> bool:
    host = urlsplit(section.base_url or "").hostname
    return section.kind == "demo" or (host is not None and is_loopback(host))


# ---- MCP servers ----------------------------------------------------------------------------


async def _mcp_servers(patient: Patient, give_up_at: float) -> list[Finding]:
    with suppress(TimeoutError):  # who is still starting says so
        async with asyncio.timeout_at(give_up_at):
            await patient.servers_settled()
    found = [_mcp_server(server) for server in patient.servers()]
    return found or [_found("ok", "mcp", "There are no servers (`mcp.servers`).")]


def _mcp_server(server: McpServerStatus) -> Finding:
    status = _MCP_STATUS.get(server.state, "broken")
    code = None if server.error_info is None else server.error_info.code
    logs = f"`sidecar mcp logs {server.server}` shows what it writes."
    if server.state == "ready":
        text = f"It runs; tools: {server.tools}."
    elif server.state == "starting":
        text = f"It is still starting; the first start of a package downloads it. {logs}"
    elif status == "ok":
        text = f"It is {server.state}."
    else:
        text = server.error or f"It is {server.state}. {logs}"
    return _found(status, "mcp", text, server.server, code)


def _commands(servers: Mapping[str, McpServerConfig]) -> list[Finding]:
    """PATH, and the commands that are looked for in it. Touches the disk."""
    ours = os.environ.get("PATH", os.defpath)
    wanted: dict[tuple[str, str], None] = {}
    for server in servers.values():
        command = server.command or ""
        if server.enabled and command and not os.path.dirname(command):
            search_path = server.env.get("PATH", ours)
            wanted[command, search_path] = None
            if command in _COMPANIONS:
                wanted[_COMPANIONS[command], search_path] = None
    return [
        _found("ok", "command", ours, "PATH"),
        *(_command(command, search_path) for command, search_path in wanted),
    ]


def _command(command: str, search_path: str) -> Finding:
    executable = shutil.which(command, path=search_path)
    if executable is not None:
        return _found("ok", "command", executable, command)
    install = _INSTALL.get(command, "Install it, or write its full path.")
    return _found("broken", "command", f"It is not in PATH. {install}", command)


# ---- findings -------------------------------------------------------------------------------


def _found(
    status: FindingStatus,
    area: FindingArea,
    text: str,
    name: str | None = None,
    code: str | None = None,
) -> Finding:
    """The texts of servers and vendors are theirs: nothing in them may hide, and no key show."""
    return Finding(status=status, area=area, name=name, text=visible(redact(text)), code=code)


def _failed(status: FindingStatus, area: FindingArea, error: SidecarError) -> Finding:
    return _found(status, area, str(error), code=error.code)


def _result(found: Iterable[Finding]) -> DiagnosticsResult:
    items = tuple(found)
    return DiagnosticsResult(ok=all(item.status != "broken" for item in items), items=items)

"""The commands: parsing and printing only.

An error a person can act on is one line on stderr and an exit code of `product`'s table; never a
traceback. What a command needs is imported when it runs, so that `--help` answers at once.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from difflib import get_close_matches
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from sidecar import __version__, starting
from sidecar.errors import (
    AlreadyRunning,
    BadRequest,
    ConfigInvalid,
    KeyringUnavailable,
    PortInUse,
    RequestError,
    SidecarError,
)

if TYPE_CHECKING:
    from sidecar.app import App, World
    from sidecar.client import Client
    from sidecar.config import Loaded
    from sidecar.credentials import Credentials, KeyStatus
    from sidecar.door_key import ShownKey
    from sidecar.instance import Instance
    from sidecar.lifetime import Lifetime
    from sidecar.paths import Folders
    from sidecar.protocol.providers import KeyItem


class InternalError(SidecarError):
    """A bug; `code` is `internal`."""


T = TypeVar("T")

FAILED, USAGE, INTERNAL, INTERRUPTED, TERMINATED = 1, 2, 70, 130, 143
EXIT_CODES: dict[type[SidecarError], int] = {
    ConfigInvalid: USAGE,
    RequestError: USAGE,
    PortInUse: 3,
    AlreadyRunning: 4,
    KeyringUnavailable: 5,
    InternalError: INTERNAL,
}


COMMANDS = ("serve", "chat", "keys", "config", "mcp", "conversations", "door", "doctor", "schema")
BROWSER_S = 5.0  # a browser of the desktop is there by then; one in the terminal stays
DEMO_SERVER = "demo-server"  # the demo's MCP server, which we start ourselves


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    arguments = argparse.Namespace()
    try:
        _parser().parse_args(_with_command(given), arguments)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    except Exception as error:  # the last owner: what ends a command is told in one line
        is_awaited = "--managed" in given and not getattr(arguments, "is_ready", False)
        return _failed(_cause(error), is_awaited=is_awaited)


def _cause(error: Exception) -> Exception:
    """What went wrong first, out of the task groups that it went through."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _failed(error: Exception, *, is_awaited: bool) -> int:
    """One line: on stderr for people, as JSON on stdout for a frontend that waits for its line."""
    if isinstance(error, BrokenPipeError):  # `sidecar … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the exit would complain
        return FAILED
    if not isinstance(error, SidecarError) and not _is_of_client(error):
        error = _internal(error)
    if is_awaited:
        code = error.code if isinstance(error, SidecarError) else SidecarError.code
        print(json.dumps({"event": "error", "code": code, "message": str(error)}), flush=True)
    else:
        print(f"sidecar: {error}", file=sys.stderr)
    return _exit_code(error)


def _exit_code(error: Exception) -> int:
    if getattr(error, "code", None) == KeyringUnavailable.code:  # also as a sidecar's answer
        return EXIT_CODES[KeyringUnavailable]
    return next((exit for kind, exit in EXIT_CODES.items() if isinstance(error, kind)), FAILED)


def _is_of_client(error: Exception) -> bool:
    """Its module is slow to import, and has raised nothing where it was not."""
    client = sys.modules.get("sidecar.client")
    return client is not None and isinstance(error, client.ClientError)


def _internal(bug: Exception) -> InternalError:
    """Its trace goes to the log; without one, structlog would write to stdout."""
    import structlog

    from sidecar.redaction import redact

    if structlog.is_configured():
        structlog.get_logger().error("crashed", exc_info=bug)
    words = redact(str(bug)).partition("\n")[0]
    return InternalError(f"Internal error: {type(bug).__name__}: {words}. The log has more.")


def _with_command(argv: Sequence[str]) -> Sequence[str]:
    """`serve` is the command of `sidecar --config FILE`, and of a double click."""
    first = argv[0] if argv else ""
    if first in (*COMMANDS, DEMO_SERVER, "-h", "--help", "--version"):
        return argv
    if first and not first.startswith("-"):
        near = get_close_matches(first, COMMANDS, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(COMMANDS)}."
        raise ConfigInvalid(f"There is no command {first!r}; {meant}")
    return ["serve", *argv]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = message[:1].upper() + message[1:]
        raise ConfigInvalid(f"{text}. `{self.prog} --help` says what there is.")


def _parser() -> argparse.ArgumentParser:
    settings = _Parser(add_help=False, allow_abbrev=False)
    settings.add_argument("--config", metavar="FILE", type=Path, help="settings instead of yours")
    settings.add_argument("--profile", metavar="NAME", help="a world apart: folders and keys")
    demo = _Parser(add_help=False, allow_abbrev=False)
    demo.add_argument("--demo", action="store_true", help="a scripted model and a demo MCP server")

    parser = _Parser(
        prog="sidecar",
        description="A complete, safe LLM backend for any chat frontend, on this computer.",
        epilog="Without a command: serve; `sidecar serve --help` has its options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", parents=[settings, demo], help="run the sidecar")
    serve.add_argument("--version", action="version", version=f"sidecar {__version__}")
    serve.add_argument("--host", metavar="H", help="address to listen on")
    serve.add_argument("--port", metavar="N", type=int, help="port; 0 for any free one")
    serve.add_argument("--managed", action="store_true", help="for a frontend that spawns it")
    serve.add_argument(
        "--no-browser",
        action="store_true",
        help="open no page; exit 4, not 0, if one is running already",
    )
    serve.add_argument(
        "--allow-origin", metavar="ORIGIN", action="append", default=[], dest="origins"
    )
    serve.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    serve.add_argument("--log-format", choices=("console", "json"))
    serve.set_defaults(run=_serve, is_ready=False)

    chat = commands.add_parser("chat", parents=[settings, demo], help="talk in the terminal")
    chat.add_argument("--model", metavar="PROVIDER/MODEL", help="instead of the settings' one")
    chat.add_argument("--yes", action="store_true", help="allow every tool call")
    chat.add_argument(
        "--attach",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        dest="files",
        help="an image, a PDF or a text, with the first message; may be repeated",
    )
    chat.add_argument("text", nargs="?", help="one message; without it, a conversation")
    chat.set_defaults(run=_chat)

    keys = commands.add_parser("keys", help="API keys in the OS keyring").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    status = keys.add_parser("status", parents=[settings], help="which there are, and from where")
    status.set_defaults(run=_keys_status)
    set_key = keys.add_parser("set", parents=[settings], help="store one, from a prompt or stdin")
    set_key.add_argument("provider")
    set_key.set_defaults(run=_keys_set)
    delete_key = keys.add_parser("delete", parents=[settings], help="remove one")
    delete_key.add_argument("provider")
    delete_key.set_defaults(run=_keys_delete)

    config = commands.add_parser("config", help="the settings").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    for name, run, text in (
        ("path", _config_path, "where your settings file is"),
        ("show", _config_show, "all settings, and where each came from"),
        ("validate", _config_validate, "check your settings file"),
        ("init", _config_init, "write a settings file to start from"),
    ):
        config.add_parser(name, parents=[settings], help=text).set_defaults(run=run)

    mcp = commands.add_parser("mcp", help="your MCP servers").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    servers = mcp.add_parser("list", parents=[settings, demo], help="the servers and their states")
    servers.set_defaults(run=_mcp_list)
    tools = mcp.add_parser("tools", parents=[settings, demo], help="the tools of all servers")
    tools.set_defaults(run=_mcp_tools)
    call = mcp.add_parser("call", parents=[settings, demo], help="call one tool")
    call.add_argument("tool", metavar="SERVER/TOOL")
    call.add_argument("arguments", metavar="JSON", nargs="?", default="{}")
    call.set_defaults(run=_mcp_call)
    logs = mcp.add_parser("logs", parents=[settings, demo], help="a server's last lines of stderr")
    logs.add_argument("server")
    logs.set_defaults(run=_mcp_logs)
    authorize = mcp.add_parser(
        "authorize", parents=[settings], help="sign in to a server, or out of it"
    )
    authorize.add_argument("server")
    authorize.add_argument("--revoke", action="store_true", help="sign out")
    authorize.set_defaults(run=_mcp_authorize)
    imported = mcp.add_parser(
        "import", parents=[settings], help="servers from another program's settings"
    )
    imported.add_argument("source", metavar="FILE|PROGRAM")
    imported.add_argument("servers", metavar="SERVER", nargs="*", help="the ones to store")
    imported.add_argument("--all", action="store_true", help="store all of them")
    imported.set_defaults(run=_mcp_import)
    approve = mcp.add_parser("approve", parents=[settings], help="let a stored server start")
    approve.add_argument("server")
    approve.set_defaults(run=_mcp_approve)

    said = commands.add_parser("conversations", help="what was said before").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    listed = said.add_parser("list", parents=[settings], help="the newest, the pinned ones first")
    listed.add_argument("--limit", type=int, default=20, metavar="N")
    listed.add_argument("--archived", action="store_true", help="the archived ones instead")
    listed.set_defaults(run=_conversations_list)
    search = said.add_parser("search", parents=[settings], help="those in which words were said")
    search.add_argument("words", metavar="WORDS", nargs="+")
    search.set_defaults(run=_conversations_search)
    export = said.add_parser("export", parents=[settings], help="write them to stdout")
    export.add_argument("ids", metavar="ID", nargs="*", help="all of them where none is named")
    export.add_argument("--format", choices=("markdown", "json"), default="markdown")
    export.set_defaults(run=_conversations_export)
    imported = said.add_parser(
        "import", parents=[settings], help="read an export of ours, of ChatGPT or of Claude"
    )
    imported.add_argument("file", metavar="FILE")
    imported.set_defaults(run=_conversations_import)
    delete = said.add_parser("delete", parents=[settings], help="delete them, and their files")
    delete.add_argument("ids", metavar="ID", nargs="*")
    delete.add_argument("--all", action="store_true", help="every conversation there is")
    delete.set_defaults(run=_conversations_delete)

    door = commands.add_parser("door", help="for apps that speak OpenAI's HTTP API")
    door_key = door.add_subparsers(title="commands", metavar="COMMAND", required=True).add_parser(
        "key", parents=[settings], help="show the key that such an app needs"
    )
    door_key.add_argument("--renew", action="store_true", help="make another; the old one ends")
    door_key.set_defaults(run=_door_key)

    doctor = commands.add_parser(
        "doctor", parents=[settings, demo], help="what works and what does not"
    )
    doctor.add_argument("--json", action="store_true", help="the same for programs")
    doctor.set_defaults(run=_doctor)

    schema = commands.add_parser("schema", help="the protocol, as this program speaks it")
    schema.add_argument("--format", choices=("json", "typescript", "markdown"), default="json")
    schema.set_defaults(run=_schema)
    commands.add_parser(DEMO_SERVER).set_defaults(run=_demo_server)
    return parser


# ---- what every command needs ---------------------------------------------------------------


def _folders(arguments: argparse.Namespace) -> "Folders":
    from sidecar.paths import Folders

    return Folders.locate(arguments.profile)


def _settings(arguments: argparse.Namespace, folders: "Folders", *, managed: bool) -> "Loaded":
    from sidecar.config import Flags, load

    given = vars(arguments)
    flags = Flags(
        host=given.get("host"),
        port=given.get("port"),
        log_level=given.get("log_level"),
        log_format=given.get("log_format"),
        allow_origins=tuple(given.get("origins", ())),
        demo=given.get("demo", False),
    )
    return load(
        folders,
        environ=os.environ,
        flags=flags,
        config_file=arguments.config,
        managed=managed,
    )


def _world(arguments: argparse.Namespace, loaded: "Loaded", folders: "Folders") -> "World":
    from sidecar.app import World
    from sidecar.credentials import Keyring, service_name
    from sidecar.redaction import redact_value
    from sidecar.server.auth import given_token, new_token

    given = os.environ.pop("SIDECAR_TOKEN", None)  # no child may see it
    return World(
        settings=loaded,
        folders=folders,
        environ=dict(os.environ),  # what a browser must not see is taken out of the other
        keyring=Keyring(service_name(folders.profile)),
        token=new_token() if given is None else given_token(given),
        redact=redact_value,
        demo=getattr(arguments, "demo", False),
    )


def _credentials(arguments: argparse.Namespace) -> "Credentials":
    from sidecar.app import open_credentials
    from sidecar.credentials import Keyring, service_name
    from sidecar.redaction import redact_value

    folders = _folders(arguments)
    loaded = _settings(arguments, folders, managed=False)
    keyring = Keyring(service_name(folders.profile))
    return open_credentials(loaded.config.providers, keyring, os.environ, redact_value)


def _running(arguments: argparse.Namespace) -> "Instance | None":
    """The sidecar that is running, said on stderr; none for a command with its own settings."""
    from sidecar import instance

    if arguments.config is not None or getattr(arguments, "demo", False):
        return None
    try:
        running = instance.find(_folders(arguments).data)
    except instance.Untrusted as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return None
    if running is not None:
        print(f"sidecar: asking the one at {running.http}", file=sys.stderr)
    return running


@contextlib.asynccontextmanager
async def _client_of(running: "Instance", *answers: str) -> "AsyncIterator[Client]":
    from sidecar.client import connect

    async with connect(running.url, running.token, events=("mcp",), answers=answers) as client:
        yield client


@contextlib.asynccontextmanager
async def _own_sidecar(arguments: argparse.Namespace, *answers: str) -> "AsyncIterator[Client]":
    """A sidecar for this command alone, on a free port, and a client of it.

    It neither takes the profile's lock nor lets itself be found: a frontend that starts meanwhile
    must not wait for a chat to end.
    SIGTERM and SIGHUP cancel the command, so that the servers it started are ended as well.
    """
    from sidecar import log
    from sidecar.app import open_app
    from sidecar.client import connect
    from sidecar.lifetime import Lifetime

    _claim_unpacked()
    folders = _folders(arguments)
    loaded = _settings(arguments, folders, managed=True)  # any free port
    for note in loaded.notes:
        print(f"sidecar: {note}", file=sys.stderr)
    folders.make()
    config = loaded.config
    log.configure(config.logging.level, None, folders.log if config.logging.file else None)
    _cancel_on_signals()
    async with open_app(_world(arguments, loaded, folders), Lifetime()) as app:
        app.begin()
        async with connect(app.url, app.token, events=("mcp",), answers=answers) as client:
            yield client


def _claim_unpacked() -> None:
    """So that a later start can remove what was unpacked for this one, if this one cannot."""
    from sidecar import bundle

    if (unpacked := bundle.unpacked_at()) is not None:
        bundle.claim(unpacked)


def _cancel_on_signals() -> None:
    task = asyncio.current_task()
    if sys.platform == "win32" or task is None:
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


# ---- serve ----------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    return asyncio.run(_serving(arguments))


async def _serving(arguments: argparse.Namespace) -> int:
    with contextlib.ExitStack() as until_ready:
        until_ready.enter_context(starting.without_collections())
        return await _serving_one(arguments, until_ready)


async def _serving_one(arguments: argparse.Namespace, until_ready: contextlib.ExitStack) -> int:
    from sidecar.instance import Lock, forget
    from sidecar.lifetime import Lifetime

    _claim_unpacked()
    lifetime, managed = Lifetime(), arguments.managed
    lifetime.bound()
    lifetime.watch_launcher()
    parent = os.environ.pop("SIDECAR_PARENT_PID", None)  # it is nobody else's parent
    if managed:
        lifetime.watch_stdin()
        if parent is not None:
            lifetime.watch_parent(parent)
    folders = _folders(arguments)
    loaded = _settings(arguments, folders, managed=managed)
    folders.make()
    lock = Lock(folders.data)
    first = await lock.take_or_find(lifetime.stopping, finds=not managed)
    if first is not None:
        return await _show_first(first, no_browser=arguments.no_browser)
    try:
        forget(folders.data)  # whoever wrote it was killed
        return await _serving_alone(arguments, loaded, folders, lifetime, until_ready)
    finally:
        lock.release()


async def _serving_alone(
    arguments: argparse.Namespace,
    loaded: "Loaded",
    folders: "Folders",
    lifetime: "Lifetime",
    until_ready: contextlib.ExitStack,
) -> int:
    with starting.without_certificates():
        from sidecar import bundle, log
        from sidecar.app import open_app

    logging = loaded.config.logging
    log_file = log.configure(
        logging.level,
        None if arguments.managed else logging.format,
        folders.log if logging.file else None,
    )
    given = "SIDECAR_TOKEN" in os.environ
    async with open_app(_world(arguments, loaded, folders), lifetime) as app:
        lifetime.watch_signals()
        with contextlib.ExitStack() as stack:
            if arguments.managed:
                _print_ready(app, log_file, with_token=not given)
            else:
                stack.enter_context(_findable(app, folders))
                _print_address(app, with_token=not given)
            arguments.is_ready = True
            until_ready.close()
            app.begin()
            if (unpacked := bundle.unpacked_at()) is not None:
                bundle.sweep_beside(unpacked)
            if arguments.managed or arguments.no_browser:
                await lifetime.stopping.wait()
                return 0
            async with asyncio.TaskGroup() as group:
                opening = group.create_task(_open_page(app.page_url()))
                await lifetime.stopping.wait()
                opening.cancel()  # a text browser may still be there
    return 0


def _findable(app: "App", folders: "Folders") -> contextlib.AbstractContextManager[None]:
    """The commands of this profile, and whoever starts a second sidecar in it, find this one."""
    from sidecar.instance import published, this_process

    return published(folders.data, this_process(app.url, app.http, app.token, __version__))


async def _show_first(first: "Instance", *, no_browser: bool) -> int:
    if no_browser:
        raise AlreadyRunning(f"A sidecar is running already, at {first.http}/ (pid {first.pid}).")
    from sidecar.browser import ask_for_code

    print(f"sidecar {first.version} is running already.\n  page   {first.http}/", flush=True)
    if first.version != __version__:
        print(f"This is {__version__}: end that one (pid {first.pid}) to use it.", flush=True)
    code = await ask_for_code(first.http, first.token)
    if code is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BROWSER_S):
                await _open_page(f"{first.http}/#code={code}")
    return 0


async def _open_page(url: str) -> None:
    """In the browser; where there is none, a person at a terminal may take the address along."""
    from sidecar import browser

    if await browser.open_page(url):
        return
    if sys.stdout.isatty():
        print(f"No browser can be opened here. This address is good for a minute:\n  {url}")
    else:  # the code is a secret, and this may go anywhere
        print("No browser can be opened here: run `sidecar` in a terminal for a page's address.")
    sys.stdout.flush()


def _print_ready(app: "App", log_file: Path | None, *, with_token: bool) -> None:
    """The only line on stdout."""
    from sidecar.protocol.base import PROTOCOL_VERSION

    host, port = app.address
    line: dict[str, str | int] = {
        "event": "ready",
        "protocol": PROTOCOL_VERSION,
        "version": __version__,
        "pid": os.getpid(),
        "host": host,
        "port": port,
        "url": app.url,
        "http": app.http,
    }
    if with_token:
        line["token"] = app.token
    if log_file is not None:
        line["log_file"] = str(log_file)
    print(json.dumps(line), flush=True)


def _print_address(app: "App", *, with_token: bool) -> None:
    token = app.token if with_token else "the one of SIDECAR_TOKEN"
    lines = (
        f"sidecar {__version__} is listening; Ctrl-C stops it.",
        f"  page   {app.http}/",
        f"  socket {app.url}",
        f"  token  {token}",
    )
    print("\n".join(lines), flush=True)  # at once: the log writes to the same terminal


# ---- chat -----------------------------------------------------------------------------------


def _chat(arguments: argparse.Namespace) -> int:
    from sidecar import terminal

    text = arguments.text
    if text is None and not terminal.can_ask():
        text = sys.stdin.read()
    if text is not None and not text.strip():
        raise ConfigInvalid("There is nothing to say: give the message as TEXT, or on stdin.")
    files = [(file.name, _contents(file)) for file in arguments.files]

    def talk(client: "Client") -> Awaitable[int]:
        return terminal.chat(client, text, arguments.model, files, assume_yes=arguments.yes)

    answers = ("approvals",) if arguments.yes or terminal.can_ask() else ()
    return asyncio.run(_with_client(arguments, talk, *answers))


def _contents(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"The file {file} cannot be read: {error.strerror}.") from error


# ---- keys -----------------------------------------------------------------------------------


def _keys_status(arguments: argparse.Namespace) -> int:
    states = asyncio.run(_key_states(arguments))
    for state in states:
        print(f"{state.provider:<12} {state.source or 'no key'}")
    backend = next((state.backend for state in states if state.backend), None)
    print(f"keyring: {backend or 'none'}", file=sys.stderr)
    for reason in dict.fromkeys(state.reason for state in states if state.reason):
        print(reason, file=sys.stderr)
    return 0


async def _key_states(arguments: argparse.Namespace) -> "Sequence[KeyStatus] | Sequence[KeyItem]":
    running = _running(arguments)
    if running is None:
        return await _credentials(arguments).status()
    from sidecar.protocol.providers import KeysStatus

    async with _client_of(running) as client:
        return (await client.request(KeysStatus)).items


def _keys_set(arguments: argparse.Namespace) -> int:
    provider = arguments.provider
    key = getpass(f"Key for {provider}: ") if sys.stdin.isatty() else sys.stdin.readline()
    shadowed_by = asyncio.run(_store_key(arguments, key))
    print(f"The key for {provider} is in the keyring.")
    if shadowed_by:
        print(f"It is not used while there is one in: {shadowed_by}.")
    return 0


async def _store_key(arguments: argparse.Namespace, key: str) -> str | None:
    """Returns which other place is looked at before the keyring, if one has a key too."""
    running = _running(arguments)
    if running is None:
        stored = await _credentials(arguments).set(arguments.provider, key, persist=True)
        return stored.shadowed_by
    from pydantic import ValidationError

    from sidecar.protocol.providers import KeysSet, KeysSetPayload

    try:
        payload = KeysSetPayload(provider=arguments.provider, key=key.strip())
    except ValidationError:
        raise BadRequest("The key is empty or too long.") from None  # it quotes it
    async with _client_of(running) as client:
        return (await client.request(KeysSet, payload)).shadowed_by


def _keys_delete(arguments: argparse.Namespace) -> int:
    provider, running = arguments.provider, _running(arguments)
    if running is not None:
        asyncio.run(_ask_to_delete(running, provider))
        print(f"The keyring has no key for {provider} now.")
        return 0
    if asyncio.run(_credentials(arguments).delete(provider)):
        print(f"The key for {provider} is deleted from the keyring.")
        return 0
    print(f"The keyring has no key for {provider}.")
    return FAILED


async def _ask_to_delete(running: "Instance", provider: str) -> None:
    from sidecar.protocol.providers import KeysDelete, ProviderPayload

    async with _client_of(running) as client:
        await client.request(KeysDelete, ProviderPayload(provider=provider))


# ---- config ---------------------------------------------------------------------------------


def _config_path(arguments: argparse.Namespace) -> int:
    print(arguments.config or _folders(arguments).settings_file)
    return 0


def _config_show(arguments: argparse.Namespace) -> int:
    from sidecar.config import show

    print(show(_settings(arguments, _folders(arguments), managed=False)), end="")
    return 0


def _config_validate(arguments: argparse.Namespace) -> int:
    loaded = _settings(arguments, _folders(arguments), managed=False)
    for note in loaded.notes:
        print(f"note: {note}")
    is_there = loaded.file.is_file()
    print(f"{loaded.file}: valid" if is_there else f"{loaded.file}: not there, which is fine")
    return 0


def _config_init(arguments: argparse.Namespace) -> int:
    from sidecar.config import starter

    folders = _folders(arguments)
    file: Path = arguments.config or folders.settings_file
    folders.make()
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(starter())
    except FileExistsError as error:
        raise ConfigInvalid(f"{file} is there already; edit it, or move it away.") from error
    except OSError as error:
        raise ConfigInvalid(f"{file} cannot be written: {error.strerror}.") from error
    print(file)
    return 0


# ---- mcp ------------------------------------------------------------------------------------


def _mcp_list(arguments: argparse.Namespace) -> int:
    from sidecar.terminal import print_servers

    return asyncio.run(_with_client(arguments, print_servers))


def _mcp_tools(arguments: argparse.Namespace) -> int:
    from sidecar.terminal import print_tools

    return asyncio.run(_with_client(arguments, print_tools))


def _mcp_call(arguments: argparse.Namespace) -> int:
    from sidecar.terminal import call_tool

    server, slash, name = arguments.tool.partition("/")
    if not slash:
        raise ConfigInvalid("A tool is written SERVER/TOOL; `sidecar mcp tools` lists them.")
    try:
        given = json.loads(arguments.arguments)
    except ValueError as error:
        raise ConfigInvalid(f"The arguments are not JSON: {error}.") from error
    if not isinstance(given, dict):
        raise ConfigInvalid('The arguments are a JSON object, as in \'{"path": "."}\'.')
    return asyncio.run(
        _with_client(arguments, lambda client: call_tool(client, server, name, given), "approvals")
    )


def _mcp_logs(arguments: argparse.Namespace) -> int:
    from sidecar.terminal import print_logs

    return asyncio.run(_with_client(arguments, lambda client: print_logs(client, arguments.server)))


def _mcp_import(arguments: argparse.Namespace) -> int:
    from sidecar.protocol.mcp import McpServersImport, ServersImportPayload
    from sidecar.terminal import import_servers

    text = _other_settings(arguments.source)
    accept = tuple(arguments.servers) or None

    async def run(client: "Client") -> int:
        if not arguments.all:
            return await import_servers(client, text, accept)
        found = await client.request(McpServersImport, ServersImportPayload(text=text))
        free = tuple(item.server for item in found.items if not item.is_taken)
        return await import_servers(client, text, free)

    return asyncio.run(_with_client(arguments, run))


def _other_settings(source: str) -> str:
    """The text of a file, or of the settings of a program that is known."""
    from sidecar.mcp_host.config_places import PROGRAMS, well_known

    places = well_known(source) or (Path(source),)
    for place in places:
        if place.is_file():
            try:
                return place.read_text("utf-8-sig")
            except (OSError, ValueError) as error:
                raise ConfigInvalid(f"{place} cannot be read: {error}.") from error
    looked = ", ".join(map(str, places))
    raise ConfigInvalid(f"There is no file {looked}. Known programs are: {', '.join(PROGRAMS)}.")


def _mcp_approve(arguments: argparse.Namespace) -> int:
    from sidecar.terminal import approve_server

    return asyncio.run(
        _with_client(arguments, lambda client: approve_server(client, arguments.server))
    )


def _mcp_authorize(arguments: argparse.Namespace) -> int:
    from sidecar.terminal import sign_in, sign_out

    run = sign_out if arguments.revoke else sign_in
    return asyncio.run(_with_client(arguments, lambda client: run(client, arguments.server)))


async def _with_client(
    arguments: argparse.Namespace, run: "Callable[[Client], Awaitable[T]]", *answers: str
) -> T:
    running = _running(arguments)
    found = _own_sidecar(arguments, *answers) if running is None else _client_of(running, *answers)
    async with found as client:
        return await run(client)


# ---- conversations --------------------------------------------------------------------------


def _conversations_list(arguments: argparse.Namespace) -> int:
    from sidecar.terminal_history import print_conversations

    return asyncio.run(
        _with_client(
            arguments,
            lambda client: print_conversations(
                client, arguments.limit, archived=arguments.archived
            ),
        )
    )


def _conversations_search(arguments: argparse.Namespace) -> int:
    from sidecar.terminal_history import search

    words = " ".join(arguments.words)
    return asyncio.run(_with_client(arguments, lambda client: search(client, words)))


def _conversations_export(arguments: argparse.Namespace) -> int:
    from sidecar.terminal_history import export

    ids = tuple(arguments.ids)
    return asyncio.run(
        _with_client(arguments, lambda client: export(client, ids, arguments.format))
    )


def _conversations_import(arguments: argparse.Namespace) -> int:
    from sidecar.terminal_history import import_file

    try:
        data = Path(arguments.file).read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"{arguments.file} cannot be read: {error.strerror}.") from error
    return asyncio.run(_with_client(arguments, lambda client: import_file(client, data)))


def _conversations_delete(arguments: argparse.Namespace) -> int:
    from sidecar.terminal_history import delete

    ids = tuple(arguments.ids)
    if arguments.all == bool(ids):
        raise ConfigInvalid("Name the conversations to delete, or --all for every one.")
    return asyncio.run(
        _with_client(arguments, lambda client: delete(client, ids, everything=arguments.all))
    )


# ---- door -----------------------------------------------------------------------------------


def _door_key(arguments: argparse.Namespace) -> int:
    running = _running(arguments)
    key = asyncio.run(_shown_key(arguments, running))
    print(key.value)
    if running is not None:
        print(f"base URL: {running.http}/v1", file=sys.stderr)
    if not key.is_kept:
        print("No keyring keeps it: it ends with that sidecar.", file=sys.stderr)
    return 0


async def _shown_key(arguments: argparse.Namespace, running: "Instance | None") -> "ShownKey":
    """Raises KeyringUnavailable when there is nobody to hold a key, ClientError from another."""
    if running is not None:
        from sidecar.client import ask_for_door_key

        return await ask_for_door_key(running.http, running.token, renew=arguments.renew)
    from sidecar.credentials import Keyring, service_name
    from sidecar.door_key import DoorKey
    from sidecar.redaction import redact_value

    door_key = DoorKey(Keyring(service_name(_folders(arguments).profile)), redact_value)
    key = await (door_key.renew() if arguments.renew else door_key.show())
    if not key.is_kept:
        raise KeyringUnavailable(
            "There is no keyring to keep a door key in, and no sidecar is running to hold one: "
            "start `sidecar`, or see what `sidecar doctor` says of the keyring."
        )
    return key


# ---- the rest -------------------------------------------------------------------------------


def _doctor(arguments: argparse.Namespace) -> int:
    from sidecar import doctor
    from sidecar.credentials import Keyring, service_name
    from sidecar.protocol.program import Diagnostics

    folders = _folders(arguments)
    return asyncio.run(
        doctor.run(
            folders,
            Keyring(service_name(folders.profile)),
            load=lambda: _settings(arguments, folders, managed=False),
            ask=lambda: _with_client(arguments, lambda client: client.request(Diagnostics)),
            as_json=arguments.json,
        )
    )


def _schema(arguments: argparse.Namespace) -> int:
    from sidecar.schema import render

    sys.stdout.write(render(arguments.format))
    return 0


def _demo_server(arguments: argparse.Namespace) -> int:
    from sidecar.mcp_host.demo_server import main as serve

    _claim_unpacked()
    serve()
    return 0

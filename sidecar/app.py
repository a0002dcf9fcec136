"""The composition root: builds everything in order, owns the root TaskGroup, takes it all down.

Only this file knows which class stands behind which seam. `open_app` returns when the socket
accepts; `begin` starts what is heavy, so that the ready line can be written before it. Leaving
the context is the clean shutdown: refuse, tell, cancel, close, within `lifetime.SHUTDOWN_S`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from uuid import uuid4

import structlog

from sidecar.chat.approvals import Approvals
from sidecar.chat.elicitations import Elicitations
from sidecar.chat.runs import Defaults, Runs
from sidecar.config import ChatConfig, Loaded, McpServerConfig, ProviderConfig
from sidecar.credentials import Credentials, Keyring, Vendor
from sidecar.door_key import DoorKey
from sidecar.errors import StorageError
from sidecar.lifetime import SHUTDOWN_S, Lifetime
from sidecar.live_settings import LiveSettings
from sidecar.mcp_host.demo_server import demo_entry
from sidecar.mcp_host.entries import Entries
from sidecar.mcp_host.host import Host
from sidecar.mcp_host.schema_check import check_form
from sidecar.mcp_host.server import Network
from sidecar.mcp_host.vault import Vault
from sidecar.paths import Folders
from sidecar.protocol.program import ConfigChanged, ConfigRevision, ServerShutdown, ShutdownNotice
from sidecar.providers.base import Params
from sidecar.providers.discovery import find, places
from sidecar.providers.http import Http
from sidecar.providers.registry import Providers
from sidecar.server.attachments import AttachmentRoutes
from sidecar.server.auth import Gate
from sidecar.server.events import Events
from sidecar.server.handlers import Handlers, Services
from sidecar.server.http import Server, bind, tls_context
from sidecar.server.openai_door import Door
from sidecar.server.sessions import Sessions
from sidecar.store.attachments import Attachments
from sidecar.store.conversations import Conversations
from sidecar.store.database import Database
from sidecar.store.history import History
from sidecar.store.rows import recover
from sidecar.store.rules import Rules

DEMO_SERVER = "demo"
DATABASE = "conversations.db"
TOKENS = "mcp-tokens.sealed"
HOST_CLOSE_S = 5.0  # of SHUTDOWN_S, for the MCP servers; after it their processes are killed
TIDY_AFTER_S = 60.0  # nobody waits for it
UNSHOWN_KEPT_S = 24 * 60 * 60.0  # what was sent and became no part of a message
FIRST_HELLO_S = 0.25  # a hello comes within 50 ms of the line, or nobody is in a hurry

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class World:
    """What a sidecar is started with: everything that comes from outside."""

    settings: Loaded
    folders: Folders
    environ: Mapping[str, str]
    keyring: Keyring
    token: str
    redact: Callable[[str], None]
    """Told every secret that is seen, before it is used."""
    demo: bool = False


@dataclass(slots=True)
class App:
    """A sidecar that accepts connections."""

    http: str
    address: tuple[str, int]
    token: str
    group: asyncio.TaskGroup
    events: Events
    server: Server
    sessions: Sessions
    runs: Runs
    approvals: Approvals
    elicitations: Elicitations
    host: Host
    providers: Providers
    attachments: Attachments
    history: History
    settings: LiveSettings
    default_model: str
    greeted: asyncio.Event
    """Set when a client has said hello for the first time."""
    _hosting: asyncio.Task[None] | None = None
    _preparing: asyncio.Task[None] | None = None
    _watching: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self.http.replace("http", "ws", 1) + "/ws/chat"

    def page_url(self) -> str:
        """The page's address with a new code: a secret, good once and for a minute."""
        return f"{self.http}/#code={self.sessions.new_code()}"

    def begin(self) -> None:
        """Start the MCP servers, and load what the default model needs, off the loop."""
        self._watching = self.group.create_task(self._watch_settings(), name="watch settings")
        self._hosting = self.group.create_task(self._run_host(), name="mcp host")
        self._preparing = self.group.create_task(self._prepare(), name="prepare")

    async def _watch_settings(self) -> None:
        await self._first_hello()
        await self.settings.watch()

    async def _run_host(self) -> None:
        await self._first_hello()
        await self.host.run()

    async def _prepare(self) -> None:
        await self._first_hello()
        await self.providers.prepare(self.default_model)
        await asyncio.sleep(TIDY_AFTER_S)
        with suppress(StorageError):  # there is a next time
            shown = await self.history.shown_attachments()
            await self.attachments.delete_unshown(shown, UNSHOWN_KEPT_S)

    async def _first_hello(self) -> None:
        """Who waits for our line connects at once, and would wait for our imports as well."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_HELLO_S):
                await self.greeted.wait()

    async def close(self, reason: str) -> None:
        """Everything that was shown is kept and told before the sockets go."""
        log.info("stopping", reason=reason)
        self.server.stop_accepting()
        for task in (self._preparing, self._watching):
            if task is not None:
                task.cancel()  # an exit waits for no import
        notice = ShutdownNotice(reason=reason, deadline_ms=round(SHUTDOWN_S * 1000))
        self.events.publish(ServerShutdown(data=notice))
        self.approvals.questions.close()
        self.elicitations.questions.close()
        await self.runs.close()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._close_host())
            group.create_task(self.server.close())
        await self.providers.close()

    async def _close_host(self) -> None:
        """All MCP servers together; what does not end in time is killed."""
        if self._hosting is None:
            return
        self._hosting.cancel()
        _, pending = await asyncio.wait([self._hosting], timeout=HOST_CLOSE_S)
        if pending:
            self.host.kill_now()


@asynccontextmanager
async def open_app(world: World, lifetime: Lifetime) -> AsyncIterator[App]:
    """Build it, listen, and on leaving take it down. Raises ConfigInvalid and PortInUse."""
    config = world.settings.config
    world.redact(world.token)
    for note in world.settings.notes:
        log.warning("settings_note", note=note)
    events = Events()
    credentials = open_credentials(config.providers, world.keyring, world.environ, world.redact)
    http = Http(config.network)
    providers = Providers(
        config.providers,
        http=http,
        key=lambda name: _key_value(credentials, name),
        timeouts=config.timeouts,
        max_retries=config.chat.max_retries,
        find_local=lambda: find(places(config.providers, bound.getsockname()[1])),
    )
    log_dir = world.folders.log if config.logging.file else None
    network = Network(http.tls, http.proxy)
    is_kept = config.storage.enabled and not world.demo  # trying it out leaves nothing behind
    kept_in = Path(config.storage.path or world.folders.data) if is_kept else None
    attachments = Attachments(None if kept_in is None else kept_in / "attachments")
    database = Database(None if kept_in is None else kept_in / DATABASE, recover=recover)
    conversations = Conversations(database, events.publish)
    history = History(database, conversations, events.publish)
    elicitations = Elicitations(
        timeout_s=config.mcp.approval_timeout_s, check=check_form, publish=events.publish
    )
    host = Host(
        _servers(world.settings, demo=world.demo),
        log_dir=log_dir,
        notes_dir=world.folders.data / "mcp-running",
        memory_dir=world.folders.data / "mcp-known" if is_kept else None,
        network=network,
        vault=Vault(kept_in and kept_in / TOKENS, world.keyring, world.redact),
        reveal=partial(_revealed, world.keyring, world.redact),
        ask=elicitations.ask,
        save=attachments.save,
        emit=events.publish,
    )
    settings = LiveSettings(world.settings)

    def settings_changed(_: Loaded, loaded: Loaded) -> None:
        host.reconcile(_servers(loaded, demo=world.demo))
        events.publish(ConfigChanged(data=ConfigRevision(revision=loaded.revision)))

    settings.listen(settings_changed)
    rules = Rules(world.folders.data / "rules.json" if is_kept else None)
    rules.load()
    approvals = Approvals(
        rules=rules,
        tools=host,
        timeout_s=config.mcp.approval_timeout_s,
        publish=events.publish,
    )
    tls = config.server.tls
    context = tls_context(tls.cert, tls.key) if tls.cert and tls.key else None
    is_chosen = world.settings.sources["server.port"] != "default"
    bound = bind(config.server.host, config.server.port, may_move=not is_chosen)
    sessions = Sessions(monotonic, world.redact)
    door_key = DoorKey(world.keyring, world.redact)
    gate = Gate(
        scheme="https" if context else "http",
        host=config.server.host,
        port=bound.getsockname()[1],
        token=world.token,
        sessions=sessions,
        allowed_hosts=config.server.allowed_hosts,
        allowed_origins=config.server.allowed_origins,
        opens_door=door_key.is_right,
        now=monotonic,
    )
    async with asyncio.TaskGroup() as group:
        runs = Runs(
            group,
            conversations=conversations,
            models=providers,
            tools=host,
            approvals=approvals,
            attachments=attachments,
            defaults=_defaults(config.chat),
            publish=events.publish,
        )
        services = Services(
            instance=uuid4().hex,
            runs=runs,
            attachments=attachments,
            history=history,
            approvals=approvals,
            elicitations=elicitations,
            host=host,
            providers=providers,
            credentials=credentials,
            entries=Entries(settings, host, world.keyring),
            settings=settings,
            keyring=world.keyring,
            folders=world.folders,
            publish=events.publish,
            stop=lifetime.stop,
            greeted=asyncio.Event(),
        )
        door = Door(runs, providers.known_models, config.chat.model)
        server = Server(
            bound,
            context,
            gate,
            sessions,
            door_key,
            door.routes(),
            Handlers(services),
            events,
            {"approvals": approvals.questions, "elicitations": elicitations.questions},
            AttachmentRoutes(attachments),
        )
        await server.start()
        app = App(
            http=gate.origin,
            address=bound.getsockname()[:2],
            token=world.token,
            group=group,
            events=events,
            server=server,
            sessions=sessions,
            runs=runs,
            approvals=approvals,
            elicitations=elicitations,
            host=host,
            providers=providers,
            attachments=attachments,
            history=history,
            settings=settings,
            default_model=config.chat.model,
            greeted=services.greeted,
        )
        lifetime.kill_with(host.kill_now)
        log.info("listening", address=app.http)
        try:
            yield app
        finally:
            await app.close(lifetime.reason)
            await conversations.close()
            await database.close()
            attachments.close()


def open_credentials(
    sections: Mapping[str, ProviderConfig],
    keyring: Keyring,
    environ: Mapping[str, str],
    redact: Callable[[str], None],
) -> Credentials:
    """The keys of these providers; plain values, since a key's room knows no settings."""
    vendors = [
        Vendor(name, section.kind, section.base_url, section.api_key)
        for name, section in sections.items()
    ]
    return Credentials(vendors, keyring, environ, redact)


async def _key_value(credentials: Credentials, name: str) -> str | None:
    key = await credentials.get(name)
    return None if key is None else key.value


def _servers(settings: Loaded, *, demo: bool) -> Mapping[str, McpServerConfig]:
    servers = settings.config.mcp.servers
    return {DEMO_SERVER: demo_entry(), **servers} if demo else servers


async def _revealed(
    keyring: Keyring, redact: Callable[[str], None], names: Sequence[str]
) -> Mapping[str, str | None]:
    """The secrets of MCP servers. Raises KeyringUnavailable."""
    found = await keyring.read(names)
    for secret in found.values():
        if secret is not None:
            redact(secret)
    return found


def _defaults(chat: ChatConfig) -> Defaults:
    params = Params(temperature=chat.temperature, top_p=chat.top_p, max_tokens=chat.max_tokens)
    return Defaults(
        model=chat.model,
        system_prompt=chat.system_prompt,
        params=params,
        max_steps=chat.max_steps,
        has_model_titles=chat.titles == "model",
        compact_at=chat.compact_at,
    )

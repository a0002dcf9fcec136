"""One MCP server: keep it connected, know its tools, pass on calls.

A single task enters and leaves each session, because the SDK's scopes may not cross tasks. Death
of the server is normal: calls in flight fail, and it is started again, at growing intervals.
Publishes an immutable snapshot at every change. Knows nothing about models, turns or sockets.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Never
from urllib.parse import urlsplit

import structlog

from sidecar.config import McpServerConfig
from sidecar.errors import (
    Conflict,
    McpAuthRequired,
    McpCrashed,
    McpError,
    McpNeedsApproval,
    McpStartFailed,
    McpTimeout,
    SidecarError,
)
from sidecar.mcp_host import diagnosis
from sidecar.mcp_host.asking import Ask
from sidecar.mcp_host.authorizing import Authorizing
from sidecar.mcp_host.catalogue import ListedTool, cut, fingerprint, offered
from sidecar.mcp_host.challenge import Challenge
from sidecar.mcp_host.clock import Ticking
from sidecar.mcp_host.diagnosis import NotDelivered
from sidecar.mcp_host.environment import Launch, resolve
from sidecar.mcp_host.guardian import Guardian
from sidecar.mcp_host.hiding import hiding
from sidecar.mcp_host.memory import Known, Memory, Mode
from sidecar.mcp_host.secrets import Reveal, revealed
from sidecar.mcp_host.stderr import ServerLog
from sidecar.mcp_host.stdio import ServerProcess, StdioTransport, open_process
from sidecar.mcp_host.vault import Vault
from sidecar.mcp_host.warnings import warnings
from sidecar.messages import ErrorInfo, JsonObject, Tool, now
from sidecar.protocol.frames import error_info
from sidecar.protocol.mcp import McpServerStatus, ServerState, Transport
from sidecar.threads import load_modules, run_in_thread

if TYPE_CHECKING:
    import ssl

    from mcp.client import Transport as SdkTransport
    from mcp_types import CallToolResult

    from sidecar.mcp_host.http import Way
    from sidecar.mcp_host.session import Session

log = structlog.get_logger()

CONNECT_S = 30.0
DOWNLOAD_S = 120.0  # the first run of a package runner downloads the package
PACKAGE_RUNNERS = frozenset(
    ("npx", "bunx", "pnpm", "yarn", "uvx", "uv", "pipx", "docker", "podman", "deno")
)
LIST_S = 15.0
RELIST_S = 30.0  # after a list that failed
REFRESH_S = (0.25, 10.0)  # before a changed list is asked for: a server may announce five at once
CALM_S = 2.0  # without a change, and the next one is not put off
SLOT_S = 5.0  # a server that hangs or downloads is no reason for others to wait any longer
BACKOFF_S = (0.5, 60.0)
HEALTHY_S = 60.0  # a session of this length forgives what was before
FAILURES = 5  # within FAILURES_S, then a process is not started again by itself
FAILURES_S = 300.0
STDERR_LINES = 20  # in an error
SHOWN_BYTES = 128  # of a tool's name that is no good

SESSION_MODULES = ("jsonschema", "sidecar.mcp_host.session", "sidecar.mcp_host.sse")
NO_STREAMABLE_HTTP = frozenset((404, 405, 406))  # answers to a POST where only SSE is spoken


@dataclass(frozen=True, slots=True)
class Network:
    """How a URL is reached: whom to trust, and the proxy for it. Both may raise SidecarError."""

    tls: Callable[[], Awaitable["ssl.SSLContext"]]
    proxy: Callable[[str], Awaitable[str | None]]

    async def way_to(self, url: str) -> tuple["ssl.SSLContext | None", str | None]:
        proxy = await self.proxy(url)
        is_tls = "https" in (urlsplit(url).scheme, urlsplit(proxy or "").scheme)
        return await self.tls() if is_tls else None, proxy


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server at one moment. `tools` are those of its last list, kept while it is restarted."""

    status: McpServerStatus
    tools: tuple[ListedTool, ...]


class McpServer:
    def __init__(
        self,
        name: str,
        config: McpServerConfig,
        log_file: Path | None,
        network: Network,
        vault: Vault,
        reveal: Reveal,
        ask: Ask,
        guardian: Guardian,
        memory: Memory,
        on_change: Callable[[Snapshot], None],
    ) -> None:
        """`on_change` is called from the event loop and never waits."""
        self.name = name
        self.config = config
        self._hide = hiding(config)
        self.log = ServerLog(log_file, self._hide)
        self.settled = asyncio.Event()  # not starting
        self.has_settled = False  # at least once
        self._decided = asyncio.Event()  # neither starting nor about to
        self._network = network
        self._reveal = reveal
        self._ask = ask
        self._revealed = config  # with its secrets, when it is started
        self.first_news = asyncio.Event()  # it is known what it starts, or why not
        self._guardian = guardian
        self._memory = memory
        self._known: Known | None = None
        self._on_change = on_change
        self._fingerprint = fingerprint(config, None)
        self._warnings = warnings(config)
        self.authorizing = Authorizing(
            name, config, vault, network.way_to, reveal, self._sign_in_ended
        )
        self._listed: tuple[ListedTool, ...] = ()
        self._tools: tuple[ListedTool, ...] = ()  # of these, the ones that are offered
        self._list_error: McpError | None = None
        self._permission_error: McpError | None = None  # of what a request wanted more for
        self._era: str | None = None
        self._mode: Mode = "auto"
        self._transport = self._configured_transport
        self._since = now()
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._attempts = 0
        self._is_ending = False
        # of the present life
        self._process: ServerProcess | None = None
        self._session: Session | None = None
        self._over = asyncio.Event()
        self._ready_at: float | None = None
        self._deadline: asyncio.Timeout | None = None
        self._changed = asyncio.Event()
        self._can_start = True
        self._is_queued = False  # for a slot to start in
        # of a server that sleeps: its tools are known, and it is started when one is called
        self._is_unproven = False  # its tools are offered, but it has not run yet
        self._is_unused = False
        self._calls = 0
        self._used_at = 0.0
        self._wanted = asyncio.Event()  # by a call, or by somebody who asked for a restart
        # of a restart that somebody asked for
        self._restart = asyncio.Event()
        self._restarted = asyncio.Event()
        self.snapshot = self._snapshot("starting" if config.enabled else "disabled", None)
        self._mark(self.snapshot.status.state)

    async def run(self, starts: asyncio.Semaphore) -> None:
        """Supervise until cancelled; `starts` bounds how many servers start at once."""
        if not self.config.enabled:
            self.first_news.set()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                self.authorizing.open(tasks)
                await self._supervise(starts)
        finally:
            self._tools = ()
            self._publish("stopped")
            self._restarted.set()
            self.log.close()

    def will_end(self) -> None:
        """To be called before `run` is cancelled."""
        self._is_ending = True

    async def _supervise(self, starts: asyncio.Semaphore) -> Never:
        may_sleep = await self._recall() and self.config.start == "lazy"
        while True:
            if may_sleep:
                await self._sleep()
            self._restart.clear()
            failure = await self._life(starts)
            if self._ready_at is None:  # what was known of it may be why
                self._mode = "auto"
                self._transport = self._configured_transport
            may_sleep = self._is_unused and not self._restart.is_set()
            if not may_sleep and not self._restart.is_set():
                await self._rest(failure)

    async def restart(self) -> None:
        """Returns when the old session and process are gone and new ones are starting.

        Raises Conflict for a server that is not supervised.
        """
        if not self.config.enabled:
            raise Conflict(
                f"The MCP server {self.name} is disabled; "
                f"set `mcp.servers.{self.name}.enabled` to true to use it."
            )
        if self.snapshot.status.state == "stopped":
            raise Conflict(f"The MCP server {self.name} is stopped for good: sidecar is ending.")
        self._failures.clear()
        self._attempts = 0
        if self._is_queued:
            return
        self._restarted.clear()
        self._restart.set()
        self._wanted.set()
        self._lose()
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())
        await self._restarted.wait()

    async def until_decided(self, timeout_s: float) -> None:
        """Wait for a start or a restart to succeed or fail for good; at most `timeout_s`.

        One that sleeps or rests is started at once; one that has not run yet is given the time
        that its start may take.
        """
        if self._session is None:
            self._wanted.set()
            if self.snapshot.status.state == "idle":
                self._decided.clear()
        if self._is_unproven:
            timeout_s = self._connect_timeout_s + LIST_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._decided.wait()

    async def call_tool(
        self, tool: Tool, arguments: JsonObject, ticking: Ticking
    ) -> "CallToolResult":
        """Raises NotDelivered and what `Session.call_tool` raises.

        What was allowed is what runs: nothing else may happen between the comparison and the call.
        """
        if self._session is None:
            status = self.snapshot.status
            raise NotDelivered(
                status.error or f"The MCP server {self.name} is not connected ({status.state}).",
                server=self.name,
            )
        if not self._still_has(tool):
            raise NotDelivered(
                "The tool changed since this turn began; it can be called in the next one.",
                server=self.name,
            )
        with self._in_use():
            return await self._session.call_tool(tool.server_name, arguments, ticking)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._used_at = time.monotonic()

    def _still_has(self, tool: Tool) -> bool:
        return tool.fingerprint == self._fingerprint and any(
            (known.name, known.digest) == (tool.server_name, tool.digest) for known in self._tools
        )

    def kill_now(self) -> None:
        """Synchronous; the supervisor notices by itself."""
        if self._process is not None:
            self._process.kill_now()

    # ---- one life -------------------------------------------------------------------------

    async def _life(self, starts: asyncio.Semaphore) -> McpError:
        """From `starting` until nothing is left of it; says why it ended."""
        self._over = asyncio.Event()
        self._ready_at = None
        self._permission_error = None
        self._is_unused = False
        self._can_start = True
        self._publish("starting")
        self._restarted.set()
        async with self._slot(starts) as give_back:
            try:
                if self.config.url is not None:
                    self._check_approved()
                    self._revealed = await revealed(self.name, self.config, self._reveal)
                    return await self._url_life(self.config.url, give_back)
                return await self._stdio_life(await self._resolved(), give_back)
            except McpNeedsApproval as error:
                return error
            except McpStartFailed as error:  # nothing was started
                self._can_start = False
                return error

    @contextlib.asynccontextmanager
    async def _slot(self, starts: asyncio.Semaphore) -> AsyncIterator[Callable[[], None]]:
        """Yields how to give the slot back early, as soon as it is ready."""
        self._is_queued = True
        try:
            await starts.acquire()
        finally:
            self._is_queued = False
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                starts.release()

        timer = asyncio.get_running_loop().call_later(SLOT_S, give_back)
        try:
            yield give_back
        finally:
            timer.cancel()
            give_back()

    async def _resolved(self) -> Launch:
        launch = await self._found(self.config)
        self._fingerprint = fingerprint(self.config, launch.executable)
        self._check_approved()
        self._revealed = await revealed(self.name, self.config, self._reveal)
        return launch if self._revealed is self.config else await self._found(self._revealed)

    async def _found(self, config: McpServerConfig) -> Launch:
        return await run_in_thread(
            partial(resolve, self.name, config), f"find MCP server {self.name}"
        )

    def _check_approved(self) -> None:
        """Raises McpNeedsApproval. What a person wrote into their file is approved by that."""
        if self.config.approved not in (None, self._fingerprint):
            raise McpNeedsApproval(
                f"The MCP server {self.name} waits for you: a client added it, or what it starts "
                "has changed since you agreed to it. Look at what it starts, then approve it.",
                server=self.name,
            )

    async def _stdio_life(self, launch: Launch, give_back: Callable[[], None]) -> McpError:
        failure, ended_itself = await self._stdio_session(launch, give_back)
        was_probed = self._mode == "auto" and self._ready_at is None
        if ended_itself and was_probed and not self._restart.is_set():
            # some old servers end on a request that they do not know, such as the probe
            self._over = asyncio.Event()
            self._mode = "legacy"
            failure, _ = await self._stdio_session(launch, give_back)
        return failure

    async def _stdio_session(
        self, launch: Launch, give_back: Callable[[], None]
    ) -> tuple[McpError, bool]:
        """Why it ended, and whether the process ended by itself."""
        said_before = self.log.count
        process = await open_process(self.name, launch, self._guardian, self.log, self._lose)
        self._process = process
        self._publish("starting")  # now with a pid
        try:
            await load_modules(*SESSION_MODULES)
            error = await self._serve(StdioTransport(process), give_back)
        finally:
            await process.close()
            self._process = None
        stderr = self.log.since(said_before, STDERR_LINES)
        if isinstance(error, McpTimeout):
            return diagnosis.silent(self.name, self._connect_timeout_s, stderr), False
        ended_itself = process.exit_code is not None and not process.was_killed
        failure = diagnosis.stdio_failure(
            self.name,
            was_ready=self._ready_at is not None,
            exit_code=process.exit_code if ended_itself else None,
            fault=process.fault,
            junk=process.junk,
            stderr=stderr,
            error=error,
        )
        return failure, ended_itself

    async def _url_life(self, url: str, give_back: Callable[[], None]) -> McpError:
        """Where the settings leave it open: streamable HTTP, and what came before it if not."""
        await load_modules(*SESSION_MODULES)
        from sidecar.mcp_host.http import Way

        tls, proxy = await self._way_to(url)
        way = Way(url, self._revealed.headers, tls, proxy, await self.authorizing.auth(url))
        failure, status = await self._url_session(way, give_back)
        is_open = self.config.transport == "auto" and self._transport == "http"
        if is_open and self._ready_at is None and status in NO_STREAMABLE_HTTP:
            self._over = asyncio.Event()
            self._transport = "sse"
            guessed, _ = await self._url_session(way, give_back)
            if self._ready_at is not None or isinstance(guessed, McpAuthRequired):
                return guessed
        return failure

    async def _url_session(
        self, way: "Way", give_back: Callable[[], None]
    ) -> tuple[McpError, int | None]:
        """Why it ended, and the last status that the server answered with."""
        from sidecar.mcp_host.http import HttpWatch, http_transport
        from sidecar.mcp_host.sse import sse_transport

        watch = HttpWatch(self._lose, None if way.auth is None else self._more_wanted)
        opened = sse_transport if self._transport == "sse" else http_transport
        error = await self._serve(opened(way, watch), give_back)
        self.authorizing.challenge = watch.challenge or self.authorizing.challenge
        if isinstance(error, McpTimeout):
            return diagnosis.silent(self.name, self._connect_timeout_s, ()), watch.status
        challenge = watch.challenge
        if challenge is not None and not self.authorizing.is_worth_asking(challenge):
            return diagnosis.not_enough(self.name, challenge), watch.status
        failure = diagnosis.http_failure(
            self.name,
            way.url,
            was_ready=self._ready_at is not None,
            status=watch.status,
            challenge=watch.challenge,
            advice=self.authorizing.advice(),
            fault=watch.fault,
            error=error,
        )
        return failure, watch.status

    def _more_wanted(self, challenge: Challenge) -> None:
        """The session goes on with what is allowed."""
        if not self.authorizing.is_worth_asking(challenge):
            log.warning("mcp_permission_not_enough", server=self.name)
            return
        self.authorizing.challenge = challenge
        self._permission_error = diagnosis.unauthorized(
            self.name, self.name, challenge, self.authorizing.advice()
        )
        if self._session is not None:
            self._publish_listed()

    async def _sign_in_ended(self, failure: McpAuthRequired | None) -> None:
        """Go on as whoever has signed in; who did not is told why, where it matters."""
        if failure is not None:
            if self.snapshot.status.state == "needs_auth":
                self._publish("needs_auth", failure)
        elif self._session is not None and self._permission_error is not None:
            self._permission_error = None  # the next request has the new token
            self._changed.set()
        else:
            await self.restart()

    async def _way_to(self, url: str) -> tuple["ssl.SSLContext | None", str | None]:
        try:
            return await self._network.way_to(url)
        except SidecarError as error:
            raise McpStartFailed(
                f"The MCP server {self.name} cannot be reached. {error}", server=self.name
            ) from error

    async def _serve(
        self, transport: "SdkTransport", give_back: Callable[[], None]
    ) -> Exception | None:
        """Connect and stay until the session is over. Returns the error that ended it, if any."""
        error: Exception | None = None
        try:
            async with contextlib.AsyncExitStack() as stack:
                session = await self._connected(transport, stack)
                await self._attend(session, give_back)
        except Exception as problem:  # the SDK and its transports raise what they like, in groups
            error = problem
        except asyncio.CancelledError:
            if self._is_stopped():
                raise
            # it came from the transport's own scope: the connection broke, nobody stops us
        finally:
            self._session = None
            self._era = None
        if self._is_stopped():
            raise asyncio.CancelledError  # an error in closing had taken its place
        return error

    def _is_stopped(self) -> bool:
        """Whether a cancellation is ours, and not one of the transport's own scopes.

        A scope that closes at that moment takes ours for its own, and counts it as done.
        """
        task = asyncio.current_task()
        return self._is_ending or (task is not None and task.cancelling() > 0)

    def _lose(self) -> None:
        """The session is of no more use; whoever calls a tool now waits for the next one."""
        self._session = None
        self._decided.clear()
        self._over.set()

    async def _connected(
        self, transport: "SdkTransport", stack: contextlib.AsyncExitStack
    ) -> "Session":
        from sidecar.mcp_host.session import connect

        self._changed.clear()
        mode: Mode = "legacy" if self._transport == "sse" else self._mode  # no later MCP speaks it
        try:
            async with self._limit(self._connect_timeout_s):
                return await stack.enter_async_context(
                    connect(
                        self.name,
                        transport,
                        mode,
                        self._changed.set,
                        self._left_out,
                        self._ask,
                    )
                )
        except TimeoutError as error:
            raise McpTimeout("no answer", server=self.name) from error

    async def _attend(self, session: "Session", give_back: Callable[[], None]) -> None:
        """List the tools and keep the list true, until the session is over."""
        self._era = session.era
        await self._list(session)
        if self._over.is_set():
            return
        self._session = session
        self._mode = self._next_mode(session)
        self._ready_at = self._used_at = time.monotonic()
        self._is_unproven = False
        self._wanted.clear()
        self._publish_listed()
        give_back()
        await self._remember(session)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(session.watch(self._changed)),
                group.create_task(self._follow_changes(session)),
                group.create_task(self._stop_when_unused()),
            ]
            await self._over.wait()
            for task in tasks:
                task.cancel()
        if not self._restart.is_set() and not self._is_unused:
            gone = McpCrashed(
                f"The MCP server {self.name} went away; it is being started again.",
                server=self.name,
            )
            self._publish("backoff", gone)  # the cause is known when its process has ended

    async def _follow_changes(self, session: "Session") -> None:
        """One that announces changes on and on is asked less and less often."""
        pause_s, longest_s = REFRESH_S
        listed_at = -CALM_S
        while True:
            await self._until_stale()
            is_calm = time.monotonic() - listed_at > CALM_S
            pause_s = REFRESH_S[0] if is_calm else min(2 * pause_s, longest_s)
            await asyncio.sleep(pause_s)
            self._changed.clear()
            await self._list(session)
            listed_at = time.monotonic()
            if not self._over.is_set():
                self._publish_listed()
                await self._remember(session)

    async def _until_stale(self) -> None:
        """Something changed; where it could not be listed, some time is enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._list_error is None else RELIST_S):
                await self._changed.wait()

    async def _list(self, session: "Session") -> None:
        """The old list stays when there is no new one."""
        try:
            async with self._limit(LIST_S):
                self._listed = await session.list_tools()
                self._tools = offered(self.config, self._listed)
            self._list_error = None
        except TimeoutError:
            self._list_error = McpTimeout(
                f"The MCP server {self.name} did not list its tools within {LIST_S:g} s; it is "
                "asked again, or restart it.",
                server=self.name,
            )
        except McpError as error:
            self._list_error = error

    @contextlib.asynccontextmanager
    async def _limit(self, limit_s: float) -> AsyncIterator[None]:
        """A timeout that a restart cuts short."""
        try:
            limit_s = 0 if self._restart.is_set() else limit_s
            async with asyncio.timeout(limit_s) as self._deadline:
                yield
        finally:
            self._deadline = None

    async def _stop_when_unused(self) -> None:
        """Where the settings want it; it is started again by the next call."""
        limit_s = self.config.idle_stop_s
        if limit_s is None:
            return
        while True:
            left_s = limit_s if self._is_busy else self._used_at + limit_s - time.monotonic()
            if left_s <= 0:
                break
            await asyncio.sleep(left_s)
        self._is_unused = True
        self._lose()

    @property
    def _is_busy(self) -> bool:
        """Or its tools are not known, so that no call could ever start it again."""
        return self._calls > 0 or self._list_error is not None

    @property
    def _configured_transport(self) -> Transport:
        if self.config.url is None:
            return "stdio"
        return "sse" if self.config.transport == "sse" else "http"

    @property
    def _connect_timeout_s(self) -> float:
        if self.config.connect_timeout_s is not None:
            return self.config.connect_timeout_s
        is_runner = PurePath(self.config.command or "").stem in PACKAGE_RUNNERS
        return DOWNLOAD_S if is_runner else CONNECT_S

    def _left_out(self, kind: str, name: str, reason: str) -> None:
        name = cut(name, SHOWN_BYTES)
        self.log.note(f"sidecar: the {kind} {name!r} is left out: {reason}")
        log.warning("mcp_entry_left_out", server=self.name, kind=kind, name=name, reason=reason)

    # ---- what is known of it from one life to the next, and from one run ------------------

    async def _recall(self) -> bool:
        """Whether its tools are known from an earlier run; they are offered from now on."""
        if not self._memory.is_kept:
            return False
        try:
            if self.config.url is None:
                launch = await self._found(self.config)
                self._fingerprint = fingerprint(self.config, launch.executable)
            self._check_approved()
        except McpError:
            return False  # its life will tell
        self._known = await self._memory.load(self.name, self._fingerprint)
        if self._known is None:
            return False
        self._mode = self._known.mode
        if self.config.transport == "auto":
            self._transport = self._known.transport
        self._tools = offered(self.config, self._known.tools)
        self._is_unproven = self.has_settled = True
        return True

    async def _remember(self, session: "Session") -> None:
        if self._list_error is not None:
            return
        known = Known(
            fingerprint=self._fingerprint,
            transport=self._transport,
            mode=self._mode,
            version=session.version,
            tools=self._listed,
        )
        if known != self._known:
            self._known = known
            await self._memory.save(self.name, known)

    def _next_mode(self, session: "Session") -> Mode:
        """An old server need not be asked again what it is, until it is another version."""
        if session.is_modern:
            return "auto"
        known = self._known
        is_news = self._mode == "legacy" and known is not None and known.version != session.version
        return "auto" if is_news else "legacy"

    # ---- between lives --------------------------------------------------------------------

    async def _sleep(self) -> None:
        """Until a tool is called, or somebody asks for a restart."""
        self._is_unproven = True
        if not self._wanted.is_set():
            self._publish("idle")
        await self._wanted.wait()

    async def _rest(self, failure: McpError) -> None:
        """Wait for the next try, or for somebody to want it now."""
        self._is_unproven = False
        self._wanted.clear()
        state, delay_s = self._verdict(failure)
        if state != "backoff":
            self._tools = ()
        log.warning("mcp_server_down", server=self.name, state=state, code=failure.code)
        self._publish(state, failure)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                # a call cannot mend what needs a person
                await (self._wanted if state == "backoff" else self._restart).wait()

    def _verdict(self, failure: McpError) -> tuple[ServerState, float | None]:
        if isinstance(failure, McpAuthRequired):
            return "needs_auth", None
        if isinstance(failure, McpNeedsApproval):
            return "needs_approval", None
        ended_at = time.monotonic()
        if self._ready_at is not None and ended_at - self._ready_at >= HEALTHY_S:
            self._failures.clear()
            self._attempts = 0
        self._failures.append(ended_at)
        first_s, longest_s = BACKOFF_S
        delay_s: float = min(longest_s, first_s * 2**self._attempts) * random.uniform(0.5, 1)
        self._attempts += 1
        is_full = len(self._failures) == FAILURES and ended_at - self._failures[0] < FAILURES_S
        if not self._can_start:
            return "failed", None  # time alone does not install a command
        if is_full and self.config.url is None:  # to ask a url again starts no process
            return "failed", None
        return "backoff", delay_s

    # ---- what others see ------------------------------------------------------------------

    def _publish_listed(self) -> None:
        error = self._permission_error or self._list_error  # the first may be why of the second
        if error is None:
            self._publish("ready")
        else:
            log.warning("mcp_server_degraded", server=self.name, code=error.code)
            self._publish("degraded", error)

    def _publish(self, state: ServerState, error: McpError | None = None) -> None:
        if state != self.snapshot.status.state:
            self._since = now()
        self.snapshot = self._snapshot(state, error)
        if state != "starting" or self.snapshot.status.pid is not None:
            self.first_news.set()
        self._mark(state)
        self._on_change(self.snapshot)

    def _mark(self, state: ServerState) -> None:
        if state == "starting":
            self.settled.clear()
        else:
            self.settled.set()
            self.has_settled = True
        if state in ("starting", "backoff"):
            self._decided.clear()
        else:
            self._decided.set()

    def _snapshot(self, state: ServerState, error: McpError | None) -> Snapshot:
        return Snapshot(
            McpServerStatus(
                server=self.name,
                transport=self._transport,
                state=state,
                era=self._era,
                fingerprint=self._fingerprint,
                error=None if error is None else self._hide(str(error)),
                error_info=None if error is None else self._info(error),
                warnings=self._warnings,
                authorization=self.authorizing.status(),
                tools=len(self._tools),
                pid=None if self._process is None else self._process.pid,
                since=self._since,
            ),
            self._tools,
        )

    def _info(self, error: McpError) -> ErrorInfo:
        info = error_info(error)
        detail = None if info.detail is None else self._hide(info.detail)
        return info.model_copy(update={"detail": detail})

"""All the person's MCP servers: their states, their tools, and the calls.

Owns one supervisor per configured server and nothing else. Knows no model, no turn, no socket
and no rule: whoever calls a tool here has already been allowed to.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Never

from sidecar.chat.base import OnProgress
from sidecar.config import McpServerConfig
from sidecar.errors import Conflict, NotFound
from sidecar.mcp_host.asking import Ask
from sidecar.mcp_host.authorizing import Authorizing, Invitation
from sidecar.mcp_host.calls import Save, run_call
from sidecar.mcp_host.catalogue import ListedTool, Shelf, merge
from sidecar.mcp_host.clock import RECONNECT_S, Clock
from sidecar.mcp_host.guardian import Guardian
from sidecar.mcp_host.memory import Memory
from sidecar.mcp_host.run_notes import RunNotes, sweep
from sidecar.mcp_host.schema_check import check
from sidecar.mcp_host.secrets import Reveal
from sidecar.mcp_host.server import McpServer, Network, Snapshot
from sidecar.mcp_host.vault import Vault
from sidecar.messages import JsonObject, Tool, ToolResultPart
from sidecar.protocol.base import TOOL_CALLS
from sidecar.protocol.mcp import (
    McpServerStateChanged,
    McpServerStatus,
    McpToolsChanged,
    ToolsChanged,
)
from sidecar.threads import run_in_thread

STARTS = 4  # at once; more only slow each other down
CALLS_PER_SERVER = 8
FIRST_START_S = 20.0  # a chat is not held up for longer by a server that hangs or downloads


class Host:
    """Implements `chat.base.ToolSource`."""

    def __init__(
        self,
        servers: Mapping[str, McpServerConfig],
        *,
        log_dir: Path | None,
        notes_dir: Path | None,
        memory_dir: Path | None,
        network: Network,
        vault: Vault,
        reveal: Reveal,
        ask: Ask,
        save: Save,
        emit: Callable[[McpServerStateChanged | McpToolsChanged], None],
    ) -> None:
        """`emit` is called from the event loop and never waits; `log_dir` exists.

        `notes_dir` has the notes of the servers that run, also of those of killed processes,
        `memory_dir` what is known of a server from one run to the next.
        `vault` has what authorization servers gave us, `reveal` knows the secrets that entries
        refer to. `ask` has a person answer what servers want to know. `save` keeps the media of
        results and returns their attachment_id.
        """
        self._save = save
        self._emit = emit
        self._notes_dir = notes_dir
        self._guardian = Guardian(None if notes_dir is None else RunNotes(notes_dir))
        self._memory = Memory(memory_dir)
        self._log_dir = log_dir
        self._network = network
        self._vault = vault
        self._reveal = reveal
        self._ask = ask
        self._servers: dict[str, McpServer] = {}
        self._wanted = dict(servers)
        self._supervised: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._placed = asyncio.Event()
        self._shown: dict[str, Snapshot] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._all_slots = asyncio.Semaphore(TOOL_CALLS)
        self._tools: tuple[Tool, ...] = ()
        self._began_at = float("inf")
        for name, config in servers.items():
            self._place(name, config)

    async def run(self) -> None:
        """Supervise all servers until cancelled; then close them together, within 6 s."""
        self._began_at = time.monotonic()
        starts = asyncio.Semaphore(STARTS)
        if self._notes_dir is not None:
            await run_in_thread(partial(sweep, self._notes_dir), "end leftover MCP servers")
        await self._memory.keep_only(self._servers)
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers.values():
                    self._supervise(group, server, starts)
                try:
                    await self._keep_settled(group, starts)
                finally:
                    for server in self._servers.values():
                        server.will_end()  # and then the group cancels them
        finally:
            self.kill_now()  # none is left here, unless a second cancellation came
            self._guardian.close()

    async def _keep_settled(self, group: asyncio.TaskGroup, starts: asyncio.Semaphore) -> Never:
        while True:
            await self._news.wait()
            self._news.clear()
            for name in (*self._servers, *self._wanted):
                await self._settle(name, group, starts)

    def reconcile(self, servers: Mapping[str, McpServerConfig]) -> None:
        """These are the servers from now on: what differs is ended, begun or begun anew.

        Each is there once at most: the next one begins when nothing is left of the one before.
        """
        self._wanted = dict(servers)
        self._news.set()

    def status(self, name: str) -> McpServerStatus:
        """Raises NotFound."""
        return self._server(name).snapshot.status

    async def settled_as(self, name: str, timeout_s: float) -> McpServerStatus:
        """Its status once it is what was wanted last, and known what it starts; at most so long.

        Raises NotFound where there is none of this name.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._as_wanted(name)
                if (server := self._servers.get(name)) is not None:
                    await server.first_news.wait()
        return self.status(name)

    async def gone(self, name: str, timeout_s: float) -> None:
        """Wait until nothing is left of a server that is wanted no more; at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._as_wanted(name)

    async def _as_wanted(self, name: str) -> None:
        while self._config_of(name) != self._wanted.get(name):
            self._placed.clear()
            await self._placed.wait()

    def _config_of(self, name: str) -> McpServerConfig | None:
        server = self._servers.get(name)
        return None if server is None else server.config

    def _place(self, name: str, config: McpServerConfig) -> McpServer:
        log_file = None if self._log_dir is None else self._log_dir / f"mcp-{name}.log"
        server = McpServer(
            name,
            config,
            log_file,
            self._network,
            self._vault,
            self._reveal,
            self._ask,
            self._guardian,
            self._memory,
            self._changed,
        )
        self._servers[name] = server
        self._shown[name] = server.snapshot
        self._slots.setdefault(name, asyncio.Semaphore(CALLS_PER_SERVER))
        return server

    def _supervise(
        self, group: asyncio.TaskGroup, server: McpServer, starts: asyncio.Semaphore
    ) -> None:
        self._supervised[server.name] = group.create_task(
            server.run(starts), name=f"mcp {server.name}"
        )

    async def _settle(self, name: str, group: asyncio.TaskGroup, starts: asyncio.Semaphore) -> None:
        """Make one server what is wanted of it now."""
        server, config = self._servers.get(name), self._wanted.get(name)
        if server is not None and server.config == config:
            return
        if server is not None:
            task = self._supervised.pop(name)
            server.will_end()
            task.cancel()
            await asyncio.wait([task])
            del self._servers[name], self._shown[name]
            self._merge()
        if config is not None:
            server = self._place(name, config)
            self._emit(McpServerStateChanged(data=server.snapshot.status))
            self._supervise(group, server, starts)
        else:
            await self._memory.keep_only(self._servers)
        self._placed.set()

    def statuses(self) -> tuple[McpServerStatus, ...]:
        return tuple(server.snapshot.status for server in self._servers.values())

    def tools(self) -> Sequence[Tool]:
        """Of all servers that are there or coming back, sorted by name."""
        return self._tools

    def starting(self) -> Sequence[str]:
        """Servers whose tools are not known yet, but may be soon: in their first start."""
        if time.monotonic() - self._began_at > FIRST_START_S:
            return ()
        return [server.name for server in self._servers.values() if not server.has_settled]

    async def restart(self, name: str) -> McpServerStatus:
        """Returns when the old process is gone and the new one is starting.

        Raises NotFound, and Conflict for a disabled server.
        """
        server = self._server(name)
        await server.restart()
        return server.snapshot.status

    async def authorize(self, name: str) -> Invitation:
        """Begin to sign in. Raises NotFound, Conflict, and McpAuthRequired when that fails."""
        server = self._server(name)
        if server.snapshot.status.state == "needs_approval":
            raise Conflict(f"The MCP server {name} waits for your approval; then sign in to it.")
        return await server.authorizing.begin()

    async def cancel_authorizing(self, name: str) -> None:
        """Raises NotFound."""
        await self._server(name).authorizing.cancel()

    async def revoke(self, name: str) -> None:
        """Sign out, and connect again as nobody. Raises NotFound and Conflict."""
        server = self._server(name)
        if await server.authorizing.revoke() and server.config.enabled:
            await server.restart()

    async def sign_out(self, name: str, config: McpServerConfig) -> None:
        """Of a server that is deleted, unless another entry leads to the same."""
        is_shared = any(other.url == config.url for other in self._wanted.values())
        authorizing = Authorizing(name, config, self._vault, self._network.way_to, self._reveal)
        if authorizing.is_possible and not is_shared:
            await authorizing.revoke()

    def logs(self, name: str, limit: int) -> tuple[str, ...]:
        """The last lines of its stderr, oldest first. Raises NotFound."""
        return self._server(name).log.tail(limit)

    async def settled(self) -> None:
        """Wait until no server is starting any more; the caller bounds it."""
        for server in self._servers.values():
            await server.settled.wait()

    def kill_now(self) -> None:
        """Kill every server's processes at once. Synchronous, for a second signal."""
        for server in self._servers.values():
            server.kill_now()

    async def check(self, tool: Tool, arguments: JsonObject) -> None:
        """Raises BadRequest for arguments that the tool's schema does not take."""
        await check(tool.input_schema, arguments, "arguments")

    async def call(
        self,
        tool: Tool,
        arguments: JsonObject,
        tool_call_id: str,
        on_progress: OnProgress,
    ) -> ToolResultPart:
        server = self._servers.get(tool.server)
        if server is None:
            return ToolResultPart(
                tool_call_id=tool_call_id,
                status="error",
                text=f"The MCP server {tool.server} is not configured any more.",
                duration_ms=0,
            )
        await server.until_decided(RECONNECT_S)  # a call right after a crash waits for the restart
        async with self._slots[tool.server], self._all_slots:
            return await run_call(
                server,
                tool,
                arguments,
                tool_call_id,
                on_progress,
                _clock(server.config),
                self._save,
            )

    def _server(self, name: str) -> McpServer:
        server = self._servers.get(name)
        if server is None:
            known = ", ".join(self._servers) or "none"
            raise NotFound(f"There is no MCP server {name}; there are: {known}.")
        return server

    def _changed(self, now: Snapshot) -> None:
        name = now.status.server
        before, self._shown[name] = self._shown[name], now
        if before.tools is not now.tools or before.status.fingerprint != now.status.fingerprint:
            self._merge()
        if before.status != now.status:
            self._emit(McpServerStateChanged(data=now.status))
        change = _difference(name, before.tools, now.tools)
        if change is not None:
            self._emit(McpToolsChanged(data=change))

    def _merge(self) -> None:
        self._tools = merge(
            Shelf(server.name, server.config, shown.status.fingerprint, shown.tools)
            for server, shown in zip(self._servers.values(), self._shown.values(), strict=True)
        )


def _clock(config: McpServerConfig) -> Clock:
    """A limit that the person set holds for silence too: they know that the tool is slow."""
    limit_s = config.call_timeout_s
    return Clock() if limit_s is None else Clock(limit_s, limit_s, min(limit_s, RECONNECT_S))


def _difference(
    server: str, before: Sequence[ListedTool], now: Sequence[ListedTool]
) -> ToolsChanged | None:
    if before is now:
        return None
    old = {tool.name: tool.digest for tool in before}
    new = {tool.name: tool.digest for tool in now}
    added = tuple(sorted(new.keys() - old.keys()))
    removed = tuple(sorted(old.keys() - new.keys()))
    changed = tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name]))
    if not (added or removed or changed):
        return None
    return ToolsChanged(server=server, added=added, removed=removed, changed=changed)

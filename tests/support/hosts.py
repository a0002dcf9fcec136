"""A running MCP host whose events a test can wait for, and servers for it."""

import asyncio
import contextlib
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sidecar.config import McpServerConfig
from sidecar.credentials import Keyring
from sidecar.mcp_host.asking import Question, Reply
from sidecar.mcp_host.host import Host
from sidecar.mcp_host.server import Network
from sidecar.mcp_host.vault import Vault
from sidecar.messages import Tool, ToolResultPart
from sidecar.protocol.mcp import (
    McpServerStateChanged,
    McpServerStatus,
    McpToolsChanged,
    ServerState,
    ToolsChanged,
)
from sidecar.redaction import redact_value
from sidecar.store.attachments import Attachments
from tests.support.keyrings import MemoryKeyring

PROJECT = Path(__file__).parents[2]
PATIENCE_S = 10.0  # on a machine that does other things too


async def nobody_answers(question: Question) -> Reply:
    return Reply("cancel")


async def no_secrets(names: Sequence[str]) -> Mapping[str, str | None]:
    raise AssertionError(f"nothing was kept as {names}")


async def _no_tls() -> ssl.SSLContext:
    raise AssertionError("nobody asked for https")


async def _no_proxy(url: str) -> str | None:
    return None


DIRECT = Network(_no_tls, _no_proxy)


def plain(**settings: Any) -> McpServerConfig:
    return _module("plain", **settings)


def faulty(fault: str, **settings: Any) -> McpServerConfig:
    return _module("faulty", fault, **settings)


def modern(module: str = "modern") -> McpServerConfig:
    return _module(module)


def _module(name: str, *args: str, **settings: Any) -> McpServerConfig:
    module = f"tests.support.servers.{name}"
    entry = {"command": sys.executable, "args": ("-m", module, *args), "cwd": str(PROJECT)}
    return McpServerConfig.model_validate({**entry, **settings})


class WatchedHost:
    """`server` and `tool` name what a test talks about; most have one server, `s`."""

    def __init__(
        self,
        servers: dict[str, McpServerConfig],
        log_dir: Path | None,
        notes_dir: Path | None,
        memory_dir: Path | None,
        network: Network,
        vault: Vault | None,
    ) -> None:
        self.events: list[McpServerStateChanged | McpToolsChanged] = []
        self.questions: list[Question] = []
        self.answer = nobody_answers
        self.pids: set[int] = set()
        self._happened = asyncio.Event()
        self.attachments = Attachments(None)
        self.host = Host(
            servers,
            log_dir=log_dir,
            notes_dir=notes_dir,
            memory_dir=memory_dir,
            network=network,
            vault=vault or Vault(None, Keyring("test", MemoryKeyring), redact_value),
            reveal=no_secrets,
            ask=self._ask,
            save=self.attachments.save,
            emit=self._emit,
        )

    async def _ask(self, question: Question) -> Reply:
        self.questions.append(question)
        self._happened.set()
        return await self.answer(question)

    def _emit(self, event: McpServerStateChanged | McpToolsChanged) -> None:
        self.events.append(event)
        if isinstance(event, McpServerStateChanged) and event.data.pid is not None:
            self.pids.add(event.data.pid)
        self._happened.set()

    def status(self, server: str = "s") -> McpServerStatus:
        return next(status for status in self.host.statuses() if status.server == server)

    def states(self, server: str = "s") -> list[str]:
        """Those it has been in, without repetitions."""
        seen: list[str] = []
        for event in self.events:
            if isinstance(event, McpServerStateChanged) and event.data.server == server:
                seen += [event.data.state] if event.data.state not in seen[-1:] else []
        return seen

    def tool_changes(self) -> list[ToolsChanged]:
        return [event.data for event in self.events if isinstance(event, McpToolsChanged)]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._happened.clear()
                await self._happened.wait()

    async def state(self, *states: ServerState, server: str = "s") -> McpServerStatus:
        await self.until(lambda: self.status(server).state in states)
        return self.status(server)

    async def said(self, line: str, times: int = 1, server: str = "s") -> str:
        """Wait until that many lines of stderr begin so; the last of them."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [said for said in self.host.logs(server, 200) if said.startswith(line)]
                if len(found) >= times:
                    return found[-1]
                await asyncio.sleep(0.005)  # what a child writes is no event of the host

    def tool(self, name: str, server: str = "s") -> Tool:
        return next(
            tool for tool in self.host.tools() if (tool.server, tool.server_name) == (server, name)
        )

    async def call(self, name: str, server: str = "s", **arguments: Any) -> ToolResultPart:
        async with asyncio.timeout(3 * PATIENCE_S):
            return await self.host.call(
                self.tool(name, server), arguments, "call-1", lambda *progress: None
            )


@contextlib.asynccontextmanager
async def running(
    *,
    log_dir: Path | None = None,
    notes_dir: Path | None = None,
    memory_dir: Path | None = None,
    network: Network = DIRECT,
    vault: Vault | None = None,
    **servers: McpServerConfig,
) -> AsyncIterator[WatchedHost]:
    """Started, and when left stopped; then no process of its servers is left."""
    watched = WatchedHost(servers, log_dir, notes_dir, memory_dir, network, vault)
    run = asyncio.create_task(watched.host.run())
    try:
        yield watched
    finally:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        watched.attachments.close()
    assert not [pid for pid in watched.pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until_dead(pid: int) -> None:
    """Also for a process that is not our child; its init may be slow to reap it."""
    give_up_at = time.monotonic() + PATIENCE_S
    while is_alive(pid) and not _is_zombie(pid):
        assert time.monotonic() < give_up_at, f"process {pid} is still there"
        time.sleep(0.01)  # nothing else runs


def _is_zombie(pid: int) -> bool:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@contextlib.asynccontextmanager
async def loop_watch() -> AsyncIterator[Callable[[], float]]:
    """Yields how to ask for the longest time, in seconds, that the event loop stood still."""
    worst_s = 0.0

    async def tick() -> None:
        nonlocal worst_s
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            worst_s = max(worst_s, loop.time() - before - 0.005)

    ticking = asyncio.create_task(tick())
    try:
        yield lambda: worst_s
    finally:
        ticking.cancel()

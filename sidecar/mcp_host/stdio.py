"""MCP over the pipes of a child process: spawn, frame, watch, stop, leave nothing behind.

The child leads a process tree (`tree.py`). Whatever ends it, the whole tree is killed at the end:
after a clean exit, after a crash, and when the task that owns it is cancelled; the steps are the
event loop's timers, not a task's awaits, so no cancellation can skip one. Should this process be
the one that is killed, the guardian takes the tree along. Knows JSON-RPC lines, and of what they
mean only which calls are unanswered. Spawning needs only asyncio, so a child can start while the
SDK loads.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from sidecar.errors import McpStartFailed
from sidecar.mcp_host.batch import batch_line, is_batch_file
from sidecar.mcp_host.environment import Launch
from sidecar.mcp_host.guardian import Guardian
from sidecar.mcp_host.stderr import ServerLog
from sidecar.mcp_host.streams import Incoming, Stream
from sidecar.mcp_host.tree import CREATION_FLAGS, Tree
from sidecar.mcp_host.wire import read_message

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCMessage, RequestId

LINE_BYTES = 64 * 1024 * 1024  # a larger message is a fault, not a result
QUEUED_BYTES = 1024 * 1024  # then the child waits until we have read what is there
UNREAD_BYTES = 64 * 1024 * 1024  # of our own, which the child does not take
JUNK_KEPT = 5
JUNK_BYTES = 4 * 1024
JUNK_CHARS = 300

EOF_GRACE_S = 2.0  # closed stdin is the protocol's way to say stop
TERM_GRACE_S = 2.0
REAP_S = 0.5  # EOF_GRACE_S + TERM_GRACE_S + 2 * REAP_S = 5 s, the bound of every close
STDIN, STDOUT, STDERR = 0, 1, 2


class LineBuffer:
    """Bytes → lines without their ends. Each byte is searched once, however it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[bytearray]:
        self._buffer += data
        lines = []
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            lines.append(self._taken(end))
            self._searched = 0
        self._searched = len(self._buffer)
        return lines

    def _taken(self, end: int) -> bytearray:
        if end < len(self._buffer) - 1:
            line = self._buffer[:end]
            del self._buffer[: end + 1]
        else:  # a large message ends a chunk: hand it over instead of copying it
            line, self._buffer = self._buffer, bytearray()
            del line[end:]
        return line

    def rest(self) -> bytearray:
        rest, self._buffer, self._searched = self._buffer, bytearray(), 0
        return rest

    def __len__(self) -> int:
        """Bytes of the line that has not ended yet."""
        return len(self._buffer)


class ServerProcess(asyncio.SubprocessProtocol):
    """A running server. `open_process` makes one; whoever did must `close()` it.

    `dead` is set when no further message can come, `gone` when the process and its group are.
    `exit_code` is negative for a signal, as in `subprocess`; `was_killed` tells that it was ours.
    """

    def __init__(
        self, server: str, guardian: Guardian, log: ServerLog, on_death: Callable[[], None]
    ) -> None:
        self.dead = asyncio.Event()
        self.gone = asyncio.Event()
        self.pid = 0
        self.exit_code: int | None = None
        self.was_killed = False
        self.fault: str | None = None
        self.junk: list[str] = []
        self.log = log
        self._server = server
        self._guardian = guardian
        self._on_death = on_death
        self._stdout = LineBuffer()
        self._lines: deque[bytearray] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._loop = asyncio.get_running_loop()
        self._is_deaf = False  # it closed its stdin
        self._calls: set[RequestId] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def next_line(self) -> bytearray | None:
        """None after the last one."""
        while not self._lines:
            if self.dead.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        line = self._lines.popleft()
        self._queued_bytes -= len(line)
        if self._queued_bytes <= QUEUED_BYTES:
            self._pipe(STDOUT).resume_reading()
        return line

    def write(self, line: bytes) -> None:
        """Never waits. Raises BrokenPipeError when the child cannot be written to any more."""
        pipe = self._transport.get_pipe_transport(STDIN)
        if self.dead.is_set() or self._is_closing or pipe is None or pipe.is_closing():
            raise BrokenPipeError
        pipe = cast(asyncio.WriteTransport, pipe)
        pipe.write(line)
        if pipe.get_write_buffer_size() > UNREAD_BYTES:
            self._condemn("It does not read its input.")

    def keep_junk(self, line: bytearray) -> None:
        if len(self.junk) < JUNK_KEPT:
            # hidden before it is cut, so that the cut leaves no half of a key
            self.junk.append(self.log.readable(bytes(line[:JUNK_BYTES])).strip()[:JUNK_CHARS])

    def called(self, request_id: "RequestId") -> None:
        """A call is on its way; a child that closes its stdin may still finish it."""
        self._calls.add(request_id)

    def settled(self, request_id: "RequestId") -> None:
        """It is answered or given up. Any other id is as good."""
        self._calls.discard(request_id)
        self._end_if_useless()

    def begin_close(self) -> None:
        """Ask the child to stop by closing its stdin; the rest follows by itself."""
        if self._is_closing or self.gone.is_set():
            return
        self._is_closing = True
        self._tree.look()  # it may be gone before it is signalled
        self._pipe(STDOUT).resume_reading()  # a child stuck in writing cannot notice
        if (stdin := self._transport.get_pipe_transport(STDIN)) is not None:
            stdin.close()
        if self.exit_code is None:
            self._later(EOF_GRACE_S, self._terminate)

    async def close(self) -> None:
        """Returns when the process and its group are gone, after at most 5 s.

        Cancelled while it waits, it kills at once: whoever asks twice has no more patience.
        """
        self.begin_close()
        try:
            await self.gone.wait()
        except asyncio.CancelledError:
            self.kill_now()
            await self.gone.wait()  # milliseconds, and REAP_S at most
            raise

    def kill_now(self) -> None:
        """Synchronous, for a last resort; safe at any time, and from another thread."""
        if not self.gone.is_set():
            self._is_closing = True
            self._kill()

    # ---- what asyncio tells ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        self._guardian.watch(self._server, self.pid)
        self._tree = Tree(self.pid)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == STDERR:
            self.log.feed(data)
        elif not self._is_closing:
            self._enqueue(self._stdout.feed(data))
            if len(self._stdout) > LINE_BYTES:
                self._stdout.rest()
                self._condemn(f"It sent a message of more than {LINE_BYTES // 2**20} MiB.")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == STDERR:
            self.log.end_of_stream()
        elif fd == STDOUT:
            self._enqueue([self._stdout.rest()])
            self._die()
        else:
            self._is_deaf = True
            self._end_if_useless()

    def process_exited(self) -> None:
        self.exit_code = self._transport.get_returncode()
        self._kill_tree()  # whoever it left behind
        # A descendant that left the group may hold the pipes open; what was written is read first.
        self._later(REAP_S, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()
        self._die()
        self.gone.set()

    # ---- the steps of an end ----

    def _end_if_useless(self) -> None:
        """Nothing can be asked of it any more, and it owes nothing."""
        if self._is_deaf and not self._calls and self.exit_code is None and self._timer is None:
            self._later(EOF_GRACE_S, self._terminate)

    def _terminate(self) -> None:
        self.was_killed = True
        self._tree.terminate()
        self._later(TERM_GRACE_S, self._kill)

    def _kill(self) -> None:
        if self.exit_code is None:
            self.was_killed = True
        self._kill_tree()
        self._later(REAP_S, self._give_up)

    def _give_up(self) -> None:
        """The kernel will not let it go, as in a stuck disk wait; we do."""
        self._transport.close()
        self._later(REAP_S, self.gone.set)

    def _condemn(self, fault: str) -> None:
        self.fault = fault
        self._is_closing = True
        self._kill()
        self._die()

    def _die(self) -> None:
        if not self.dead.is_set():
            self.dead.set()
            self._on_death()
        self._arrived.set()

    def _kill_tree(self) -> None:
        self._tree.kill()
        self._guardian.release(self.pid)

    def _later(self, delay_s: float, step: Callable[[], object]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, step)

    def _enqueue(self, lines: list[bytearray]) -> None:
        kept = [line for line in lines if line and not line.isspace()]
        self._lines.extend(kept)
        self._queued_bytes += sum(map(len, kept))
        if kept:
            self._arrived.set()
        if self._queued_bytes > QUEUED_BYTES:
            self._pipe(STDOUT).pause_reading()

    def _pipe(self, fd: int) -> asyncio.ReadTransport:
        return cast(asyncio.ReadTransport, self._transport.get_pipe_transport(fd))


async def open_process(
    server: str,
    launch: Launch,
    guardian: Guardian,
    log: ServerLog,
    on_death: Callable[[], None],
) -> ServerProcess:
    """`on_death` is called once, from the event loop. Raises McpStartFailed."""
    guardian.be_ready()
    try:
        return await _spawned(launch, lambda: ServerProcess(server, guardian, log, on_death))
    except FileNotFoundError as error:
        raise McpStartFailed(
            f"The MCP server {server} cannot start: {launch.executable} names an interpreter in "
            "its first line that does not exist. Install it or correct `command`.",
            server=server,
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise McpStartFailed(
            f"The MCP server {server} cannot start: {launch.executable}: {reason}. "
            "Correct `command` and `args`.",
            server=server,
        ) from error


async def _spawned(launch: Launch, protocol: Callable[[], ServerProcess]) -> ServerProcess:
    """Raises OSError and ValueError."""
    loop = asyncio.get_running_loop()
    how: dict[str, Any] = {
        "cwd": launch.cwd,
        "env": dict(launch.env),
        "start_new_session": True,
        "creationflags": CREATION_FLAGS,
    }
    if sys.platform == "win32" and is_batch_file(launch.executable):
        line = batch_line(launch.executable, launch.args)
        _, process = await loop.subprocess_shell(protocol, line, **how)
    else:
        _, process = await loop.subprocess_exec(protocol, launch.executable, *launch.args, **how)
    return process


class StdioTransport:
    """The SDK's `Transport` over a process; leaving it stops the process."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process

    async def __aenter__(self) -> "TransportStreams":
        return _Reader(self._process), _Writer(self._process)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._process.close()


class _Reader(Incoming):
    def __init__(self, process: ServerProcess) -> None:
        self._process = process

    async def receive(self) -> "SessionMessage | Exception":
        import anyio
        from mcp.shared.dispatcher import coerce_request_id
        from mcp.shared.message import SessionMessage
        from mcp_types import JSONRPCError, JSONRPCResponse

        await asyncio.sleep(0)  # a flood of lines must not keep others from running
        while (line := await self._process.next_line()) is not None:
            message = await read_message(line)
            if message is not None:
                if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
                    self._process.settled(coerce_request_id(message.id))
                return SessionMessage(message)
            self._process.keep_junk(line)
        raise anyio.EndOfStream


class _Writer(Stream):
    def __init__(self, process: ServerProcess) -> None:
        self._process = process

    async def send(self, item: "SessionMessage", /) -> None:
        import anyio
        from mcp.shared.dispatcher import coerce_request_id
        from mcp_types import JSONRPCRequest

        self._follow(item.message)
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
        try:
            self._process.write(line.encode())
        except BrokenPipeError:
            if isinstance(item.message, JSONRPCRequest):
                self._process.settled(coerce_request_id(item.message.id))  # it never went out
            raise anyio.BrokenResourceError from None

    def _follow(self, message: "JSONRPCMessage") -> None:
        from mcp.shared.dispatcher import coerce_request_id
        from mcp_types import JSONRPCNotification, JSONRPCRequest

        match message:
            case JSONRPCRequest(method="tools/call", id=request_id):
                self._process.called(coerce_request_id(request_id))
            case JSONRPCNotification(
                method="notifications/cancelled", params={"requestId": int() | str() as request_id}
            ):
                self._process.settled(coerce_request_id(request_id))

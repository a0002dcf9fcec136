"""When the program ends: signals, the frontend's pipe or its process, the launcher, a request.

Whatever comes first asks for a clean stop, once. A second signal, later than one Ctrl-C takes to
reach both processes of the binary, ends it at once; so does a stop that takes too long, whatever
it is that hangs.
"""

import asyncio
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from sidecar import bundle, processes
from sidecar.errors import ConfigInvalid

SHUTDOWN_S = 6.0  # all of it; a frontend that quits will not wait longer
HUNG_S = 5.5  # later than the 5 s that MCP servers may take
LAST_LINES_S = 0.2  # for the log's thread, unless its disk is what hangs
SECOND_SIGNAL_S = 0.5  # one Ctrl-C reaches the one-file binary twice
STDIN_BYTES = 4096  # what a frontend writes there is read and dropped

log = structlog.get_logger()


class Lifetime:
    """`stopping` is set when the program should end; `reason` says why."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.reason = ""
        self._first_signal_at = float("inf")
        self._kill: Callable[[], None] = lambda: None
        self._hung: threading.Timer | None = None

    def stop(self, reason: str) -> None:
        """Ask for a clean stop; the first reason is the one that is told."""
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()
            if self._hung is not None:
                self._hung.start()

    def bound(self) -> None:
        """End this process when a stop takes longer than it may. Only for who is the process."""
        self._hung = threading.Timer(HUNG_S, self._end_hung)
        self._hung.daemon = True

    def kill_with(self, kill: Callable[[], None]) -> None:
        """What is done before the process ends at once: must be quick and synchronous."""
        self._kill = kill

    def watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _signals():
            if sys.platform == "win32":
                signal.signal(
                    number,
                    lambda caught, _: loop.call_soon_threadsafe(self._on_signal, caught),
                )
            else:
                loop.add_signal_handler(number, self._on_signal, number)

    def watch_stdin(self) -> None:
        """Stop when the frontend's end of the pipe is gone. Raises ConfigInvalid without a pipe."""
        if not _is_held_open(0):
            raise ConfigInvalid(
                "--managed needs a pipe on stdin that the parent keeps open (in Node: "
                "stdio: ['pipe', …]): its end is how the sidecar knows that the parent is gone."
            )
        self._stop_after(_read_to_the_end, "stdin_closed")

    def watch_parent(self, given: str) -> None:
        """Stop when the process of SIDECAR_PARENT_PID ends. Raises ConfigInvalid without one."""
        try:
            wait = processes.watch(int(given))
        except (ValueError, OverflowError, ProcessLookupError) as error:
            raise ConfigInvalid(
                f"SIDECAR_PARENT_PID is {given!r}, which is no process that runs and is older than "
                "this one: give the pid of the program that the sidecar is to end with."
            ) from error
        self._stop_after(wait, "parent_ended")

    def watch_launcher(self) -> None:
        """Stop when the outer process of the one-file binary is killed, which tells us nothing."""
        if bundle.unpacked_at() is None:
            return
        launcher = os.getppid()
        try:
            wait = processes.watch(launcher)
        except ProcessLookupError:
            self.stop("launcher_ended")
            return
        if os.getppid() != launcher:  # it ended meanwhile
            self.stop("launcher_ended")
        self._stop_after(wait, "launcher_ended")

    def _stop_after(self, wait: Callable[[], None], reason: str) -> None:
        """`wait` blocks, in a daemon thread: no exit waits for it."""
        loop = asyncio.get_running_loop()

        def watch() -> None:
            wait()
            with suppress(RuntimeError):  # the loop may have ended before it
                loop.call_soon_threadsafe(self.stop, reason)

        threading.Thread(target=watch, name=reason, daemon=True).start()

    def _end_hung(self) -> None:
        """In a thread of its own, since it may be the loop that hangs."""
        try:
            log.error("shutdown_hung", reason=self.reason, after_s=HUNG_S)
            self._kill()
            time.sleep(LAST_LINES_S)
        finally:
            os._exit(0)  # a stop was asked for, and nothing of ours is left

    def _on_signal(self, number: int) -> None:
        now = time.monotonic()
        if now - self._first_signal_at > SECOND_SIGNAL_S:
            self._kill()
            os._exit(128 + number)
        self._first_signal_at = min(now, self._first_signal_at)
        self.stop(signal.Signals(number).name.lower())


def _signals() -> list[signal.Signals]:
    """Those that ask for an end; a terminal that is closed does, unless `nohup` said otherwise."""
    asking = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asking.append(signal.SIGHUP)
    return asking


def _read_to_the_end() -> None:
    """Of stdin, on the bare descriptor: a reader on sys.stdin would block the exit."""
    with suppress(OSError):  # a broken pipe is an end too
        while os.read(0, STDIN_BYTES):
            pass


def _is_held_open(descriptor: int) -> bool:
    """Node's pipes are sockets; a terminal ends with Ctrl-D or when it is closed."""
    if sys.stdin is None:  # it was closed at the start, and its number is another file's by now
        return False
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)

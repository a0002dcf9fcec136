"""When the program ends: signals, the frontend's pipe, a request; and what happens then.

Whatever comes first asks for a clean stop, once. A second signal, later than one Ctrl-C takes to
reach both processes of the binary, ends it at once.
"""

import asyncio
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import structlog

from sidecar.errors import ConfigInvalid

SHUTDOWN_S = 6.0  # all of it; a frontend that quits will not wait longer
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

    def stop(self, reason: str) -> None:
        """Ask for a clean stop; the first reason is the one that is told."""
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()

    def kill_with(self, kill: Callable[[], None]) -> None:
        """What a second signal does before it ends the process: must be quick and synchronous."""
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
        loop = asyncio.get_running_loop()

        def watch() -> None:
            with suppress(OSError):  # a broken pipe is an end too
                while os.read(0, STDIN_BYTES):
                    pass
            with suppress(RuntimeError):  # the loop may have ended before it
                loop.call_soon_threadsafe(self.stop, "stdin_closed")

        # a thread of our own on the bare descriptor: a reader on sys.stdin would block the exit
        threading.Thread(target=watch, name="stdin", daemon=True).start()

    def _on_signal(self, number: int) -> None:
        now = monotonic()
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


def _is_held_open(descriptor: int) -> bool:
    """Node's pipes are sockets; a terminal ends with Ctrl-D or when it is closed."""
    if sys.stdin is None:  # it was closed at the start, and its number is another file's by now
        return False
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)

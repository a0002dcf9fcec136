"""The clock of one running call: set back by progress, stopped while a person is asked.

Passes progress on while the call runs, the newest where there is more than anybody can read, and
nothing once it is over: the SDK may deliver progress after the result. Knows no server.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from sidecar.chat.base import OnProgress

IDLE_S = 60.0
TOTAL_S = 600.0
RECONNECT_S = 10.0
PROGRESS_S = 0.1  # a bar that moves more often than this moves no better


class Overdue(Exception):
    """`is_total` tells which limit it was."""

    def __init__(self, *, is_total: bool) -> None:
        super().__init__()
        self.is_total = is_total


@dataclass(frozen=True, slots=True)
class Clock:
    """`idle_s` starts again with every sign of life, `total_s` never does.

    `reconnect_s` is how long a call that may be sent again waits for its server.
    """

    idle_s: float = IDLE_S
    total_s: float = TOTAL_S
    reconnect_s: float = RECONNECT_S


@contextlib.asynccontextmanager
async def ticking(clock: Clock, on_progress: OnProgress) -> AsyncIterator["Ticking"]:
    """Raises Overdue."""
    running: Ticking | None = None
    try:
        async with asyncio.timeout(min(clock.idle_s, clock.total_s)) as deadline:
            running = Ticking(deadline, clock, on_progress)
            try:
                yield running
            finally:
                running.end()
    except TimeoutError as error:
        assert running is not None
        raise Overdue(is_total=running.is_over_total()) from error


class Ticking:
    """Made by `ticking`; after its end it does nothing."""

    def __init__(self, deadline: asyncio.Timeout, clock: Clock, on_progress: OnProgress) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._idle_s = clock.idle_s
        self._last_at = self._loop.time() + clock.total_s
        self._on_progress = on_progress
        self._is_open = True
        self._questions = 0
        self._stopped_at = 0.0
        self._newest: tuple[float, float | None, str | None] | None = None
        self._pause: asyncio.TimerHandle | None = None

    def progress(self, progress: float, total: float | None, message: str | None) -> None:
        if not self._is_open or self._deadline.expired():
            return
        self._set_back()
        self._newest = (progress, total, message)
        if self._pause is None:
            self._tell()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While a person is asked. Several may be at once; idle time begins anew afterwards."""
        self._questions += 1
        if self._questions == 1:
            self._stopped_at = self._loop.time()
            self._set_back()
        try:
            yield
        finally:
            self._questions -= 1
            if self._questions == 0:
                self._last_at += self._loop.time() - self._stopped_at
                self._set_back()

    def is_over_total(self) -> bool:
        return self._loop.time() >= self._last_at

    def end(self) -> None:
        self._is_open = False
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _set_back(self) -> None:
        if self._is_open and not self._deadline.expired():
            idle_until = self._loop.time() + self._idle_s
            self._deadline.reschedule(None if self._questions else min(idle_until, self._last_at))

    def _tell(self) -> None:
        """What is new, and then nothing for a while."""
        self._pause = None
        if self._newest is not None:
            newest, self._newest = self._newest, None
            self._pause = self._loop.call_later(PROGRESS_S, self._tell)
            self._on_progress(*newest)

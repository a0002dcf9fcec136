"""A run's log: its chunks by number, read by any number of cursors.

Appending never waits and costs one list entry. It keeps the last few MiB; a reader that comes
later than that is given a snapshot of the message instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sidecar.messages import ErrorInfo
from sidecar.protocol.chat import ChatResult
from sidecar.protocol.chunks import Chunk
from sidecar.protocol.frames import Started

Waker: TypeAlias = Callable[[], None]

KEPT_BYTES = 4 * 1024 * 1024  # four minutes of 100 deltas a second, each counted with its frame
OVERHEAD_BYTES = 160  # of an entry's frame around its data


@dataclass(frozen=True, slots=True)
class Failed:
    """The terminal entry of a run that ended with an error."""

    error: str
    info: ErrorInfo


Entry: TypeAlias = Started | Chunk | ChatResult | Failed


class RunLog:
    """`first_seq` is the number of the oldest entry kept, `next_seq` that of the next one."""

    def __init__(self) -> None:
        self.first_seq = 0
        self.next_seq = 0
        self._entries: list[Entry] = []
        self._ends: list[int] = []  # bytes appended up to and with each entry
        self._bytes = 0
        self._dropped = 0  # bytes that were appended and are no longer kept
        self._wakers: list[Waker] = []

    def append(self, entry: Entry) -> None:
        data = None if isinstance(entry, Failed | ChatResult) else entry.data
        self._bytes += OVERHEAD_BYTES + (len(data) if data else 0)
        self._entries.append(entry)
        self._ends.append(self._bytes)
        self.next_seq += 1
        if self._bytes - self._dropped > KEPT_BYTES:
            self._drop(len(self._entries) // 2)
        for wake in self._wakers:
            wake()

    def read(self, from_seq: int) -> Sequence[Entry]:
        """Everything from `from_seq`, which must not be older than `first_seq`."""
        return self._entries[from_seq - self.first_seq :]

    def entry(self, seq: int) -> Entry:
        return self._entries[seq - self.first_seq]

    def bytes_after(self, seq: int) -> int:
        """About how much a reader has yet to read whose next entry is `seq`."""
        if seq <= self.first_seq:
            return self._bytes - self._dropped
        return self._bytes - self._ends[seq - self.first_seq - 1]

    def keep_last(self) -> None:
        """Drop all entries but the newest."""
        self._drop(len(self._entries) - 1)

    def watch(self, waker: Waker) -> None:
        """`waker` is called after every append; it must be cheap and must not raise."""
        self._wakers.append(waker)

    def unwatch(self, waker: Waker) -> None:
        self._wakers.remove(waker)

    @property
    def watchers(self) -> int:
        return len(self._wakers)

    def _drop(self, count: int) -> None:
        if count < 1:
            return
        self._dropped = self._ends[count - 1]
        del self._entries[:count]
        del self._ends[:count]
        self.first_seq += count

"""What a server writes to stderr: its last lines in memory, all of it in a rotating file.

Survives the server's restarts. Lines are for people: control and bidirectional characters are
shown escaped, so a server cannot draw on somebody's terminal, and secrets are hidden. The file,
which stays with the person, has the bytes as they came. What nobody asks for is never decoded.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from sidecar.redaction import redact
from sidecar.visible import visible

LINES = 200
LINE_BYTES = 4 * 1024  # a longer line is kept in pieces
TAIL_BYTES = 64 * 1024  # to redact more would be felt on the loop
FILE_BYTES = 1024 * 1024  # then it becomes the one older file


class ServerLog:
    """`count` grows with every line, so that a caller can tell which lines are new to it."""

    def __init__(self, path: Path | None, hide: Callable[[str], str]) -> None:
        """`hide` replaces what the server was given as a secret."""
        self.count = 0
        self._hide = hide
        self._lines: deque[bytes] = deque(maxlen=LINES)
        self._partial = b""
        self._path = path
        self._file: BinaryIO | None = None

    def feed(self, data: bytes) -> None:
        self._write(data)
        said, end, self._partial = (self._partial + data).rpartition(b"\n")
        if end:
            lines = said.rsplit(b"\n", LINES)[-LINES:]
            self.count += said.count(b"\n") + 1 - len(lines)  # those of a flood that are not kept
            for line in lines:
                self._keep(line)
        if len(self._partial) > LINE_BYTES:
            self.end_of_stream()

    def note(self, line: str) -> None:
        """A line of our own, among the server's."""
        self.feed(f"{line}\n".encode(errors="replace"))

    def end_of_stream(self) -> None:
        """A line without its end is a line."""
        if self._partial:
            self._keep(self._partial)
            self._partial = b""

    def tail(self, limit: int) -> tuple[str, ...]:
        """Oldest first, and no more of them than TAIL_BYTES."""
        lines: list[str] = []
        room = TAIL_BYTES
        for line in islice(reversed(self._lines), max(limit, 0)):
            room -= len(line)
            if room < 0:
                break
            lines.append(self.readable(line))
        return tuple(reversed(lines))

    def readable(self, line: bytes) -> str:
        """What a server wrote, as it may be shown."""
        return visible(redact(self._hide(line.decode(errors="replace"))))

    def since(self, count: int, limit: int) -> tuple[str, ...]:
        """At most the last `limit` of the lines that came after `count` was read."""
        return self.tail(min(limit, self.count - count))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._path = None

    def _keep(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), LINE_BYTES):
            self._lines.append(line[start : start + LINE_BYTES].rstrip(b"\r"))
            self.count += 1

    def _write(self, data: bytes) -> None:
        """Unbuffered: a few microseconds into the page cache, and nothing to flush at a crash."""
        if self._path is None:
            return
        try:
            if self._file is None:
                self._file = _open_private(self._path)
            if self._file.tell() > FILE_BYTES:
                self._file.close()
                os.replace(self._path, f"{self._path}.1")
                self._file = _open_private(self._path)
            self._file.write(data)
        except OSError:  # a full disk or a removed folder must not cost the server its stderr
            with contextlib.suppress(OSError):
                self.close()


def _open_private(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.fdopen(descriptor, "ab", buffering=0)

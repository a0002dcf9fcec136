"""Server-sent events: bytes in, events out, however the network cut them.

Pure: no I/O and no JSON. Promises to read what real servers send (CR, LF or CRLF, comments,
`id:` and `retry:` lines, `data:` without a space, no `event:` line, a last event without its blank
line) in time linear in the bytes, and never to hold more than one event of `MAX_EVENT_BYTES`.
"""

from typing import NamedTuple

from sidecar.errors import ProviderBadResponse

MAX_EVENT_BYTES = 32 * 1024 * 1024  # an image inside an event is the largest honest one
_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """`event` is empty where the server names none; several data lines are joined by newlines."""

    event: str
    data: str


class SseDecoder:
    def __init__(self, provider: str | None = None) -> None:
        self._provider = provider
        self._pending = bytearray()  # lines end in LF only, whatever the server sent
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises ProviderBadResponse for an oversized one."""
        if self._after_cr or b"\r" in data:
            data = self._with_line_feeds(data)
        pending = self._pending
        seen = max(len(pending) - 1, 0)  # what was searched before holds no event's end
        pending += data
        if self._at_start and not self._skip_bom():
            return []
        end = pending.rfind(b"\n\n", seen)
        if end < 0:
            self._check_size(len(pending))
            return []
        blocks = bytes(pending[:end]).split(b"\n\n")
        del pending[: end + 2]
        self._check_size(len(pending))
        if end > MAX_EVENT_BYTES:
            self._check_size(max(map(len, blocks)))
        return [event for block in blocks if (event := _parse(block)) is not None]

    def end(self) -> list[SseEvent]:
        """What is left when the body ends: at most one event."""
        event = _parse(bytes(self._pending))
        self._pending.clear()
        return [] if event is None else [event]

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # the second half of a CRLF that two reads had cut
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _skip_bom(self) -> bool:
        """False while too little has come to know whether there is one."""
        if len(self._pending) < len(_BOM) and _BOM.startswith(self._pending):
            return False
        if self._pending.startswith(_BOM):
            del self._pending[: len(_BOM)]
        self._at_start = False
        return True

    def _check_size(self, size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise ProviderBadResponse(
                f"{self._provider or 'The provider'} sent an event of more than "
                f"{MAX_EVENT_BYTES // 2**20} MiB.",
                provider=self._provider,
            )


def _parse(block: bytes) -> SseEvent | None:
    """One event's lines; None for a block without data, such as a comment."""
    if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event there is
        return SseEvent("", block[6:].decode("utf-8", "replace"))
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if not data:
        return None
    return SseEvent(name.decode("utf-8", "replace"), b"\n".join(data).decode("utf-8", "replace"))

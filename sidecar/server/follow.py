"""One socket's cursor in one run's log: what to send next, joined where it is behind."""

from sidecar.chat.log import Entry, Failed
from sidecar.chat.run import Run
from sidecar.protocol.chat import ChatResult
from sidecar.protocol.chunks import ReasoningChunk, TextChunk
from sidecar.protocol.frames import (
    ChunkFrame,
    CompleteFrame,
    ErrorFrame,
    ProcessingFrame,
    Started,
    encode,
)

BEHIND_BYTES = 1024 * 1024
BEHIND_FRAMES = 1000
JOINED_CHARS = 64 * 1024  # of text in one frame: below 512 KiB however it is escaped


class Follow:
    """This socket's cursor in one run's log."""

    def __init__(self, request_id: str, run: Run, from_seq: int) -> None:
        self.request_id = request_id
        self.run = run
        self.next_seq = from_seq
        self.has_ended = False

    @property
    def is_behind(self) -> bool:
        log = self.run.log
        return (
            log.next_seq - self.next_seq > BEHIND_FRAMES
            or log.bytes_after(self.next_seq) > BEHIND_BYTES
        )

    def take(self, is_extended: bool) -> str | None:
        """The next frame, encoded; None when there is nothing new. Raises TooFarBehind."""
        log = self.run.log
        while self.next_seq < log.next_seq:
            if self.next_seq < log.first_seq:
                return self._snapshot(is_extended)
            seq, entry = self.next_seq, log.entry(self.next_seq)
            self.next_seq += 1
            if isinstance(entry, TextChunk | ReasoningChunk):
                entry = self._joined(entry)
            if is_extended or _is_basic(entry):
                return self._encoded(entry, seq)
        return None

    def _snapshot(self, is_extended: bool) -> str:
        """Stands for what the log no longer has; a basic client has no frame for that."""
        if not is_extended:
            raise TooFarBehind
        chunk = self.run.snapshot()
        self.next_seq = chunk.metadata.seq + 1
        return encode(ChunkFrame(request_id=self.request_id, seq=chunk.metadata.seq, chunk=chunk))

    def _joined(self, first: TextChunk | ReasoningChunk) -> TextChunk | ReasoningChunk:
        """`first` and the deltas of its kind that wait behind it."""
        log = self.run.log
        pieces, size = [first.data], len(first.data)
        while self.next_seq < log.next_seq:
            entry = log.entry(self.next_seq)
            if type(entry) is not type(first) or size + len(entry.data) > JOINED_CHARS:
                break
            pieces.append(entry.data)
            size += len(entry.data)
            self.next_seq += 1
        return first if len(pieces) == 1 else type(first)(data="".join(pieces))

    def _encoded(self, entry: Entry, seq: int) -> str:
        last = self.next_seq - 1
        match entry:
            case Started():
                frame = ProcessingFrame(request_id=self.request_id, seq=seq, chunk=entry)
                return encode(frame)
            case ChatResult():
                self.has_ended = True
                return encode(CompleteFrame(request_id=self.request_id, seq=seq, result=entry))
            case Failed(error, info):
                self.has_ended = True
                return encode(
                    ErrorFrame(request_id=self.request_id, seq=seq, error=error, error_info=info)
                )
            case _:
                joined_from = seq if seq != last else None
                return encode(
                    ChunkFrame(
                        request_id=self.request_id, seq_from=joined_from, seq=last, chunk=entry
                    )
                )


class TooFarBehind(Exception):
    """What a basic client has yet to read is gone."""


def _is_basic(entry: Entry) -> bool:
    return isinstance(entry, Started | ChatResult | Failed) or entry.basic

"""One turn, its log, and how it is told: where it stands, and how it ended."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from sidecar.chat.log import RunLog, Waker
from sidecar.chat.turn import PIECE_CHARS, Turn
from sidecar.messages import (
    FinishReason,
    Message,
    Part,
    Usage,
    now,
)
from sidecar.protocol.base import FRAME_BYTES_OUT
from sidecar.protocol.chat import (
    ChatPayload,
    ChatResult,
    RunInfo,
)
from sidecar.protocol.chunks import SnapshotChunk, SnapshotMetadata
from sidecar.protocol.frames import Started, StartedMetadata, newest_parts
from sidecar.store.rows import Retry

SNAPSHOT_BYTES = FRAME_BYTES_OUT // 2


class Run:
    """One turn and its log. Only Runs makes and ends one."""

    def __init__(
        self,
        conversation_id: str,
        chat: ChatPayload,
        model: str,
        *,
        ends_alone: bool,
        is_kept: bool = True,
        run_id: str | None = None,
    ) -> None:
        self.run_id = run_id or uuid4().hex
        self.conversation_id = conversation_id
        self.chat = chat
        self.model = model
        self.user_message_id = uuid4().hex
        self.message_id = uuid4().hex
        self.log = RunLog()
        self.ended = asyncio.Event()
        self.turn: Turn | None = None
        self.said: tuple[Part, ...] | None = None  # by the person, where that began it
        self.question: Message | None = None  # as it was kept
        self.answer: Message | None = None  # once it has ended
        self.retry: Retry | None = None
        self.is_kept = is_kept  # in its conversation, and here for those who resume it
        self.is_saved = is_kept  # while it grows
        self._ends_alone = ends_alone  # when its last follower leaves
        self._driver: asyncio.Task[None] | None = None
        self._is_cancelled = False

    @property
    def info(self) -> RunInfo:
        return RunInfo(
            run_id=self.run_id,
            conversation_id=self.conversation_id,
            seq=self.log.next_seq - 1,
            state="ended" if self.ended.is_set() else "running",
        )

    @property
    def is_growing(self) -> bool:
        """There is something of it to be saved before its end."""
        return self.is_saved and self.turn is not None and self.answer is None

    def snapshot(self) -> SnapshotChunk:
        """The message so far; stands for every entry up to its seq, the terminal one excepted."""
        assert self.turn is not None  # a log that has lost entries has had a turn
        message = self.answer or self.turn.draft.message("streaming")
        message, is_whole = newest_parts(message, SNAPSHOT_BYTES)
        metadata = SnapshotMetadata(
            message=message,
            seq=self.log.next_seq - (2 if self.ended.is_set() else 1),
            truncated=None if is_whole else True,
        )
        return SnapshotChunk(metadata=metadata)

    def follow(self, waker: Waker) -> None:
        self.log.watch(waker)

    def unfollow(self, waker: Waker) -> None:
        self.log.unwatch(waker)
        if not self.log.watchers and self._ends_alone:
            self.cancel()

    def cancel(self) -> bool:
        """False when it has ended, or is ending, already."""
        if self._is_cancelled or self.ended.is_set():
            return not self.ended.is_set()
        self._is_cancelled = True
        if self._driver is not None:
            self._driver.cancel()
        return True

    def driven_by(self, driver: asyncio.Task[None] | None) -> None:
        """Whom to cancel. A cancel that came before the task's first step is given to it now."""
        self._driver = driver
        if driver is not None and self._is_cancelled:
            driver.cancel()


def started(run: Run, parts: Sequence[Part]) -> Started:
    metadata = StartedMetadata(
        user_message="".join(part.text for part in parts if part.type == "text")[:PIECE_CHARS],
        run_id=run.run_id,
        conversation_id=run.conversation_id,
        user_message_id=run.user_message_id,
        message_id=run.message_id,
        model=run.model,
    )
    return Started(metadata=metadata)


def result(run: Run, reason: FinishReason, usage: Usage) -> ChatResult:
    return ChatResult(
        run_id=run.run_id,
        conversation_id=run.conversation_id,
        message_id=run.message_id,
        finish_reason=reason,
        usage=usage,
    )


def question_of(run: Run, parts: Sequence[Part], parent_id: str | None) -> Message:
    return Message(
        message_id=run.user_message_id,
        parent_id=parent_id,
        role="user",
        parts=tuple(parts),
        created_at=now(),
    )

"""Chats that are sent again: what each retry_key began, also before a restart."""

import asyncio

from sidecar.chat.log import Failed
from sidecar.chat.run import SNAPSHOT_BYTES, Run, result, started
from sidecar.errors import (
    DuplicateRequest,
    NotFound,
    StorageError,
)
from sidecar.messages import (
    ErrorInfo,
    Message,
    Usage,
    now,
)
from sidecar.protocol.chat import (
    ChatPayload,
)
from sidecar.protocol.chunks import SnapshotChunk, SnapshotMetadata
from sidecar.protocol.frames import newest_parts
from sidecar.store.conversations import Conversations
from sidecar.store.rows import CUT, RETRY_KEY_S, Retry


class Retries:
    """Known for 24 h. A run that a restart cut is told as it was kept, and never begins again."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._known: dict[str, tuple[bytes, Run]] = {}

    async def find(self, retry_key: str | None, digest: bytes) -> Run | None:
        """The run that this key began, also before a restart: then what is left of it.

        Raises DuplicateRequest where it began another one.
        """
        if retry_key is not None and retry_key not in self._known:
            stored = await self._stored(retry_key)
            if stored is not None and retry_key not in self._known:
                self.remember(await self._revived(stored), stored)
        return self.known(retry_key, digest)

    def known(self, retry_key: str | None, digest: bytes) -> Run | None:
        """As `find`, of what was looked for or begun already."""
        known = self._known.get(retry_key) if retry_key else None
        if known is None:
            return None
        if known[0] != digest:
            raise DuplicateRequest("This retry_key was used for another message; make a new one.")
        return known[1]

    async def _stored(self, retry_key: str) -> Retry | None:
        try:
            return await self._conversations.retry(retry_key)
        except StorageError:  # the chat goes on without what was written
            return None

    def remember(self, run: Run, retry: Retry) -> None:
        self._known[retry.retry_key] = (retry.digest, run)
        loop = asyncio.get_running_loop()
        loop.call_later(RETRY_KEY_S, self._known.pop, retry.retry_key, None)

    async def _revived(self, retry: Retry) -> Run:
        """A run of before a restart, which has ended: its message, and how it ended."""
        store = self._conversations
        question = await store.message(retry.conversation_id, retry.user_message_id)
        chat = ChatPayload.model_construct(conversation_id=retry.conversation_id)
        try:
            answer = await store.message(retry.conversation_id, retry.message_id)
        except NotFound:  # it was cut before its first word
            answer = _cut(retry)
        run = Run(
            retry.conversation_id,
            chat,
            answer.model or "",
            ends_alone=False,
            run_id=retry.run_id,
        )
        run.user_message_id, run.message_id = retry.user_message_id, retry.message_id
        run.answer = answer
        run.log.append(started(run, question.parts))
        shown, is_whole = newest_parts(answer, SNAPSHOT_BYTES)
        metadata = SnapshotMetadata(message=shown, seq=1, truncated=None if is_whole else True)
        run.log.append(SnapshotChunk(metadata=metadata))
        if answer.error_info is not None:
            run.log.append(Failed(answer.error or CUT, answer.error_info))
        else:
            run.log.append(result(run, retry.finish_reason or "stop", answer.usage or Usage()))
        run.ended.set()
        return run


def _cut(retry: Retry) -> Message:
    return Message(
        message_id=retry.message_id,
        parent_id=retry.user_message_id,
        role="assistant",
        parts=(),
        status="interrupted",
        error=CUT,
        error_info=ErrorInfo(code="interrupted", retryable=True, origin="server"),
        created_at=now(),
    )

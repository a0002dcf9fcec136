"""What keeps a conversation usable: a title, and a summary of what its model no longer reads.

Both are asked of the conversation's own model. Neither is worth a failure of a chat.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import uuid4

import structlog

from sidecar.chat import aside, context
from sidecar.chat.base import Emit, Models
from sidecar.errors import BadRequest, SidecarError
from sidecar.messages import Message, SummaryPart, now
from sidecar.protocol.chunks import NoticeChunk, NoticeMetadata
from sidecar.store.conversations import Conversations

TITLE_S = 30.0
SMALLEST_WINDOW = 2000  # tokens; up to here nobody need be asked how large it is

log = structlog.get_logger()


class Upkeep:
    def __init__(
        self,
        conversations: Conversations,
        models: Models,
        *,
        compact_at: float | None,
        has_model_titles: bool,
    ) -> None:
        """`compact_at` is the part of a window that may be full before there is a summary."""
        self._conversations = conversations
        self._models = models
        self._compact_at = compact_at
        self._has_model_titles = has_model_titles

    async def entitle(
        self, conversation_id: str, model: str, question: Message, answer: Message
    ) -> None:
        """Give a title to a conversation that has begun, where asking for one is cheap."""
        if not self._has_model_titles or not answer.text:
            return
        with suppress(SidecarError, TimeoutError):  # then the first words are its title
            if not await self._models.is_cheap(model):
                return
            provider, model_id = self._models.open(model)
            async with asyncio.timeout(TITLE_S):
                title = await aside.title(provider, model_id, question, answer)
            if title is not None:
                await self._conversations.set_title(conversation_id, title)

    async def make_room(
        self,
        conversation_id: str,
        model: str,
        history: Sequence[Message],
        question: Message,
        emit: Emit,
    ) -> Sequence[Message]:
        """What the question follows: `history`, and a summary where it would fill the window."""
        if not await self._is_too_full(model, history, question):
            return history
        _notify(emit, "context_compacting", "Summarising the older part of the conversation …")
        try:
            summary = await self._summarise(conversation_id, model, history)
        except SidecarError as error:
            log.warning("context_not_compacted", code=error.code)
            _notify(emit, "context_not_compacted", f"It could not be summarised: {error}")
            return history
        text = "The conversation was summarised for the model; you still have all of it."
        _notify(emit, "context_compacted", text)
        return (*history, summary)

    async def compact(self, conversation_id: str, model: str) -> str:
        """Summarise the branch in use. Returns the summary's message_id. Raises SidecarError."""
        head = await self._conversations.head(conversation_id)
        history = await self._conversations.path(conversation_id, head)
        if len(context.effective(history)) < 2:
            raise BadRequest("There is nothing to summarise yet.")
        return (await self._summarise(conversation_id, model, history)).message_id

    async def _is_too_full(self, model: str, history: Sequence[Message], question: Message) -> bool:
        read = context.effective(history)
        used = context.used_tokens([*read, question])
        if self._compact_at is None or used < SMALLEST_WINDOW or len(read) < 2:
            return False
        window = await self._models.window(model)
        return window is not None and used > window * self._compact_at

    async def _summarise(
        self, conversation_id: str, model: str, history: Sequence[Message]
    ) -> Message:
        provider, model_id = self._models.open(model)
        window = await self._models.window(model)
        text, usage = await aside.summary(provider, model_id, history, window)
        summary = Message(
            message_id=uuid4().hex,
            parent_id=history[-1].message_id,
            role="assistant",
            parts=(SummaryPart(text=text),),
            model=model,
            usage=usage.model_copy(update={"context": None}),
            created_at=now(),
        )
        await self._conversations.append(conversation_id, summary)
        return summary


def _notify(emit: Emit, code: str, text: str) -> None:
    emit(NoticeChunk(data=text, metadata=NoticeMetadata(code=code)))

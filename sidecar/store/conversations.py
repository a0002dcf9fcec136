"""Conversations: trees of messages, each with a head.

Kept in memory, for as long as the program runs. Whoever asks for a conversation gets the path
from its root to one message, which is what a model reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from sidecar.errors import NotFound
from sidecar.messages import Message


@dataclass(slots=True)
class _Conversation:
    messages: dict[str, Message] = field(default_factory=dict)
    head: str | None = None


class Conversations:
    def __init__(self) -> None:
        self._conversations: dict[str, _Conversation] = {}

    async def create(self) -> str:
        conversation_id = uuid4().hex
        self._conversations[conversation_id] = _Conversation()
        return conversation_id

    async def head(self, conversation_id: str) -> str | None:
        """The newest message of the branch in use; None in an empty conversation."""
        return self._get(conversation_id).head

    async def message(self, conversation_id: str, message_id: str) -> Message:
        message = self._get(conversation_id).messages.get(message_id)
        if message is None:
            raise NotFound(f"There is no message {message_id} in this conversation.")
        return message

    async def append(self, conversation_id: str, message: Message) -> None:
        """Add below `message.parent_id`; it becomes the head."""
        conversation = self._get(conversation_id)
        conversation.messages[message.message_id] = message
        conversation.head = message.message_id

    async def path(self, conversation_id: str, message_id: str | None) -> Sequence[Message]:
        """From the root down to `message_id`, which is included; empty for None."""
        messages = self._get(conversation_id).messages
        path: list[Message] = []
        while message_id is not None:
            message = messages[message_id]
            path.append(message)
            message_id = message.parent_id
        path.reverse()
        return path

    def _get(self, conversation_id: str) -> _Conversation:
        conversation = self._conversations.get(conversation_id)
        if conversation is None:
            raise NotFound(
                f"There is no conversation {conversation_id}: start one by leaving its id out."
            )
        return conversation

"""Conversations as a chat needs them: trees of messages, each with a head.

A conversation is written with its first message, never before. What cannot be written is kept in
memory: the chat goes on, the caller is told by a StorageError, and it is written with the next
message that can be. A private conversation is never written at all.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from sidecar.errors import NotFound, StorageError
from sidecar.messages import Message
from sidecar.protocol.chat import Params, ToolChoice
from sidecar.protocol.conversations import (
    Conversation,
    ConversationsCreated,
    ConversationsUpdated,
)
from sidecar.store import rows
from sidecar.store.database import Database
from sidecar.store.records import (
    CONVERSATION_COLUMNS,
    parse_conversation,
    parse_message,
)
from sidecar.store.rows import Progress, Retry

if TYPE_CHECKING:
    from sqlite3 import Connection

Change = ConversationsCreated | ConversationsUpdated


@dataclass(frozen=True, slots=True)
class Settings:
    """What a conversation has of its own."""

    model: str | None = None
    system_prompt: str | None = None
    params: Params | None = None
    tools: ToolChoice | None = None


@dataclass(slots=True)
class _Unwritten:
    """A conversation, or the end of one, that is not in the database."""

    is_private: bool = False
    is_new: bool = True
    head: str | None = None
    messages: dict[str, Message] = field(default_factory=dict)
    retry: Retry | None = None

    def add(self, message: Message) -> None:
        self.messages[message.message_id] = message
        self.head = message.message_id


class Conversations:
    def __init__(self, database: Database, publish: Callable[[Change], None]) -> None:
        """`publish` is called from the event loop and never waits."""
        self._database = database
        self._publish = publish
        self._unwritten: dict[str, _Unwritten] = {}

    async def create(self, *, is_private: bool = False) -> str:
        conversation_id = uuid4().hex
        self._unwritten[conversation_id] = _Unwritten(is_private=is_private)
        return conversation_id

    async def settings(self, conversation_id: str) -> Settings:
        """Raises NotFound and StorageError."""
        unwritten = self._unwritten.get(conversation_id)
        if unwritten is not None and unwritten.is_new:
            return Settings()
        found = await self._database.read(partial(_read_conversation, conversation_id))
        if found is None:
            raise _no_conversation(conversation_id)
        return Settings(
            found.model,
            found.system_prompt,
            None if found.params is None else Params.model_validate(found.params),
            None if found.tools is None else ToolChoice.model_validate(found.tools),
        )

    async def head(self, conversation_id: str) -> str | None:
        """The newest message of the branch in use; None in an empty conversation.

        Raises NotFound and StorageError.
        """
        unwritten = self._unwritten.get(conversation_id)
        if unwritten is not None and (unwritten.is_new or unwritten.head):
            return unwritten.head
        row = await self._database.read(partial(_read_head, conversation_id))
        if row is None:
            raise _no_conversation(conversation_id)
        return row[0]

    def unwritten(self, conversation_id: str) -> tuple[Message, ...]:
        """What is in memory only, the oldest first."""
        held = self._unwritten.get(conversation_id)
        return () if held is None else tuple(held.messages.values())

    async def message(self, conversation_id: str, message_id: str) -> Message:
        """Raises NotFound and StorageError."""
        path = await self._path(conversation_id, message_id, 1)
        if not path:
            raise NotFound(f"There is no message {message_id} in this conversation.")
        return path[0]

    async def find(self, message_id: str) -> tuple[str, Message]:
        """A message, and the conversation that it is in. Raises NotFound and StorageError."""
        for conversation_id, unwritten in self._unwritten.items():
            if message_id in unwritten.messages:
                return conversation_id, unwritten.messages[message_id]
        found = await self._database.read(partial(_read_message, message_id))
        if found is None:
            raise NotFound(f"There is no message {message_id}; it may have been deleted.")
        return found

    async def path(self, conversation_id: str, message_id: str | None) -> Sequence[Message]:
        """From the root down to `message_id`, which is included; empty for None.

        Raises StorageError.
        """
        return await self._path(conversation_id, message_id, None)

    async def append(
        self, conversation_id: str, message: Message, retry: Retry | None = None
    ) -> None:
        """Add below `message.parent_id`, or put in the place of its pieces; it becomes the head.

        `retry` is remembered with it. Raises StorageError when it could not be written: then it
        is kept in memory. A conversation that was deleted takes no more messages.
        """
        unwritten = self._unwritten.get(conversation_id)
        if unwritten is not None and unwritten.is_private:
            unwritten.add(message)
            return
        held = () if unwritten is None else tuple(unwritten.messages.values())
        is_new = unwritten is not None and unwritten.is_new
        try:
            await self._write(conversation_id, (*held, message), is_new=is_new, retry=retry)
        except StorageError:
            if unwritten is None:
                unwritten = self._unwritten[conversation_id] = _Unwritten(is_new=False)
            unwritten.add(message)
            unwritten.retry = retry or unwritten.retry
            raise
        self._unwritten.pop(conversation_id, None)
        await self._write_held()

    async def save(self, progress: Sequence[Progress]) -> None:
        """What messages gained that are still being written. Raises StorageError."""
        kept = [each for each in progress if each.conversation_id not in self._unwritten]
        if kept:
            await self._database.write(partial(rows.add_progress, progress=kept))

    async def retry(self, retry_key: str) -> Retry | None:
        """What this key began, also before a restart; within 24 h. Raises StorageError."""
        return await self._database.read(partial(rows.find_retry, retry_key=retry_key))

    async def remember(self, retry: Retry) -> None:
        """Raises StorageError."""
        await self._database.write(partial(rows.remember_retry, retry=retry))

    async def set_title(self, conversation_id: str, title: str) -> None:
        """A model's, which does not replace one that a person gave."""
        updated = await self._database.write(partial(_set_title, conversation_id, title))
        if updated is not None:
            self._publish(ConversationsUpdated(data=updated))

    def forget(self, conversation_ids: Iterable[str]) -> None:
        """They were deleted."""
        for conversation_id in conversation_ids:
            self._unwritten.pop(conversation_id, None)

    async def close(self) -> None:
        """Write what can be written."""
        await self._write_held()

    async def _write(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        is_new: bool,
        retry: Retry | None,
    ) -> None:
        def work(connection: "Connection") -> Conversation | None:
            is_there = rows.add_messages(
                connection, conversation_id, messages, is_new=is_new, retry=retry
            )
            return _read_conversation(conversation_id, connection) if is_there else None

        written = await self._database.write(work)
        if written is not None:
            event = ConversationsCreated if is_new else ConversationsUpdated
            self._publish(event(data=written))

    async def _write_held(self) -> None:
        for conversation_id, held in tuple(self._unwritten.items()):
            if held.is_private or not held.messages:
                continue
            with suppress(StorageError):
                await self._write(
                    conversation_id,
                    tuple(held.messages.values()),
                    is_new=held.is_new,
                    retry=held.retry,
                )
                self._unwritten.pop(conversation_id, None)

    async def _path(
        self, conversation_id: str, message_id: str | None, limit: int | None
    ) -> Sequence[Message]:
        """At most `limit` messages up from `message_id`, the oldest first."""
        path: list[Message] = []
        unwritten = self._unwritten.get(conversation_id)
        while unwritten is not None and message_id in unwritten.messages and len(path) != limit:
            message = unwritten.messages[message_id]
            path.append(message)
            message_id = message.parent_id
        is_elsewhere = unwritten is None or not unwritten.is_new
        if message_id is not None and len(path) != limit and is_elsewhere:
            left = -1 if limit is None else limit - len(path)
            work = partial(_read_path, conversation_id, message_id, left)
            path += await self._database.read(work)
        path.reverse()
        return path


def _no_conversation(conversation_id: str) -> NotFound:
    return NotFound(f"There is no conversation {conversation_id}: start one by leaving its id out.")


# ---- in the store's thread --------------------------------------------------------------------


def _read_conversation(conversation_id: str, connection: "Connection") -> Conversation | None:
    row = connection.execute(
        f"SELECT {CONVERSATION_COLUMNS} FROM conversations WHERE conversation_id = ?",
        [conversation_id],
    ).fetchone()
    return None if row is None else parse_conversation(row)


def _set_title(conversation_id: str, title: str, connection: "Connection") -> Conversation | None:
    changed = connection.execute(
        "UPDATE conversations SET title = ?, titled_by = 'model' "
        "WHERE conversation_id = ? AND titled_by = 'words'",
        [title, conversation_id],
    )
    return _read_conversation(conversation_id, connection) if changed.rowcount else None


def _read_head(conversation_id: str, connection: "Connection") -> tuple[str | None] | None:
    row: tuple[str | None] | None = connection.execute(
        "SELECT head FROM conversations WHERE conversation_id = ?", [conversation_id]
    ).fetchone()
    return row


def _read_message(message_id: str, connection: "Connection") -> tuple[str, Message] | None:
    row = connection.execute(
        "SELECT conversation_id, body, vendor FROM messages "
        "JOIN conversations ON conversations.id = messages.conversation WHERE message_id = ?",
        [message_id],
    ).fetchone()
    return None if row is None else (row[0], parse_message(row[1], row[2]))


def _read_path(
    conversation_id: str, message_id: str, limit: int, connection: "Connection"
) -> list[Message]:
    """Up from `message_id`; nothing where it belongs to another conversation."""
    found = connection.execute(
        """
        WITH RECURSIVE path (depth, parent_id, body, vendor) AS (
            SELECT 0, parent_id, body, vendor FROM messages
            WHERE message_id = :message_id AND conversation =
                (SELECT id FROM conversations WHERE conversation_id = :conversation_id)
            UNION ALL
            SELECT depth + 1, messages.parent_id, messages.body, messages.vendor
            FROM path JOIN messages ON messages.message_id = path.parent_id
        )
        SELECT body, vendor FROM path LIMIT :limit
        """,
        {"message_id": message_id, "conversation_id": conversation_id, "limit": limit},
    )
    return [parse_message(body, vendor) for body, vendor in found]

"""Conversations as a person sees them: listed, opened, looked through, changed and deleted.

Reads what is written and nothing else. Every answer is bounded, whatever a conversation holds.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from sidecar.errors import BadRequest, NotFound, StorageError
from sidecar.messages import Message, Usage
from sidecar.protocol.base import FRAME_BYTES_OUT
from sidecar.protocol.conversations import (
    Conversation,
    ConversationsCreated,
    ConversationsDeleted,
    ConversationsGetPayload,
    ConversationsGetResult,
    ConversationsListPayload,
    ConversationsListResult,
    ConversationsSearchPayload,
    ConversationsSearchResult,
    ConversationsUpdated,
    ConversationsUpdatePayload,
    DeletedConversations,
    SearchHit,
)
from sidecar.protocol.frames import newest_parts
from sidecar.store import rows, transfer
from sidecar.store.conversations import Change, Conversations
from sidecar.store.database import Database
from sidecar.store.records import (
    CONVERSATION_COLUMNS,
    ids_of,
    marks,
    parse_conversation,
    parse_message,
    search_terms,
    snippet,
    title_of,
)
from sidecar.store.transfer import Form, Whole
from sidecar.threads import run_in_thread

if TYPE_CHECKING:
    from sqlite3 import Connection

PAGE_BYTES = FRAME_BYTES_OUT * 3 // 4  # of messages in one answer

Publish = Callable[[Change | ConversationsDeleted], None]


@dataclass(frozen=True, slots=True)
class Deleted:
    conversation_ids: tuple[str, ...]
    attachment_ids: tuple[str, ...]
    """What no message shows any more."""


class History:
    """Every method raises StorageError."""

    def __init__(self, database: Database, conversations: Conversations, publish: Publish) -> None:
        """`publish` is called from the event loop and never waits."""
        self._database = database
        self._conversations = conversations
        self._publish = publish

    async def page(self, asked: ConversationsListPayload) -> ConversationsListResult:
        """Raises BadRequest for a cursor that is none of ours."""
        return await self._database.read(partial(_list, asked, _parse_cursor(asked.cursor)))

    async def get(self, asked: ConversationsGetPayload) -> ConversationsGetResult:
        """With what could not be written so far. Raises NotFound."""
        held = self._conversations.unwritten(asked.conversation_id)
        if asked.before in {each.message_id for each in held}:
            asked, held = asked.model_copy(update={"before": None}), ()
        try:
            found = await self._database.read(partial(_get, asked))
        except (NotFound, StorageError):
            if not held:
                raise
            return _of_memory(asked.conversation_id, held)
        if not held or asked.before is not None:
            return found
        together = (*found.messages, *held)
        messages = _fitting(together)
        return found.model_copy(
            update={
                "messages": messages,
                "has_more": found.has_more or len(messages) < len(together),
                "head": held[-1].message_id,
            }
        )

    async def search(self, asked: ConversationsSearchPayload) -> ConversationsSearchResult:
        return await self._database.read(partial(_search, asked))

    async def update(self, asked: ConversationsUpdatePayload) -> Conversation:
        """Raises NotFound, for the conversation or its new head."""
        updated = await self._database.write(partial(_update, asked))
        self._publish(ConversationsUpdated(data=updated))
        return updated

    async def delete(self, conversation_ids: Sequence[str] | None) -> Deleted:
        """These, or all of them for None."""
        deleted = await self._database.write(partial(_delete, conversation_ids))
        self._conversations.forget(deleted.conversation_ids)
        if deleted.conversation_ids:
            data = DeletedConversations(conversation_ids=deleted.conversation_ids)
            self._publish(ConversationsDeleted(data=data))
        return deleted

    async def fork(self, conversation_id: str, message_id: str) -> str:
        """A conversation with copies of the messages down to this one. Raises NotFound."""
        path = await self._conversations.path(conversation_id, message_id)
        if not path:
            raise NotFound(f"There is no message {message_id} in this conversation.")
        copy = await self._conversations.create()
        parent_id = None
        for message in path:
            update = {"message_id": uuid4().hex, "parent_id": parent_id, "usage": None}
            copied = message.model_copy(update=update)
            await self._conversations.append(copy, copied)
            parent_id = copied.message_id
        return copy

    async def export(
        self, conversation_ids: Sequence[str], format: Literal["markdown", "json"]
    ) -> AsyncIterator[bytes]:
        """The conversations as a file, one after the other; all of them where none is named.

        Raises NotFound when there is nothing to write.
        """
        found = await self._database.read(partial(_rows_of, conversation_ids))
        if not found:
            raise NotFound("There are no such conversations to export.")
        form = transfer.FORMS[format]

        async def pieces() -> AsyncIterator[bytes]:
            before = form.opening
            for row in found:
                written = await self._database.read(partial(_encoded, row, form))
                if written is not None:
                    yield (before + written).encode()
                    before = form.separator
            yield form.closing.encode()

        return pieces()

    async def import_file(self, file: Path) -> list[str]:
        """The new conversations' ids. Raises BadRequest, of the first that cannot be read."""
        made: list[str] = []
        with closing(transfer.read(file)) as found:
            while (whole := await run_in_thread(lambda: next(found, None), "import")) is not None:
                conversation_id = uuid4().hex
                created = await self._database.write(partial(_add_whole, conversation_id, whole))
                self._publish(ConversationsCreated(data=created))
                made.append(conversation_id)
        if not made:
            raise BadRequest("There is no conversation in this file.")
        return made

    async def count(self) -> int:
        """Of all conversations, the archived ones included."""
        return await self._database.read(_count)

    async def shown_attachments(self) -> frozenset[str]:
        """All that some message shows."""
        return await self._database.read(_shown_attachments)


def _list(
    asked: ConversationsListPayload, after: Sequence[object] | None, connection: "Connection"
) -> ConversationsListResult:
    below = "" if after is None else "AND (pinned, updated_at, id) < (?, ?, ?)"
    found = connection.execute(
        f"SELECT {CONVERSATION_COLUMNS}, id FROM conversations WHERE archived = ? {below} "
        "ORDER BY pinned DESC, updated_at DESC, id DESC LIMIT ?",
        [asked.archived, *(after or ()), asked.limit + 1],
    ).fetchall()
    items = tuple(parse_conversation(row) for row in found[: asked.limit])
    cursor = None
    if len(found) > asked.limit:
        last = items[-1]
        cursor = _cursor([int(last.pinned), last.updated_at, found[asked.limit - 1][-1]])
    return ConversationsListResult(items=items, next_cursor=cursor)


def _get(asked: ConversationsGetPayload, connection: "Connection") -> ConversationsGetResult:
    row = connection.execute(
        f"SELECT {CONVERSATION_COLUMNS}, id, head FROM conversations WHERE conversation_id = ?",
        [asked.conversation_id],
    ).fetchone()
    if row is None:
        raise _no_conversation(asked.conversation_id)
    *_, conversation, head = row
    before = _row_of(connection, conversation, asked.before) if asked.before else None
    found = connection.execute(
        "SELECT id, status, body FROM messages WHERE conversation = ? AND id < ? "
        "ORDER BY id DESC LIMIT ?",
        [conversation, 2**62 if before is None else before, asked.limit + 1],
    )
    page: list[Message] = []
    room = PAGE_BYTES
    for message, status, body in found:
        if len(page) == asked.limit or (page and len(body.encode()) > room):
            break
        whole = parse_message(body)
        if status == "streaming":
            parts = rows.streamed_parts(connection, message)
            whole = whole.model_copy(update={"parts": parts})
        fitting, is_whole = newest_parts(whole, PAGE_BYTES)
        page.append(fitting if is_whole else fitting.model_copy(update={"truncated": True}))
        room -= len(body.encode())
    else:
        return ConversationsGetResult(
            conversation=parse_conversation(row),
            messages=tuple(reversed(page)),
            has_more=False,
            head=head,
        )
    return ConversationsGetResult(
        conversation=parse_conversation(row),
        messages=tuple(reversed(page)),
        has_more=True,
        head=head,
    )


def _fitting(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The newest of them, as many as one answer has room for."""
    kept: list[Message] = []
    room = PAGE_BYTES
    for message in reversed(messages):
        fitting, is_whole = newest_parts(message, room)
        room -= len(fitting.model_dump_json().encode())
        kept.append(fitting if is_whole else fitting.model_copy(update={"truncated": True}))
        if room <= 0 or not is_whole:
            break
    return tuple(reversed(kept))


def _of_memory(conversation_id: str, held: Sequence[Message]) -> ConversationsGetResult:
    """A conversation of which nothing could be written, or may be."""
    conversation = Conversation(
        conversation_id=conversation_id,
        title=title_of(held[0]),
        model=held[-1].model,
        created_at=held[0].created_at,
        updated_at=held[-1].created_at,
        message_count=len(held),
        pinned=False,
        archived=False,
        usage=sum((each.usage for each in held if each.usage), Usage()),
    )
    return ConversationsGetResult(
        conversation=conversation,
        messages=_fitting(held),
        has_more=False,
        head=held[-1].message_id,
    )


def _search(
    asked: ConversationsSearchPayload, connection: "Connection"
) -> ConversationsSearchResult:
    """Titles first, then messages."""
    pattern = "".join(f"\\{each}" if each in "\\%_" else each for each in asked.q.strip())
    titled = connection.execute(
        "SELECT conversation_id, title, updated_at FROM conversations "
        "WHERE title LIKE ? ESCAPE '\\' ORDER BY updated_at DESC LIMIT ?",
        [f"%{pattern}%", asked.limit],
    )
    hits = [
        SearchHit(
            conversation_id=conversation_id,
            message_id=None,
            title=title,
            snippet=title,
            created_at=at,
        )
        for conversation_id, title, at in titled
    ]
    terms = search_terms(asked.q)
    if terms is not None and len(hits) < asked.limit:
        hits += _messages_with(terms, asked, asked.limit - len(hits), connection)
    return ConversationsSearchResult(items=tuple(hits))


def _messages_with(
    terms: str, asked: ConversationsSearchPayload, limit: int, connection: "Connection"
) -> list[SearchHit]:
    # the newest first, not the best: FTS5 would have to rank every match to find the best
    found = connection.execute(
        "SELECT conversation_id, title, messages.body FROM texts "
        "JOIN messages ON messages.id = texts.rowid "
        "JOIN conversations ON conversations.id = messages.conversation "
        "WHERE texts MATCH ? ORDER BY texts.rowid DESC LIMIT ?",
        [terms, limit],
    )
    hits = []
    for conversation_id, title, body in found:
        message = parse_message(body)
        hits.append(
            SearchHit(
                conversation_id=conversation_id,
                message_id=message.message_id,
                title=title,
                snippet=snippet(message.text, asked.q),
                created_at=message.created_at,
            )
        )
    return hits


def _update(asked: ConversationsUpdatePayload, connection: "Connection") -> Conversation:
    row = connection.execute(
        "SELECT id FROM conversations WHERE conversation_id = ?", [asked.conversation_id]
    ).fetchone()
    if row is None:
        raise _no_conversation(asked.conversation_id)
    changes = _changes(asked)
    if asked.head is not None:
        _row_of(connection, row[0], asked.head)
    for column, value in changes.items():
        connection.execute(f"UPDATE conversations SET {column} = ? WHERE id = ?", [value, row[0]])
    return _conversation(connection, row[0])


def _changes(asked: ConversationsUpdatePayload) -> dict[str, object]:
    """Columns and their new values. Null takes a setting away, and is nothing elsewhere."""
    given = asked.model_fields_set - {"conversation_id"}
    changes: dict[str, object] = {
        name: value
        for name in ("title", "pinned", "archived", "head")
        if (value := getattr(asked, name)) is not None
    }
    if asked.title is not None:
        changes["titled_by"] = "person"
    for name in ("model", "system_prompt"):
        if name in given:
            changes[name] = getattr(asked, name)
    for name in ("params", "tools"):
        if name in given:
            value = getattr(asked, name)
            changes[name] = None if value is None else value.model_dump_json(exclude_unset=True)
    return changes


def _rows_of(conversation_ids: Sequence[str], connection: "Connection") -> list[int]:
    """Of these conversations, or of all of them; the newest first."""
    which = f"WHERE conversation_id IN ({marks(conversation_ids)})" if conversation_ids else ""
    return ids_of(
        connection.execute(
            f"SELECT id FROM conversations {which} ORDER BY updated_at DESC, id DESC",
            conversation_ids,
        )
    )


def _encoded(row: int, form: Form, connection: "Connection") -> str | None:
    """None when it was deleted in the meantime."""
    about = connection.execute(
        "SELECT title, created_at, head, model, system_prompt FROM conversations WHERE id = ?",
        [row],
    ).fetchone()
    if about is None:
        return None
    bodies = connection.execute(
        "SELECT body FROM messages WHERE conversation = ? AND status <> 'streaming' ORDER BY id",
        [row],
    )
    title, created_at, head, model, system_prompt = about
    messages = [parse_message(body) for (body,) in bodies]
    return form.encode(Whole(title, created_at, messages, head, model, system_prompt))


def _add_whole(conversation_id: str, whole: Whole, connection: "Connection") -> Conversation:
    rows.add_messages(connection, conversation_id, whole.messages, is_new=True, retry=None)
    connection.execute(
        "UPDATE conversations SET title = ?, titled_by = 'person', created_at = ?, "
        "updated_at = ?, head = ?, model = coalesce(?, model), system_prompt = ? "
        "WHERE conversation_id = ?",
        [
            whole.title,
            whole.created_at,
            max(message.created_at for message in whole.messages),
            whole.head,
            whole.model,
            whole.system_prompt,
            conversation_id,
        ],
    )
    [row] = _rows_of([conversation_id], connection)
    return _conversation(connection, row)


def _delete(conversation_ids: Sequence[str] | None, connection: "Connection") -> Deleted:
    which = (
        "" if conversation_ids is None else f"WHERE conversation_id IN ({marks(conversation_ids)})"
    )
    found = connection.execute(
        f"SELECT id, conversation_id FROM conversations {which}", conversation_ids or ()
    ).fetchall()
    shown = set()
    for conversation, _ in found:
        shown.update(
            ids_of(
                connection.execute(
                    "SELECT attachment_id FROM shown_attachments JOIN messages "
                    "ON messages.id = shown_attachments.message WHERE conversation = ?",
                    [conversation],
                )
            )
        )
        connection.execute(
            "DELETE FROM texts WHERE rowid IN (SELECT id FROM messages WHERE conversation = ?)",
            [conversation],
        )
        connection.execute("DELETE FROM conversations WHERE id = ?", [conversation])
    return Deleted(
        conversation_ids=tuple(conversation_id for _, conversation_id in found),
        attachment_ids=tuple(sorted(shown - _shown_attachments(connection))),
    )


def _shown_attachments(connection: "Connection") -> frozenset[str]:
    return frozenset(
        ids_of(connection.execute("SELECT DISTINCT attachment_id FROM shown_attachments"))
    )


def _count(connection: "Connection") -> int:
    [count] = connection.execute("SELECT count(*) FROM conversations").fetchone()
    return int(count)


def _conversation(connection: "Connection", row: int) -> Conversation:
    return parse_conversation(
        connection.execute(
            f"SELECT {CONVERSATION_COLUMNS} FROM conversations WHERE id = ?", [row]
        ).fetchone()
    )


def _row_of(connection: "Connection", conversation: int, message_id: str) -> int:
    row = connection.execute(
        "SELECT id FROM messages WHERE message_id = ? AND conversation = ?",
        [message_id, conversation],
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no message {message_id} in this conversation.")
    return int(row[0])


def _no_conversation(conversation_id: str) -> NotFound:
    return NotFound(f"There is no conversation {conversation_id}; it may have been deleted.")


def _cursor(position: Sequence[object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def _parse_cursor(cursor: str | None) -> Sequence[object] | None:
    if cursor is None:
        return None
    try:
        pinned, updated_at, row = json.loads(base64.urlsafe_b64decode(cursor))
    except ValueError as error:
        raise BadRequest("cursor is not one that conversations.list gave.") from error
    return [int(pinned), str(updated_at), int(row)]

"""The transactions that write conversations: one function each, run in the store's thread."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from sidecar.messages import (
    ErrorInfo,
    FinishReason,
    Message,
    Part,
    ToolCallPart,
    ToolResultPart,
    Usage,
    now,
)
from sidecar.store.records import (
    encode_part,
    join_pieces,
    message_row,
    parse_message,
    searched,
    title_of,
)

if TYPE_CHECKING:
    from sqlite3 import Connection

RETRY_KEY_S = 24 * 60 * 60
CUT = "The sidecar ended in the middle of this answer; what was kept of it is here."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Retry:
    """What a chat with a retry_key became; `finish_reason` is None while it runs."""

    retry_key: str
    digest: bytes
    run_id: str
    conversation_id: str
    user_message_id: str
    message_id: str
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a message has gained: parts by their place, where the first may go on with one."""

    conversation_id: str
    message: Message
    """As it began: streaming, and without parts."""
    gained: Sequence[tuple[int, Part]]


def add_messages(
    connection: "Connection",
    conversation_id: str,
    messages: Sequence[Message],
    *,
    is_new: bool,
    retry: Retry | None,
) -> bool:
    """False when the conversation is not there any more: somebody deleted it."""
    conversation = _conversation(connection, conversation_id)
    if conversation is None:
        if not is_new:
            return False
        conversation = _create(connection, conversation_id, messages[0])
    for message in messages:
        _put(connection, conversation, message)
    if retry is not None:
        remember_retry(connection, retry)
    return True


def add_progress(connection: "Connection", progress: Iterable[Progress]) -> None:
    for each in progress:
        conversation = _conversation(connection, each.conversation_id)
        if conversation is None:  # it was deleted, or could not be written so far
            continue
        message = _find(connection, each.message.message_id)
        if message is None:
            message = _insert(connection, conversation, each.message)
        connection.executemany(
            "INSERT INTO pieces (message, place, part) VALUES (?, ?, ?)",
            [(message, place, encode_part(part)) for place, part in each.gained],
        )


def recover(connection: "Connection") -> None:
    """Close what a program that was killed had begun, and forget what is too old to matter."""
    cut = connection.execute(
        "SELECT id, conversation, body FROM messages WHERE status = 'streaming'"
    ).fetchall()
    for row, conversation, body in cut:
        parts = streamed_parts(connection, row)
        update = {
            "parts": (*parts, *_closing(parts)),
            "status": "interrupted",
            "error": CUT,
            "error_info": ErrorInfo(code="interrupted", retryable=True, origin="server"),
        }
        _put(connection, conversation, parse_message(body).model_copy(update=update))
    if cut:
        log.warning("answers_interrupted", count=len(cut))
    oldest = datetime.now(UTC) - timedelta(seconds=RETRY_KEY_S)
    connection.execute("DELETE FROM retries WHERE at < ?", [oldest.isoformat()])


def streamed_parts(connection: "Connection", message: int) -> tuple[Part, ...]:
    """What was kept of a message that is, or was, being written."""
    pieces = connection.execute(
        "SELECT place, part FROM pieces WHERE message = ? ORDER BY id", [message]
    )
    return tuple(join_pieces(pieces))


def remember_retry(connection: "Connection", retry: Retry) -> None:
    connection.execute(
        "INSERT INTO retries VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET finish_reason = excluded.finish_reason",
        [
            retry.retry_key,
            retry.digest,
            retry.run_id,
            retry.conversation_id,
            retry.user_message_id,
            retry.message_id,
            retry.finish_reason,
            now(),
        ],
    )


def find_retry(connection: "Connection", retry_key: str) -> Retry | None:
    row = connection.execute(
        "SELECT retry_key, digest, run_id, conversation_id, user_message_id, message_id, "
        "finish_reason FROM retries WHERE retry_key = ?",
        [retry_key],
    ).fetchone()
    return None if row is None else Retry(*row)


def _closing(parts: Sequence[Part]) -> list[ToolResultPart]:
    """A result for each call that has none: vendors reject one without."""
    answered = {part.tool_call_id for part in parts if isinstance(part, ToolResultPart)}
    return [
        ToolResultPart(
            tool_call_id=part.tool_call_id,
            status="unknown",
            text="The sidecar ended while this call ran. Whether it took effect is unknown.",
            duration_ms=0,
        )
        for part in parts
        if isinstance(part, ToolCallPart) and part.tool_call_id not in answered
    ]


def _conversation(connection: "Connection", conversation_id: str) -> int | None:
    row = connection.execute(
        "SELECT id FROM conversations WHERE conversation_id = ?", [conversation_id]
    ).fetchone()
    return None if row is None else int(row[0])


def _find(connection: "Connection", message_id: str) -> int | None:
    row = connection.execute(
        "SELECT id FROM messages WHERE message_id = ?", [message_id]
    ).fetchone()
    return None if row is None else int(row[0])


def _create(connection: "Connection", conversation_id: str, first: Message) -> int:
    at = first.created_at
    [row] = connection.execute(
        "INSERT INTO conversations "
        "(conversation_id, title, titled_by, usage, created_at, updated_at) "
        "VALUES (?, ?, 'words', ?, ?, ?) RETURNING id",
        [conversation_id, title_of(first), Usage().model_dump_json(), at, at],
    ).fetchone()
    return int(row)


def _insert(connection: "Connection", conversation: int, message: Message) -> int:
    """A message that is new becomes the head; its end does not, when the person left it since."""
    body, vendor = message_row(message)
    [row] = connection.execute(
        "INSERT INTO messages (message_id, conversation, parent_id, status, body, vendor) "
        "VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        [message.message_id, conversation, message.parent_id, message.status, body, vendor],
    ).fetchone()
    connection.execute(
        "UPDATE conversations SET message_count = message_count + 1, updated_at = ?, "
        "head = ? WHERE id = ?",
        [now(), message.message_id, conversation],
    )
    return int(row)


def _put(connection: "Connection", conversation: int, message: Message) -> None:
    """A message in its final form, whether a part of it was there already or not."""
    row = _find(connection, message.message_id)
    if row is None:
        row = _insert(connection, conversation, message)
    else:
        body, vendor = message_row(message)
        connection.execute(
            "UPDATE messages SET status = ?, body = ?, vendor = ? WHERE id = ?",
            [message.status, body, vendor, row],
        )
        connection.execute("DELETE FROM pieces WHERE message = ?", [row])
        connection.execute("DELETE FROM texts WHERE rowid = ?", [row])
    if text := message.text:
        connection.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", [row, searched(text)])
    connection.executemany(
        "INSERT OR IGNORE INTO shown_attachments VALUES (?, ?)",
        [(attachment_id, row) for attachment_id in message.attachment_ids],
    )
    _account(connection, conversation, message)


def _account(connection: "Connection", conversation: int, message: Message) -> None:
    [usage] = connection.execute(
        "SELECT usage FROM conversations WHERE id = ?", [conversation]
    ).fetchone()
    total = Usage.model_validate_json(usage) + (message.usage or Usage())
    connection.execute(
        "UPDATE conversations SET usage = ?, updated_at = ?, model = coalesce(?, model) "
        "WHERE id = ?",
        [total.model_dump_json(), now(), message.model, conversation],
    )

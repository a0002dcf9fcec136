"""What was said before, in the terminal: listed, looked through, written out and deleted.

Answers go to stdout, the rest to stderr; what others wrote has its control characters escaped.
"""

import sys
from typing import Literal

from sidecar.client import Client
from sidecar.protocol.conversations import (
    CONVERSATIONS_PAGE,
    Conversation,
    ConversationsDelete,
    ConversationsDeletePayload,
    ConversationsExport,
    ConversationsExportPayload,
    ConversationsImport,
    ConversationsImportPayload,
    ConversationsList,
    ConversationsListPayload,
    ConversationsSearch,
    ConversationsSearchPayload,
)
from sidecar.visible import visible

FOUND = 20


async def print_conversations(client: Client, limit: int, *, archived: bool) -> int:
    """A line each: id, when it was last used, title."""
    left, cursor = limit, None
    while left > 0:
        asked = ConversationsListPayload(
            limit=min(left, CONVERSATIONS_PAGE), cursor=cursor, archived=archived
        )
        page = await client.request(ConversationsList, asked)
        for conversation in page.items:
            print(_line(conversation))
        left -= len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    if left == limit:
        _note("There are no conversations.")
    return 0


async def search(client: Client, words: str) -> int:
    """1 when nothing was found."""
    asked = ConversationsSearchPayload(q=words, limit=FOUND)
    found = await client.request(ConversationsSearch, asked)
    for hit in found.items:
        print(f"{hit.conversation_id}  {_flat(hit.title)}\n    {_flat(hit.snippet)}")
    if not found.items:
        _note("Nothing was found.")
    return 0 if found.items else 1


async def export(
    client: Client, conversation_ids: tuple[str, ...], form: Literal["markdown", "json"]
) -> int:
    """To stdout, all of them where none is named."""
    asked = ConversationsExportPayload(conversation_ids=conversation_ids, format=form)
    written = await client.request(ConversationsExport, asked)
    sys.stdout.buffer.write(await client.fetch(written.attachment_id))
    sys.stdout.buffer.flush()
    return 0


async def import_file(client: Client, data: bytes) -> int:
    asked = ConversationsImportPayload(attachment_id=await client.send_import(data))
    made = await client.request(ConversationsImport, asked)
    _note(f"{len(made.items)} conversations were imported.")
    return 0


async def delete(client: Client, conversation_ids: tuple[str, ...], *, everything: bool) -> int:
    """1 when one of them was not there."""
    asked = ConversationsDeletePayload(conversation_ids=conversation_ids, all=everything)
    deleted = (await client.request(ConversationsDelete, asked)).deleted
    _note(f"{deleted} conversations were deleted.")
    return 0 if everything or deleted == len(conversation_ids) else 1


def _line(conversation: Conversation) -> str:
    pin = "* " if conversation.pinned else "  "
    when = conversation.updated_at[:16].replace("T", " ")
    return f"{conversation.conversation_id}  {when} {pin}{_flat(conversation.title)}"


def _flat(text: str) -> str:
    return " ".join(visible(text).split())


def _note(text: str) -> None:
    print(text, file=sys.stderr)

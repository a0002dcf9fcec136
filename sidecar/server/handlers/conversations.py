"""What was said before: read, change and delete it."""

from sidecar.errors import BadRequest
from sidecar.protocol.base import IMPORT_BYTES
from sidecar.protocol.conversations import (
    Conversation,
    ConversationsDeletePayload,
    ConversationsDeleteResult,
    ConversationsExportPayload,
    ConversationsExportResult,
    ConversationsForkPayload,
    ConversationsForkResult,
    ConversationsGetPayload,
    ConversationsGetResult,
    ConversationsImportPayload,
    ConversationsImportResult,
    ConversationsListPayload,
    ConversationsListResult,
    Imported,
)
from sidecar.server.handlers.services import Services

_FILES = {"markdown": ("text/markdown", "md"), "json": ("application/json", "json")}


async def list_conversations(
    services: Services, asked: ConversationsListPayload
) -> ConversationsListResult:
    found = await services.history.page(asked)
    items = tuple(_with_run(services, each) for each in found.items)
    return found.model_copy(update={"items": items})


async def get(services: Services, asked: ConversationsGetPayload) -> ConversationsGetResult:
    found = await services.history.get(asked)
    conversation = _with_run(services, found.conversation)
    return found.model_copy(update={"conversation": conversation})


async def delete(
    services: Services, asked: ConversationsDeletePayload
) -> ConversationsDeleteResult:
    """What goes on in them is cancelled first; the files that only they showed go with them."""
    if asked.all == bool(asked.conversation_ids):
        raise BadRequest("Name conversations by conversation_ids, or all of them with all: true.")
    chosen = None if asked.all else asked.conversation_ids
    await services.runs.end_in(chosen)
    deleted = await services.history.delete(chosen)
    await services.attachments.delete(deleted.attachment_ids)
    return ConversationsDeleteResult(deleted=len(deleted.conversation_ids))


async def fork(services: Services, asked: ConversationsForkPayload) -> ConversationsForkResult:
    copy = await services.history.fork(asked.conversation_id, asked.message_id)
    return ConversationsForkResult(conversation_id=copy)


async def export(
    services: Services, asked: ConversationsExportPayload
) -> ConversationsExportResult:
    """All of them where none is named. Raises NotFound when there is nothing to write."""
    written = await services.history.export(asked.conversation_ids, asked.format)
    mime, ending = _FILES[asked.format]
    name = f"conversations.{ending}"
    kept = await services.attachments.receive(written, name, mime, max_bytes=IMPORT_BYTES)
    return ConversationsExportResult(
        attachment_id=kept.attachment_id, bytes=kept.bytes, mime=kept.mime
    )


async def import_(
    services: Services, asked: ConversationsImportPayload
) -> ConversationsImportResult:
    """What was read before an error stays; the file is removed only after all of it was read."""
    file = await services.attachments.file(asked.attachment_id)
    made = await services.history.import_file(file)
    await services.attachments.delete([asked.attachment_id])
    items = tuple(Imported(conversation_id=each) for each in made)
    return ConversationsImportResult(items=items)


def _with_run(services: Services, conversation: Conversation) -> Conversation:
    run_id = services.runs.running_in(conversation.conversation_id)
    return conversation.model_copy(update={"run_id": run_id}) if run_id else conversation

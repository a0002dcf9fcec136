"""What was said before: read, change and delete it."""

from sidecar.errors import BadRequest
from sidecar.protocol.conversations import (
    Conversation,
    ConversationsDeletePayload,
    ConversationsDeleteResult,
    ConversationsForkPayload,
    ConversationsForkResult,
    ConversationsGetPayload,
    ConversationsGetResult,
    ConversationsListPayload,
    ConversationsListResult,
)
from sidecar.server.handlers.services import Services


async def list_conversations(
    services: Services, asked: ConversationsListPayload
) -> ConversationsListResult:
    found = await services.history.list(asked)
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


def _with_run(services: Services, conversation: Conversation) -> Conversation:
    run_id = services.runs.running_in(conversation.conversation_id)
    return conversation.model_copy(update={"run_id": run_id}) if run_id else conversation

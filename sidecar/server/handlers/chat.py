"""Chats, their runs and their files."""

from binascii import a2b_base64
from collections.abc import AsyncIterator
from functools import partial

from sidecar.chat.base import Attachments
from sidecar.chat.run import Run
from sidecar.errors import BadRequest
from sidecar.protocol.chat import (
    AttachmentsCreatePayload,
    AttachmentsCreateResult,
    CancelPayload,
    CancelResult,
    ChatPayload,
    RegeneratePayload,
)
from sidecar.server.connection import Connection
from sidecar.server.follow import Follow
from sidecar.server.handlers.services import Services
from sidecar.threads import run_in_thread


async def start(
    services: Services, chat: ChatPayload, request_id: str, connection: Connection
) -> Follow:
    if connection.is_extended:
        return Follow(request_id, await services.runs.start(chat), 0)
    # a basic client has one conversation, waits its turn in it, and cannot come back for a run
    run = await services.runs.start(chat, queue=True, conversation_id=connection.conversation_id)
    connection.conversation_id = run.conversation_id
    return Follow(request_id, run, 0)


async def regenerate(services: Services, again: RegeneratePayload, request_id: str) -> Follow:
    return Follow(request_id, await services.runs.regenerate(again), 0)


def cancel(services: Services, cancel: CancelPayload, connection: Connection) -> CancelResult:
    if (cancel.run_id is None) == (cancel.target is None):
        raise BadRequest("Name what to cancel by run_id or by target, the chat's request_id.")
    run_id = cancel.run_id
    if cancel.target is not None:
        followed = connection.followed(cancel.target)
        run_id = followed.run_id if followed else None
    return CancelResult(
        cancelled=run_id is not None and services.runs.cancel(run_id, cancel.tool_call_id)
    )


def from_seq(run: Run, after_seq: int) -> int:
    """The first seq to send; the terminal frame comes whatever was seen before."""
    newest = run.log.next_seq - 1
    if after_seq > newest:
        raise BadRequest(f"This run's newest seq is {newest}; after_seq cannot be {after_seq}.")
    return min(after_seq + 1, newest) if run.ended.is_set() else after_seq + 1


async def keep(attachments: Attachments, file: AttachmentsCreatePayload) -> AttachmentsCreateResult:
    try:
        data = await run_in_thread(partial(a2b_base64, file.data_b64, strict_mode=True), "base64")
    except ValueError as error:
        raise BadRequest(f"payload.data_b64 is not base64: {error}.") from error

    async def whole() -> AsyncIterator[bytes]:
        yield data

    kept = await attachments.receive(whole(), file.name)
    return AttachmentsCreateResult(
        attachment_id=kept.attachment_id, bytes=kept.bytes, mime=kept.mime
    )

"""All that is sent to a client. Unknown fields are to be ignored."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from sidecar.errors import SidecarError
from sidecar.messages import ErrorInfo, Message, Part, ReasoningPart, TextPart, optional
from sidecar.protocol.approvals import ApprovalsResolveResult, RulesDeleteResult, RulesListResult
from sidecar.protocol.base import Empty, Metadata
from sidecar.protocol.chat import AttachmentsCreateResult, CancelResult, ChatResult
from sidecar.protocol.chunks import Chunk
from sidecar.protocol.conversations import (
    Conversation,
    ConversationsCompactResult,
    ConversationsDeleteResult,
    ConversationsExportResult,
    ConversationsForkResult,
    ConversationsGetResult,
    ConversationsImportResult,
    ConversationsListResult,
    ConversationsSearchResult,
)
from sidecar.protocol.elicitations import ElicitationsResolveResult
from sidecar.protocol.events import Event
from sidecar.protocol.mcp import (
    AuthorizeResult,
    McpServersImportResult,
    McpServersListResult,
    McpServerStatus,
    ServerLogsResult,
    ToolsCallResult,
    ToolsListResult,
)
from sidecar.protocol.program import ConfigGetResult, DiagnosticsResult, HelloResult
from sidecar.protocol.providers import (
    KeysSetResult,
    KeysStatusResult,
    ModelsListResult,
    ProvidersListResult,
    ProvidersTestResult,
)


class Frame(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class StartedMetadata(Metadata):
    user_message: str
    run_id: str
    conversation_id: str
    user_message_id: str
    message_id: str
    model: str


class Started(Metadata):
    """The origin's shape for "accepted": a chunk without type and data."""

    type: None = None
    data: None = None
    metadata: StartedMetadata


class ProcessingFrame(Frame):
    """A chat was accepted; the first frame of its run."""

    request_id: str
    status: Literal["processing"] = "processing"
    seq: int
    chunk: Started


class ChunkFrame(Frame):
    request_id: str
    status: Literal["chunk"] = "chunk"
    seq_from: int | None = optional("The first seq of several that were joined.")
    seq: int
    chunk: Chunk


AnyResult: TypeAlias = (
    HelloResult
    | ChatResult
    | CancelResult
    | AttachmentsCreateResult
    | ConversationsListResult
    | ConversationsGetResult
    | ConversationsSearchResult
    | Conversation
    | ConversationsDeleteResult
    | ConversationsForkResult
    | ConversationsCompactResult
    | ConversationsExportResult
    | ConversationsImportResult
    | ModelsListResult
    | ProvidersListResult
    | ProvidersTestResult
    | KeysStatusResult
    | KeysSetResult
    | ApprovalsResolveResult
    | ElicitationsResolveResult
    | RulesListResult
    | RulesDeleteResult
    | McpServersListResult
    | McpServersImportResult
    | McpServerStatus
    | ServerLogsResult
    | AuthorizeResult
    | ToolsListResult
    | ToolsCallResult
    | ConfigGetResult
    | DiagnosticsResult
    | Empty
)


class CompleteFrame(Frame):
    request_id: str
    status: Literal["complete"] = "complete"
    seq: int | None = optional("The run's last seq, where the request follows a run.")
    result: AnyResult


class ErrorFrame(Frame):
    request_id: str | None
    status: Literal["error"] = "error"
    seq: int | None = optional("The run's last seq, where the request follows a run.")
    error: str = Field(description="For a person: what happened and what to do.")
    error_info: ErrorInfo


class EventFrame(Frame):
    request_id: None = None
    status: Literal["event"] = "event"
    event_seq: int
    event: Event


AnyFrame: TypeAlias = Annotated[
    ProcessingFrame | ChunkFrame | CompleteFrame | ErrorFrame | EventFrame,
    Field(discriminator="status"),
]


def error_info(error: SidecarError) -> ErrorInfo:
    wait = error.retry_after_s
    return ErrorInfo(
        code=error.code,
        retryable=error.can_retry,
        retry_after_ms=None if wait is None else round(wait * 1000),
        origin=error.origin,
        provider=error.provider,
        server=error.server,
        http_status=error.http_status,
        detail=error.detail,
    )


def encode(frame: Frame) -> str:
    return frame.model_dump_json(by_alias=True)


def newest_parts(message: Message, max_bytes: int) -> tuple[Message, bool]:
    """The message with as many of its last parts as fit, and whether all of them did."""
    kept: list[Part] = []
    left = max_bytes
    for part in reversed(message.parts):
        size = len(part.model_dump_json().encode())
        if size <= left:
            kept.append(part)
            left -= size
            continue
        tail_chars = left // 6  # a character is six bytes of JSON at worst
        if isinstance(part, TextPart | ReasoningPart) and tail_chars:
            kept.append(type(part)(text=part.text[-tail_chars:]))
        return message.model_copy(update={"parts": tuple(reversed(kept))}), False
    return message, True

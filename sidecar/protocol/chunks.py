"""What a run tells while it goes on."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sidecar.messages import (
    ErrorInfo,
    JsonObject,
    Message,
    ToolContent,
    ToolStatus,
    Usage,
    optional,
)
from sidecar.protocol.base import Metadata, NoMetadata


class ChunkModel(BaseModel):
    """`basic` chunks are the origin's three; the others go to clients that said hello."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    basic: ClassVar[bool] = False


class TextChunk(ChunkModel):
    basic = True
    type: Literal["text"] = "text"
    data: str = Field(description="A piece of the answer.")
    metadata: NoMetadata = NoMetadata.model_construct()


class ReasoningChunk(ChunkModel):
    type: Literal["reasoning"] = "reasoning"
    data: str = Field(description="A piece of what the model thinks before it answers.")
    metadata: NoMetadata = NoMetadata.model_construct()


class ToolCallMetadata(Metadata):
    tool_call_id: str
    server: str | None
    name: str
    offered_as: str
    arguments: JsonObject
    invalid_arguments: str | None = optional("What the model wrote, when it was no JSON object.")
    truncated: bool | None = optional("True when the arguments were too long for a frame.")


class ToolCallChunk(ChunkModel):
    basic = True
    type: Literal["tool_call"] = "tool_call"
    data: str = Field(
        description="The arguments as JSON. Comes once a call, when they are complete."
    )
    metadata: ToolCallMetadata


class ToolArgumentsMetadata(Metadata):
    tool_call_id: str


class ToolArgumentsChunk(ChunkModel):
    type: Literal["tool_arguments"] = "tool_arguments"
    data: str = Field(description="A piece of a call's arguments while the model writes them.")
    metadata: ToolArgumentsMetadata


class ToolProgressMetadata(Metadata):
    tool_call_id: str
    progress: float
    total: float | None = optional("Where the server gives one.")


class ToolProgressChunk(ChunkModel):
    type: Literal["tool_progress"] = "tool_progress"
    data: str | None = Field(
        default=None, description="What the server says of how far a running call is, if anything."
    )
    metadata: ToolProgressMetadata


class ToolResultMetadata(Metadata):
    tool_call_id: str
    status: ToolStatus
    duration_ms: int
    reason: str | None = optional("Why it was not run: unanswered, rule, off, person, …")
    arguments_used: JsonObject | None = optional("The arguments, when the person changed them.")
    content: tuple[ToolContent, ...] | None = optional("The result's blocks, where not only text.")
    structured_content: JsonValue | None = optional("As the tool's output schema has it.")
    truncated: bool | None = optional("True when the text was cut to the limit.")


class ToolResultChunk(ChunkModel):
    basic = True
    type: Literal["tool_result"] = "tool_result"
    data: str = Field(description="The text for display, and what the model reads.")
    metadata: ToolResultMetadata


class UsageChunk(ChunkModel):
    type: Literal["usage"] = "usage"
    data: None = Field(
        default=None,
        description="Closes a step with its own figures; `complete.result.usage` is the sum.",
    )
    metadata: Usage


class RetryMetadata(Metadata):
    attempt: int
    max: int
    delay_ms: int
    error_info: ErrorInfo


class RetryChunk(ChunkModel):
    type: Literal["retry"] = "retry"
    data: str = Field(description="For a person: what happened and what follows.")
    metadata: RetryMetadata


class NoticeMetadata(Metadata):
    code: str


class NoticeChunk(ChunkModel):
    type: Literal["notice"] = "notice"
    data: str = Field(description="For a person: something to know that is no part of the answer.")
    metadata: NoticeMetadata


class AttachmentMetadata(Metadata):
    attachment_id: str
    mime: str
    name: str | None = optional("Where it has one.")


class ImageChunk(ChunkModel):
    type: Literal["image"] = "image"
    data: None = Field(default=None, description="An image that the model made.")
    metadata: AttachmentMetadata


class FileChunk(ChunkModel):
    type: Literal["file"] = "file"
    data: None = Field(default=None, description="A file that the model made.")
    metadata: AttachmentMetadata


class CitationMetadata(Metadata):
    url: str | None = optional("The page it cites.")
    title: str | None = optional("The title of what it cites.")


class CitationChunk(ChunkModel):
    type: Literal["citation"] = "citation"
    data: None = Field(default=None, description="Where the text before it comes from.")
    metadata: CitationMetadata


class ProviderItemMetadata(Metadata):
    kind: str = Field(description="The vendor's own word for it.")


class ProviderItemChunk(ChunkModel):
    type: Literal["provider_item"] = "provider_item"
    data: None = Field(
        default=None, description="What the vendor did by itself, such as a search of the web."
    )
    metadata: ProviderItemMetadata


class SnapshotMetadata(Metadata):
    message: Message
    seq: int = Field(description="Replaces everything up to this seq.")
    truncated: bool | None = optional("True when its beginning is left out, to fit a frame.")


class SnapshotChunk(ChunkModel):
    type: Literal["snapshot"] = "snapshot"
    data: None = Field(
        default=None, description="Sent first by a resume whose frames are no longer kept."
    )
    metadata: SnapshotMetadata


Chunk: TypeAlias = Annotated[
    TextChunk
    | ReasoningChunk
    | ToolCallChunk
    | ToolArgumentsChunk
    | ToolProgressChunk
    | ToolResultChunk
    | UsageChunk
    | RetryChunk
    | NoticeChunk
    | ImageChunk
    | FileChunk
    | CitationChunk
    | ProviderItemChunk
    | SnapshotChunk,
    Field(discriminator="type"),
]

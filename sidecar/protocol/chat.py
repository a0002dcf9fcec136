"""A chat and its run: start, cancel, come back; and the files that go with it."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from sidecar.messages import FinishReason, JsonObject, TextPart, Usage
from sidecar.protocol.base import CHAT_PARTS, EventModel, Inbound, Request, Result

UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


class Params(Inbound):
    """Sampling parameters; what is absent is left to the settings, then to the vendor."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, gt=0)
    reasoning_effort: str | None = Field(default=None, max_length=32)
    stop: tuple[str, ...] | None = Field(default=None, max_length=4)
    json_schema: JsonObject | None = Field(
        default=None, description="A JSON Schema that the answer must follow."
    )


class ToolChoice(Inbound):
    """Which tools a turn may use. It can only tighten what the rules allow."""

    mode: Literal["rules", "ask", "off"] = Field(
        default="rules", description="`rules` follows them, `ask` asks every time, `off` has none."
    )
    servers: tuple[str, ...] | None = Field(
        default=None, description="Only these servers; absent is all."
    )
    deny: tuple[str, ...] = Field(default=(), description="`server` or `server/tool`, left out.")


class AttachmentPart(Inbound):
    type: Literal["attachment"]
    attachment_id: str = Field(max_length=64)
    name: str | None = Field(
        default=None, max_length=256, description="Absent: what it was called when it was sent."
    )


ChatPart: TypeAlias = Annotated[TextPart | AttachmentPart, Field(discriminator="type")]


class ChatPayload(Inbound):
    text: str | None = Field(default=None, description="The message; or `parts`.")
    parts: tuple[ChatPart, ...] | None = Field(
        default=None, min_length=1, max_length=CHAT_PARTS, description="Text and files, in order."
    )
    conversation_id: str | None = Field(
        default=None, max_length=64, description="Absent: a new one; in basic mode the socket's."
    )
    parent_id: str | None = Field(
        default=None, max_length=64, description="Branch below this message; absent: the head."
    )
    replaces: str | None = Field(
        default=None, max_length=64, description="A user message; the new one is its sibling."
    )
    model: str | None = Field(default=None, max_length=256, description="`provider/model`.")
    system_prompt: str | None = None
    params: Params = Params.model_construct()
    tools: ToolChoice = ToolChoice.model_construct()
    store: bool = Field(default=True, description="False: the conversation is never written.")
    on_disconnect: Literal["continue", "cancel"] = Field(
        default="continue", description="What becomes of the run when its last follower leaves."
    )
    retry_key: str | None = Field(
        default=None,
        pattern=UUID,
        description="A UUID: the same chat sent again attaches to its run.",
    )


class ChatResult(Result):
    run_id: str
    conversation_id: str
    message_id: str
    finish_reason: FinishReason
    usage: Usage


class Chat(Request):
    result = ChatResult
    action: Literal["chat"]
    payload: ChatPayload


class RegeneratePayload(Inbound):
    """The rest is as in ChatPayload."""

    message_id: str = Field(
        max_length=64,
        description="An assistant's message gets a sibling; a user's is answered.",
    )
    model: str | None = Field(default=None, max_length=256)
    system_prompt: str | None = None
    params: Params = Params.model_construct()
    tools: ToolChoice = ToolChoice.model_construct()
    on_disconnect: Literal["continue", "cancel"] = "continue"
    retry_key: str | None = Field(default=None, pattern=UUID)


class Regenerate(Request):
    result = ChatResult
    action: Literal["regenerate"]
    payload: RegeneratePayload


class CancelPayload(Inbound):
    run_id: str | None = Field(default=None, max_length=256)
    target: str | None = Field(
        default=None, max_length=256, description="The chat's request_id, on this connection."
    )
    tool_call_id: str | None = Field(
        default=None, max_length=1024, description="Stop only this call; the turn goes on."
    )


class CancelResult(Result):
    cancelled: bool


class Cancel(Request):
    result = CancelResult
    action: Literal["cancel"]
    payload: CancelPayload


class ResumePayload(Inbound):
    run_id: str = Field(max_length=256)
    after_seq: int = Field(default=-1, ge=-1, description="The last seq seen; -1 replays all.")


class Resume(Request):
    result = ChatResult
    action: Literal["resume"]
    payload: ResumePayload


class RunInfo(Result):
    run_id: str
    conversation_id: str
    seq: int = Field(description="The newest seq.")
    state: Literal["running", "ended"]


class RunsStarted(EventModel):
    type: Literal["runs.started"] = "runs.started"
    data: RunInfo = Field(description="A turn began, in any window.")


class RunsEnded(EventModel):
    type: Literal["runs.ended"] = "runs.ended"
    data: RunInfo = Field(description="A turn ended, in any window.")


class AttachmentsCreatePayload(Inbound):
    name: str | None = Field(default=None, max_length=256)
    mime: str | None = Field(
        default=None, max_length=256, description="A hint; what it is, is seen from its bytes."
    )
    data_b64: str = Field(
        min_length=1,
        repr=False,
        description="Base64; a file that does not fit a frame goes to `POST /api/attachments`.",
    )


class AttachmentsCreateResult(Result):
    attachment_id: str
    bytes: int
    mime: str


class AttachmentsCreate(Request):
    result = AttachmentsCreateResult
    action: Literal["attachments.create"]
    payload: AttachmentsCreatePayload

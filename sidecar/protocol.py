"""What crosses the socket: requests in, frames out. This file is the protocol's definition.

A request gets exactly one terminal frame, `complete` or `error`. The schema, the TypeScript types
and the README's table are generated from these models; unknown fields of a request are errors,
unknown fields of a frame are to be ignored.
"""

import json
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from sidecar import jsons
from sidecar.errors import BadRequest, InvalidJson, SidecarError, UnknownAction
from sidecar.messages import (
    ErrorInfo,
    FinishReason,
    Hints,
    JsonObject,
    Message,
    Price,
    TextPart,
    ToolContent,
    ToolStatus,
    Usage,
    optional,
)

PROTOCOL_VERSION = 1
SUPPORTED_VERSIONS = (1,)

FRAME_BYTES_IN = 4 * 1024 * 1024
FRAME_BYTES_OUT = 512 * 1024
RESULT_BYTES = 64 * 1024  # of a tool's result, to the model
TOOLS_PER_SERVER = 512
DESCRIPTION_BYTES = 2 * 1024
ATTACHMENT_BYTES = 25 * 1024 * 1024
ATTACHMENTS_BYTES = 2 * 1024 * 1024 * 1024
CHAT_PARTS = 64
RUNS = 32
TOOL_CALLS = 64
ACTIONS_PER_S = 50
WAITING_TURNS = 16  # of a basic client, which has one conversation

CLOSE_SHUTDOWN = 1001
CLOSE_BINARY = 1003
CLOSE_TOO_BIG = 1009
CLOSE_SESSION_ENDED = 4001
CLOSE_SLOW_CONSUMER = 4008


# ---- in -------------------------------------------------------------------------------------


class Inbound(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Nothing(Inbound):
    """An empty payload."""


class Request(Inbound):
    """`{action, payload, request_id}`; `result` is the model of its `complete`."""

    result: ClassVar[type["Result"]]
    action: str
    request_id: str = Field(
        min_length=1, max_length=128, description="Chosen by the client; unique while unanswered."
    )


class ClientInfo(Inbound):
    name: str = Field(max_length=128)
    version: str = Field(default="", max_length=64)


class HelloPayload(Inbound):
    protocol: int = Field(description="The version that the client speaks.")
    client: ClientInfo | None = None
    events: tuple[str, ...] = Field(default=(), description='Topics of events; "*" is all.')
    answers: tuple[str, ...] = Field(
        default=(), description="What this client asks its person about: `approvals`."
    )


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
        pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        description="A UUID: the same chat sent again attaches to its run.",
    )


class CancelPayload(Inbound):
    run_id: str | None = Field(default=None, max_length=256)
    target: str | None = Field(
        default=None, max_length=256, description="The chat's request_id, on this connection."
    )
    tool_call_id: str | None = Field(
        default=None, max_length=1024, description="Stop only this call; the turn goes on."
    )


class ResumePayload(Inbound):
    run_id: str = Field(max_length=256)
    after_seq: int = Field(default=-1, ge=-1, description="The last seq seen; -1 replays all.")


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


class ModelsListPayload(Inbound):
    refresh: bool = Field(default=False, description="Ask the vendors again.")


class ProviderPayload(Inbound):
    provider: str = Field(max_length=256)


class KeysSetPayload(Inbound):
    provider: str = Field(max_length=256)
    key: str = Field(min_length=1, max_length=4096, repr=False)
    persist: bool = Field(default=True, description="False: for this run of the sidecar only.")


class ApprovalsResolvePayload(Inbound):
    approval_id: str = Field(max_length=256)
    decision: Literal["allow", "deny"]
    duration: Literal["once", "conversation", "always"] = "once"
    scope: Literal["tool", "server"] = "tool"
    arguments: JsonObject | None = Field(
        default=None, description="Run it with these instead; only with `once`."
    )


class RulesDeletePayload(Inbound):
    rule_id: str | None = Field(default=None, max_length=256)
    all: bool = False


class ServerPayload(Inbound):
    server: str = Field(max_length=256)


class ServerLogsPayload(Inbound):
    server: str = Field(max_length=256)
    limit: int = Field(default=200, ge=1, le=1000)


class ToolsListPayload(Inbound):
    server: str | None = Field(default=None, description="Only this server's tools.")


class ToolsCallPayload(Inbound):
    server: str = Field(max_length=256)
    name: str = Field(max_length=256)
    arguments: JsonObject = Field(default_factory=dict)


# ---- results --------------------------------------------------------------------------------


class Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Empty(Result):
    """`{}`."""


class ServerInfo(Result):
    name: Literal["sidecar"] = "sidecar"
    version: str
    instance: str = Field(description="New at every start.")


class Limits(Result):
    frame_bytes: int = FRAME_BYTES_IN
    frame_bytes_out: int = FRAME_BYTES_OUT
    runs: int = RUNS
    tool_calls: int = TOOL_CALLS
    actions_per_s: int = ACTIONS_PER_S
    tools_per_server: int = TOOLS_PER_SERVER
    description_bytes: int = DESCRIPTION_BYTES
    result_bytes: int = RESULT_BYTES
    attachment_bytes: int = ATTACHMENT_BYTES
    attachments_bytes: int = Field(default=ATTACHMENTS_BYTES, description="All of them together.")


class RunInfo(Result):
    run_id: str
    conversation_id: str
    seq: int = Field(description="The newest seq.")
    state: Literal["running", "ended"]


class ToolChange(Result):
    before: str = Field(description="The description when it was allowed.")
    after: str


class Approval(Result):
    """A tool call that waits for a person."""

    approval_id: str
    run_id: str | None = Field(description="Null for a call made with `mcp.tools.call`.")
    conversation_id: str | None
    tool_call_id: str
    server: str
    name: str
    description: str
    arguments: JsonObject
    arguments_truncated: bool | None = optional("True when they were too long to show in full.")
    hints: Hints
    changed: ToolChange | None = optional("It was allowed before, and has changed since.")
    expires_at: str


class Pending(Result):
    approvals: tuple[Approval, ...]


class HelloResult(Result):
    protocol: int
    server: ServerInfo
    connection_id: str
    capabilities: tuple[str, ...] = Field(
        description="Every action, and additions as action.field."
    )
    limits: Limits
    runs: tuple[RunInfo, ...]
    pending: Pending


class ChatResult(Result):
    run_id: str
    conversation_id: str
    message_id: str
    finish_reason: FinishReason
    usage: Usage


class CancelResult(Result):
    cancelled: bool


class AttachmentsCreateResult(Result):
    attachment_id: str
    bytes: int
    mime: str


class ModelItem(Result):
    model: str = Field(description="`provider/model`, as `chat` takes it.")
    provider: str
    name: str
    context: int | None = Field(description="Tokens; null is unknown, as everywhere here.")
    max_output: int | None
    vision: bool | None
    tools: bool | None
    reasoning: bool | None
    price: Price | None = optional("Where a table has it.")


class ProviderFault(Result):
    provider: str
    code: str
    message: str


class ModelsListResult(Result):
    items: tuple[ModelItem, ...]
    errors: tuple[ProviderFault, ...]


class ProviderItem(Result):
    provider: str
    kind: str
    base_url: str | None
    key_set: bool
    supported: bool = Field(description="False: this version has no client for its kind.")


class ProvidersListResult(Result):
    items: tuple[ProviderItem, ...]


class ProvidersTestResult(Result):
    provider: str
    ok: bool
    models: int | None = optional("How many models it offers.")
    duration_ms: int
    error: str | None = optional("What is wrong and what to do.")
    error_info: ErrorInfo | None = optional("The same for programs.")


class KeyItem(Result):
    provider: str
    set: bool
    source: Literal["session", "config", "keyring", "environment"] | None
    backend: str | None = Field(description="The keyring in use.")
    reason: str | None = optional("Why the keyring could not be asked, or the key not used.")


class KeysStatusResult(Result):
    items: tuple[KeyItem, ...]


class KeysSetResult(Result):
    source: Literal["session", "keyring"]
    shadowed_by: str | None = optional("A source that is looked at before this one.")


class ApprovalsResolveResult(Result):
    applied: bool = Field(description="False: somebody else was first.")
    decision: Literal["allow", "deny"]
    by: str = Field(description="connection_id, or cancel, shutdown, timeout.")


class Rule(Result):
    """A remembered decision. An allow holds for what the tool was when it was given."""

    rule_id: str
    decision: Literal["allow", "deny"]
    scope: Literal["tool", "server"]
    server: str
    name: str | None = Field(description="The tool; null at server scope.")
    conversation_id: str | None = Field(description="Null: always.")
    created_at: str
    source: Literal["person", "config"] = "person"


class RulesListResult(Result):
    items: tuple[Rule, ...]


class RulesDeleteResult(Result):
    deleted: int


ServerState = Literal[
    "disabled",
    "needs_approval",
    "idle",
    "starting",
    "ready",
    "degraded",
    "backoff",
    "needs_auth",
    "failed",
    "stopped",
]


class McpServerStatus(Result):
    server: str
    transport: Literal["stdio", "http"]
    state: ServerState
    era: str | None = Field(description="The negotiated MCP version.")
    fingerprint: str
    error: str | None = optional("Why it is not ready, for a person.")
    error_info: ErrorInfo | None = optional("The same for programs.")
    tools: int
    pid: int | None = optional("Of a stdio server that runs.")
    since: str = Field(description="When it came into this state.")


class McpServersListResult(Result):
    items: tuple[McpServerStatus, ...]


class ServerLogsResult(Result):
    items: tuple[str, ...] = Field(description="The last lines of its stderr, oldest first.")


class ToolItem(Result):
    server: str
    name: str
    offered_as: str
    title: str | None
    description: str
    input_schema: JsonObject
    output_schema: JsonObject | None
    hints: Hints
    permission: Literal["allow", "deny", "ask"]


class ToolsListResult(Result):
    items: tuple[ToolItem, ...]


class ToolsCallResult(Result):
    status: ToolStatus
    text: str
    content: tuple[ToolContent, ...]
    structured_content: JsonValue | None = optional("As the tool's output schema has it.")
    truncated: bool | None = optional("True when the text was cut to the limit.")
    duration_ms: int


class ConfigGetResult(Result):
    revision: str = Field(description="Changes with the settings.")
    settings: JsonObject = Field(description="Merged; a secret is `{masked: true}`.")
    sources: dict[str, str] = Field(description="Where each set value came from.")


FindingStatus = Literal["ok", "warning", "broken"]
FindingArea = Literal[
    "program", "settings", "folder", "log", "keyring", "provider", "command", "mcp", "port"
]


class Finding(Result):
    """One thing that was looked at."""

    status: FindingStatus = Field(
        description="`broken` is what is needed and does not work; `warning` can wait."
    )
    area: FindingArea
    name: str | None = optional("Which one, where there are several: a provider, a server, …")
    text: str = Field(description="What was found, and what to do about it.")
    code: str | None = optional("The error's code, for programs.")


class DiagnosticsResult(Result):
    ok: bool = Field(description="False when anything is broken.")
    items: tuple[Finding, ...]


# ---- requests -------------------------------------------------------------------------------


class Hello(Request):
    result = HelloResult
    action: Literal["hello"]
    payload: HelloPayload


class Ping(Request):
    result = Empty
    action: Literal["ping"]
    payload: Nothing = Nothing.model_construct()


class Chat(Request):
    result = ChatResult
    action: Literal["chat"]
    payload: ChatPayload


class Cancel(Request):
    result = CancelResult
    action: Literal["cancel"]
    payload: CancelPayload


class Resume(Request):
    result = ChatResult
    action: Literal["resume"]
    payload: ResumePayload


class AttachmentsCreate(Request):
    result = AttachmentsCreateResult
    action: Literal["attachments.create"]
    payload: AttachmentsCreatePayload


class ModelsList(Request):
    result = ModelsListResult
    action: Literal["models.list"]
    payload: ModelsListPayload = ModelsListPayload.model_construct()


class ProvidersList(Request):
    result = ProvidersListResult
    action: Literal["providers.list"]
    payload: Nothing = Nothing.model_construct()


class ProvidersTest(Request):
    result = ProvidersTestResult
    action: Literal["providers.test"]
    payload: ProviderPayload


class KeysStatus(Request):
    result = KeysStatusResult
    action: Literal["keys.status"]
    payload: Nothing = Nothing.model_construct()


class KeysSet(Request):
    result = KeysSetResult
    action: Literal["keys.set"]
    payload: KeysSetPayload


class KeysDelete(Request):
    result = Empty
    action: Literal["keys.delete"]
    payload: ProviderPayload


class ApprovalsResolve(Request):
    result = ApprovalsResolveResult
    action: Literal["approvals.resolve"]
    payload: ApprovalsResolvePayload


class ApprovalsRulesList(Request):
    result = RulesListResult
    action: Literal["approvals.rules.list"]
    payload: Nothing = Nothing.model_construct()


class ApprovalsRulesDelete(Request):
    result = RulesDeleteResult
    action: Literal["approvals.rules.delete"]
    payload: RulesDeletePayload


class McpServersList(Request):
    result = McpServersListResult
    action: Literal["mcp.servers.list"]
    payload: Nothing = Nothing.model_construct()


class McpServersRestart(Request):
    result = McpServerStatus
    action: Literal["mcp.servers.restart"]
    payload: ServerPayload


class McpServersLogs(Request):
    result = ServerLogsResult
    action: Literal["mcp.servers.logs"]
    payload: ServerLogsPayload


class McpToolsList(Request):
    result = ToolsListResult
    action: Literal["mcp.tools.list"]
    payload: ToolsListPayload = ToolsListPayload.model_construct()


class McpToolsCall(Request):
    result = ToolsCallResult
    action: Literal["mcp.tools.call"]
    payload: ToolsCallPayload


class ConfigGet(Request):
    result = ConfigGetResult
    action: Literal["config.get"]
    payload: Nothing = Nothing.model_construct()


class Diagnostics(Request):
    result = DiagnosticsResult
    action: Literal["diagnostics"]
    payload: Nothing = Nothing.model_construct()


class Shutdown(Request):
    result = Empty
    action: Literal["shutdown"]
    payload: Nothing = Nothing.model_construct()


AnyRequest: TypeAlias = (
    Hello
    | Ping
    | Chat
    | Cancel
    | Resume
    | AttachmentsCreate
    | ModelsList
    | ProvidersList
    | ProvidersTest
    | KeysStatus
    | KeysSet
    | KeysDelete
    | ApprovalsResolve
    | ApprovalsRulesList
    | ApprovalsRulesDelete
    | McpServersList
    | McpServersRestart
    | McpServersLogs
    | McpToolsList
    | McpToolsCall
    | ConfigGet
    | Diagnostics
    | Shutdown
)

REQUESTS: dict[str, type[AnyRequest]] = {
    get_args(model.model_fields["action"].annotation)[0]: model for model in get_args(AnyRequest)
}
CAPABILITIES = tuple(REQUESTS)
BASIC_REQUESTS = (Hello, Chat, Cancel, Ping)  # what needs no hello before it


class RequestProblem(Exception):
    """A frame that is no request; `request_id` is None when it could not be read."""

    def __init__(self, request_id: str | None, error: SidecarError) -> None:
        super().__init__(str(error))
        self.request_id = request_id
        self.error = error


def parse_request(text: str) -> AnyRequest:
    """Raises RequestProblem with what is wrong and where."""
    try:
        frame = jsons.loads(text)
    except ValueError as error:
        raise RequestProblem(None, InvalidJson(f"The frame is not valid JSON: {error}")) from error
    if not isinstance(frame, dict):
        raise RequestProblem(
            None, BadRequest("A frame is a JSON object: {action, payload, request_id}.")
        )
    request_id = frame.get("request_id")
    readable = request_id if isinstance(request_id, str) and 0 < len(request_id) <= 128 else None
    action = frame.get("action")
    model = REQUESTS.get(action) if isinstance(action, str) else None
    if model is None:
        known = ", ".join(CAPABILITIES)
        raise RequestProblem(
            readable, UnknownAction(f"There is no action {_brief(action)}; there are: {known}.")
        )
    try:
        return model.model_validate(frame)
    except ValidationError as error:
        raise RequestProblem(readable, BadRequest(_sentence(error))) from error


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _sentence(error: ValidationError) -> str:
    """The first problem as one line; never the input, which may hold a key."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{place} is not a field of this action."
    return f"{place}: {first['msg']}."


# ---- chunks ---------------------------------------------------------------------------------


class Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class NoMetadata(Metadata):
    """`{}`."""


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
    data: None = Field(default=None, description="How far a running call is.")
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


# ---- events ---------------------------------------------------------------------------------


class EventModel(BaseModel):
    """Topic is the first word of `type`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    type: str


class RunsStarted(EventModel):
    type: Literal["runs.started"] = "runs.started"
    data: RunInfo = Field(description="A turn began, in any window.")


class RunsEnded(EventModel):
    type: Literal["runs.ended"] = "runs.ended"
    data: RunInfo = Field(description="A turn ended, in any window.")


class ApprovalsPending(EventModel):
    type: Literal["approvals.pending"] = "approvals.pending"
    data: Approval = Field(description="A tool call waits for a person.")


class ApprovalResolution(Result):
    approval_id: str
    decision: Literal["allow", "deny"]
    by: str


class ApprovalsResolved(EventModel):
    type: Literal["approvals.resolved"] = "approvals.resolved"
    data: ApprovalResolution = Field(description="Somebody or something decided it.")


class McpServerStateChanged(EventModel):
    type: Literal["mcp.server_state"] = "mcp.server_state"
    data: McpServerStatus = Field(description="A server came into another state.")


class ToolsChanged(Result):
    server: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class McpToolsChanged(EventModel):
    type: Literal["mcp.tools_changed"] = "mcp.tools_changed"
    data: ToolsChanged = Field(description="A server's list of tools changed; names only.")


class KeyChange(Result):
    provider: str


class KeysChanged(EventModel):
    type: Literal["keys.changed"] = "keys.changed"
    data: KeyChange = Field(description="A key was set or deleted.")


class ShutdownNotice(Result):
    reason: str
    deadline_ms: int


class ServerShutdown(EventModel):
    type: Literal["server.shutdown"] = "server.shutdown"
    data: ShutdownNotice = Field(
        description="To every client that said hello, whatever it subscribed to."
    )


Event: TypeAlias = Annotated[
    RunsStarted
    | RunsEnded
    | ApprovalsPending
    | ApprovalsResolved
    | McpServerStateChanged
    | McpToolsChanged
    | KeysChanged
    | ServerShutdown,
    Field(discriminator="type"),
]


# ---- frames ---------------------------------------------------------------------------------


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
    | ModelsListResult
    | ProvidersListResult
    | ProvidersTestResult
    | KeysStatusResult
    | KeysSetResult
    | ApprovalsResolveResult
    | RulesListResult
    | RulesDeleteResult
    | McpServersListResult
    | McpServerStatus
    | ServerLogsResult
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
    return frame.model_dump_json()

"""The person's MCP servers and their tools."""

from typing import Literal

from pydantic import Field, JsonValue

from sidecar.messages import ErrorInfo, Hints, JsonObject, ToolContent, ToolStatus, optional
from sidecar.protocol.base import Empty, EventModel, Inbound, Nothing, Request, Result

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
Transport = Literal["stdio", "http", "sse"]


class McpAuthorization(Result):
    """What a person has signed in to."""

    issuer: str = Field(description="The authorization server.")
    scopes: tuple[str, ...]
    kept: bool = Field(description="False: for this run only, since there is no keyring.")


class McpServerStatus(Result):
    server: str
    transport: Transport = Field(description="`sse` is HTTP as old servers speak it.")
    state: ServerState
    era: str | None = Field(description="The negotiated MCP version.")
    fingerprint: str
    error: str | None = optional("Why it is not ready, for a person.")
    error_info: ErrorInfo | None = optional("The same for programs.")
    warnings: tuple[str, ...] = Field(  # which an older sidecar does not send
        default=(), description="What a person should know of its entry, each with what to do."
    )
    authorization: McpAuthorization | None = optional("Of a server that was signed in to.")
    tools: int
    pid: int | None = optional("Of a stdio server that runs.")
    since: str = Field(description="When it came into this state.")


class McpServersListResult(Result):
    items: tuple[McpServerStatus, ...]


class McpServersList(Request):
    result = McpServersListResult
    action: Literal["mcp.servers.list"]
    payload: Nothing = Nothing.model_construct()


class Masked(Inbound):
    """A value that was not shown, and stays as it is."""

    masked: Literal[True]


class OAuthEntry(Inbound):
    """As whom the server knows us; without it, it is asked to register us."""

    client_id: str | None = Field(default=None, max_length=1024)
    client_secret: str | Masked | None = Field(
        default=None, repr=False, description="Goes to the keyring."
    )
    client_metadata_url: str | None = Field(default=None, max_length=2048)
    redirect_uri: str | None = Field(default=None, max_length=2048)
    scopes: tuple[str, ...] | None = Field(default=None, max_length=64)


class ServerEntry(Inbound):
    """How a server is reached: a command, or a url. Values are literal."""

    server: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    command: str | None = Field(default=None, max_length=4096)
    args: tuple[str, ...] | None = Field(default=None, max_length=256)
    env: dict[str, str | Masked] | None = Field(default=None, repr=False)
    cwd: str | None = Field(default=None, max_length=4096)
    url: str | None = Field(default=None, max_length=4096)
    transport: Literal["auto", "http", "sse"] | None = Field(
        default=None, description="Of a url; absent finds it out."
    )
    headers: dict[str, str | Masked] | None = Field(default=None, repr=False)
    oauth: OAuthEntry | None = Field(default=None, description="Of a url.")
    connect_timeout_s: float | None = Field(default=None, gt=0)
    call_timeout_s: float | None = Field(default=None, gt=0)


class McpServersAdd(Request):
    result = McpServerStatus
    action: Literal["mcp.servers.add"]
    payload: ServerEntry


class McpServersUpdate(Request):
    result = McpServerStatus
    action: Literal["mcp.servers.update"]
    payload: ServerEntry


class ServersImportPayload(Inbound):
    """Without `accept` nothing is stored."""

    text: str = Field(max_length=1024 * 1024, repr=False, description="Another program's settings.")
    accept: tuple[str, ...] | None = Field(
        default=None, max_length=256, description="The servers to store, disabled until approved."
    )


class ServerPreview(Result):
    """What an entry would start; values of env and headers are not shown."""

    server: str
    command: str | None
    args: tuple[str, ...]
    env_names: tuple[str, ...]
    url: str | None
    warnings: tuple[str, ...]
    is_taken: bool = Field(description="There is a server of that name already.")


class ServerLeftOut(Result):
    server: str
    reason: str


class McpServersImportResult(Result):
    items: tuple[ServerPreview, ...]
    left_out: tuple[ServerLeftOut, ...]
    stored: tuple[McpServerStatus, ...] = Field(description="Empty for a preview.")


class McpServersImport(Request):
    result = McpServersImportResult
    action: Literal["mcp.servers.import"]
    payload: ServersImportPayload


class ApprovePayload(Inbound):
    server: str = Field(max_length=256)
    fingerprint: str = Field(max_length=256, description="Of what the person was shown.")


class McpServersApprove(Request):
    result = McpServerStatus
    action: Literal["mcp.servers.approve"]
    payload: ApprovePayload


class McpServerStateChanged(EventModel):
    type: Literal["mcp.server_state"] = "mcp.server_state"
    data: McpServerStatus = Field(description="A server came into another state.")


class ServerPayload(Inbound):
    server: str = Field(max_length=256)


class McpServersRestart(Request):
    result = McpServerStatus
    action: Literal["mcp.servers.restart"]
    payload: ServerPayload


class McpServersDelete(Request):
    result = Empty
    action: Literal["mcp.servers.delete"]
    payload: ServerPayload


class McpServersEnable(Request):
    result = McpServerStatus
    action: Literal["mcp.servers.enable"]
    payload: ServerPayload


class McpServersDisable(Request):
    result = McpServerStatus
    action: Literal["mcp.servers.disable"]
    payload: ServerPayload


class AuthorizePayload(Inbound):
    server: str = Field(max_length=256)
    action: Literal["begin", "cancel", "revoke"] = Field(
        default="begin", description="revoke signs out, here and at the authorization server."
    )


class AuthorizeResult(Result):
    url: str | None = optional("What the client opens in the person's browser, of begin.")
    expires_at: str | None = optional("Until when that can be answered.")


class McpServersAuthorize(Request):
    """The server reconnects by itself when the person has signed in."""

    result = AuthorizeResult
    action: Literal["mcp.servers.authorize"]
    payload: AuthorizePayload


class ServerLogsPayload(Inbound):
    server: str = Field(max_length=256)
    limit: int = Field(default=200, ge=1, le=1000)


class ServerLogsResult(Result):
    items: tuple[str, ...] = Field(description="The last lines of its stderr, oldest first.")


class McpServersLogs(Request):
    result = ServerLogsResult
    action: Literal["mcp.servers.logs"]
    payload: ServerLogsPayload


class ToolsListPayload(Inbound):
    server: str | None = Field(default=None, description="Only this server's tools.")


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


class McpToolsList(Request):
    result = ToolsListResult
    action: Literal["mcp.tools.list"]
    payload: ToolsListPayload = ToolsListPayload.model_construct()


class ToolsChanged(Result):
    server: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class McpToolsChanged(EventModel):
    type: Literal["mcp.tools_changed"] = "mcp.tools_changed"
    data: ToolsChanged = Field(description="A server's list of tools changed; names only.")


class ToolsCallPayload(Inbound):
    server: str = Field(max_length=256)
    name: str = Field(max_length=256)
    arguments: JsonObject = Field(default_factory=dict)


class ToolsCallResult(Result):
    status: ToolStatus
    text: str
    content: tuple[ToolContent, ...]
    structured_content: JsonValue | None = optional("As the tool's output schema has it.")
    truncated: bool | None = optional("True when the text was cut to the limit.")
    duration_ms: int


class McpToolsCall(Request):
    result = ToolsCallResult
    action: Literal["mcp.tools.call"]
    payload: ToolsCallPayload

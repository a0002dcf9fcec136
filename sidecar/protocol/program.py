"""The program itself: who is there, how it is set and how it is."""

from typing import Literal

from pydantic import Field

from sidecar.messages import JsonObject, optional
from sidecar.protocol.approvals import Approval
from sidecar.protocol.base import (
    ACTIONS_PER_S,
    ATTACHMENT_BYTES,
    ATTACHMENTS_BYTES,
    DESCRIPTION_BYTES,
    FRAME_BYTES_IN,
    FRAME_BYTES_OUT,
    IMPORT_BYTES,
    RESULT_BYTES,
    RUNS,
    TOOL_CALLS,
    TOOLS_PER_SERVER,
    Empty,
    EventModel,
    Inbound,
    Nothing,
    Request,
    Result,
)
from sidecar.protocol.chat import RunInfo
from sidecar.protocol.elicitations import Elicitation


class ClientInfo(Inbound):
    name: str = Field(max_length=128)
    version: str = Field(default="", max_length=64)


class HelloPayload(Inbound):
    protocol: int = Field(description="The version that the client speaks.")
    client: ClientInfo | None = None
    events: tuple[str, ...] = Field(default=(), description='Topics of events; "*" is all.')
    answers: tuple[str, ...] = Field(
        default=(),
        description="What this client asks its person about: `approvals`, `elicitations`.",
    )


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
    import_bytes: int = Field(
        default=IMPORT_BYTES, description="Of a file for `conversations.import`."
    )


class Pending(Result):
    approvals: tuple[Approval, ...]
    elicitations: tuple[Elicitation, ...] = ()  # which an older sidecar does not send


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


class Hello(Request):
    result = HelloResult
    action: Literal["hello"]
    payload: HelloPayload


class Ping(Request):
    result = Empty
    action: Literal["ping"]
    payload: Nothing = Nothing.model_construct()


class ConfigGetResult(Result):
    revision: str = Field(description="Changes with the settings.")
    settings: JsonObject = Field(description="Merged; a secret is `{masked: true}`.")
    sources: dict[str, str] = Field(description="Where each set value came from.")


class ConfigGet(Request):
    result = ConfigGetResult
    action: Literal["config.get"]
    payload: Nothing = Nothing.model_construct()


class ConfigRevision(Result):
    revision: str


class ConfigChanged(EventModel):
    type: Literal["config.changed"] = "config.changed"
    data: ConfigRevision = Field(description="The settings changed, by a client or in their file.")


FindingStatus = Literal["ok", "warning", "broken"]
FindingArea = Literal[
    "program",
    "settings",
    "folder",
    "conversations",
    "log",
    "keyring",
    "provider",
    "command",
    "mcp",
    "port",
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


class Diagnostics(Request):
    result = DiagnosticsResult
    action: Literal["diagnostics"]
    payload: Nothing = Nothing.model_construct()


class ShutdownNotice(Result):
    reason: str
    deadline_ms: int


class ServerShutdown(EventModel):
    type: Literal["server.shutdown"] = "server.shutdown"
    data: ShutdownNotice = Field(
        description="To every client that said hello, whatever it subscribed to."
    )


class Shutdown(Request):
    result = Empty
    action: Literal["shutdown"]
    payload: Nothing = Nothing.model_construct()

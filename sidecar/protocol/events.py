"""What happened, for whoever subscribed."""

from typing import Annotated, TypeAlias

from pydantic import Field

from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolved
from sidecar.protocol.chat import RunsEnded, RunsStarted
from sidecar.protocol.conversations import (
    ConversationsCreated,
    ConversationsDeleted,
    ConversationsUpdated,
)
from sidecar.protocol.elicitations import ElicitationsPending, ElicitationsResolved
from sidecar.protocol.mcp import McpServerStateChanged, McpToolsChanged
from sidecar.protocol.program import ConfigChanged, ServerShutdown
from sidecar.protocol.providers import KeysChanged

Event: TypeAlias = Annotated[
    RunsStarted
    | RunsEnded
    | ConversationsCreated
    | ConversationsUpdated
    | ConversationsDeleted
    | ApprovalsPending
    | ApprovalsResolved
    | ElicitationsPending
    | ElicitationsResolved
    | McpServerStateChanged
    | McpToolsChanged
    | KeysChanged
    | ConfigChanged
    | ServerShutdown,
    Field(discriminator="type"),
]

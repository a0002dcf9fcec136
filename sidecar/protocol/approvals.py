"""Tool calls that wait for a person, and what is remembered of the answers."""

from typing import Literal

from pydantic import Field

from sidecar.messages import Hints, JsonObject, optional
from sidecar.protocol.base import EventModel, Inbound, Nothing, Request, Result


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


class ApprovalsPending(EventModel):
    type: Literal["approvals.pending"] = "approvals.pending"
    data: Approval = Field(description="A tool call waits for a person.")


class ApprovalsResolvePayload(Inbound):
    approval_id: str = Field(max_length=256)
    decision: Literal["allow", "deny"]
    duration: Literal["once", "conversation", "always"] = "once"
    scope: Literal["tool", "server"] = "tool"
    arguments: JsonObject | None = Field(
        default=None, description="Run it with these instead; only with `once`."
    )


class ApprovalsResolveResult(Result):
    applied: bool = Field(description="False: somebody else was first.")
    decision: Literal["allow", "deny"]
    by: str = Field(description="connection_id, or cancel, shutdown, timeout.")


class ApprovalsResolve(Request):
    result = ApprovalsResolveResult
    action: Literal["approvals.resolve"]
    payload: ApprovalsResolvePayload


class ApprovalResolution(Result):
    approval_id: str
    decision: Literal["allow", "deny"]
    by: str


class ApprovalsResolved(EventModel):
    type: Literal["approvals.resolved"] = "approvals.resolved"
    data: ApprovalResolution = Field(description="Somebody or something decided it.")


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


class ApprovalsRulesList(Request):
    result = RulesListResult
    action: Literal["approvals.rules.list"]
    payload: Nothing = Nothing.model_construct()


class RulesDeletePayload(Inbound):
    rule_id: str | None = Field(default=None, max_length=256)
    all: bool = False


class RulesDeleteResult(Result):
    deleted: int


class ApprovalsRulesDelete(Request):
    result = RulesDeleteResult
    action: Literal["approvals.rules.delete"]
    payload: RulesDeletePayload

"""MCP servers and their tools."""

from typing import Literal, assert_never
from uuid import uuid4

from sidecar.chat.approvals import Allow, Asking, Deny
from sidecar.chat.base import ToolSource
from sidecar.errors import ToolNotFound
from sidecar.mcp_host.consent import Allowed, Asked, Decision, Denied
from sidecar.mcp_host.host import Host
from sidecar.messages import TextContent, Tool
from sidecar.protocol.mcp import (
    AuthorizePayload,
    AuthorizeResult,
    ToolItem,
    ToolsCallPayload,
    ToolsCallResult,
    ToolsListResult,
)
from sidecar.server.handlers.services import Services


def list_tools(services: Services, server: str | None) -> ToolsListResult:
    asking = Asking(run_id=None, conversation_id=None)
    return ToolsListResult(
        items=tuple(
            ToolItem(
                server=tool.server,
                name=tool.server_name,
                offered_as=tool.name,
                title=tool.title,
                description=tool.description,
                input_schema=tool.input_schema,
                output_schema=tool.output_schema,
                hints=tool.hints,
                permission=_permission(services.approvals.decide(tool, asking)),
            )
            for tool in services.host.tools()
            if server is None or tool.server == server
        )
    )


async def authorize(host: Host, payload: AuthorizePayload) -> AuthorizeResult:
    match payload.action:
        case "begin":
            invitation = await host.authorize(payload.server)
            return AuthorizeResult(url=invitation.url, expires_at=invitation.expires_at)
        case "cancel":
            await host.cancel_authorizing(payload.server)
        case "revoke":
            await host.revoke(payload.server)
        case _:
            assert_never(payload.action)
    return AuthorizeResult()


def _permission(decision: Decision) -> Literal["allow", "deny", "ask"]:
    match decision:
        case Allowed():
            return "allow"
        case Denied():
            return "deny"
        case Asked():
            return "ask"
        case _:
            assert_never(decision)


async def call_tool(services: Services, call: ToolsCallPayload) -> ToolsCallResult:
    """A person's own call: the same consent as a model's."""
    tool = _tool(services.host, call)
    tool_call_id = uuid4().hex
    asking = Asking(run_id=None, conversation_id=None)
    verdict = await services.approvals.permit(tool, call.arguments, tool_call_id, asking)
    match verdict:
        case Deny(_, text):
            return ToolsCallResult(status="denied", text=text, content=(), duration_ms=0)
        case Allow(arguments):
            part = await services.host.call(tool, arguments, tool_call_id, _no_progress)
            return ToolsCallResult(
                status=part.status,
                text=part.text,
                content=part.content or (TextContent(text=part.text),),
                structured_content=part.structured_content,
                truncated=part.truncated,
                duration_ms=part.duration_ms,
            )
        case _:
            assert_never(verdict)


def _tool(source: ToolSource, call: ToolsCallPayload) -> Tool:
    for tool in source.tools():
        if tool.server == call.server and tool.server_name == call.name:
            return tool
    raise ToolNotFound(
        f"The server {call.server!r} has no tool {call.name!r} now; mcp.tools.list has those "
        "there are, mcp.servers.list says how the servers are."
    )


def _no_progress(progress: float, total: float | None, message: str | None) -> None:
    """Nobody follows a direct call."""

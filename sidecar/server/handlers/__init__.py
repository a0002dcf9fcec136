"""One function per action, in a file for each subject of the protocol; the match is the router.

A handler turns a request into calls of the rooms below and their answer into a result. It raises
SidecarError for what the client should read, and leaves everything else to its connection.
"""

from typing import assert_never

from sidecar.config import masked
from sidecar.doctor import examine
from sidecar.protocol.approvals import (
    ApprovalsResolve,
    ApprovalsRulesDelete,
    ApprovalsRulesList,
    RulesListResult,
)
from sidecar.protocol.base import Empty
from sidecar.protocol.chat import AttachmentsCreate, Cancel, Chat, Regenerate, Resume
from sidecar.protocol.conversations import (
    ConversationsCompact,
    ConversationsCompactResult,
    ConversationsDelete,
    ConversationsExport,
    ConversationsFork,
    ConversationsGet,
    ConversationsImport,
    ConversationsList,
    ConversationsSearch,
    ConversationsUpdate,
)
from sidecar.protocol.elicitations import ElicitationsResolve
from sidecar.protocol.mcp import (
    McpServersAdd,
    McpServersApprove,
    McpServersAuthorize,
    McpServersDelete,
    McpServersDisable,
    McpServersEnable,
    McpServersImport,
    McpServersList,
    McpServersListResult,
    McpServersLogs,
    McpServersRestart,
    McpServersUpdate,
    McpToolsCall,
    McpToolsList,
    ServerLogsResult,
)
from sidecar.protocol.program import ConfigGet, ConfigGetResult, Diagnostics, Hello, Ping, Shutdown
from sidecar.protocol.providers import (
    KeysDelete,
    KeysSet,
    KeysStatus,
    ModelsList,
    ProvidersList,
    ProvidersTest,
)
from sidecar.protocol.requests import AnyRequest
from sidecar.server.connection import Answer, Connection
from sidecar.server.follow import Follow
from sidecar.server.handlers import approvals, chat, conversations, mcp, program, providers
from sidecar.server.handlers.services import Services

__all__ = ["Handlers", "Services"]


class Handlers:
    """Serves every action there is, for any connection."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, request: AnyRequest, connection: Connection) -> Answer:
        services = self._services
        match request:
            case Hello(payload=hello):
                return program.hello(services, hello, connection)
            case Ping():
                return Empty()
            case Chat(payload=message):
                return await chat.start(services, message, request.request_id, connection)
            case Cancel(payload=cancel):
                return chat.cancel(services, cancel, connection)
            case Regenerate(payload=again):
                return await chat.regenerate(services, again, request.request_id)
            case Resume(payload=resume):
                run = services.runs.get(resume.run_id)
                return Follow(request.request_id, run, chat.from_seq(run, resume.after_seq))
            case AttachmentsCreate(payload=file):
                return await chat.keep(services.attachments, file)
            case ConversationsList(payload=listed):
                return await conversations.list_conversations(services, listed)
            case ConversationsGet(payload=opened):
                return await conversations.get(services, opened)
            case ConversationsSearch(payload=search):
                return await services.history.search(search)
            case ConversationsUpdate(payload=update):
                return await services.history.update(update)
            case ConversationsDelete(payload=unwanted):
                return await conversations.delete(services, unwanted)
            case ConversationsFork(payload=forked):
                return await conversations.fork(services, forked)
            case ConversationsCompact(payload=long):
                message_id = await services.runs.compact(long.conversation_id)
                return ConversationsCompactResult(message_id=message_id)
            case ConversationsExport(payload=exported):
                return await conversations.export(services, exported)
            case ConversationsImport(payload=imported):
                return await conversations.import_(services, imported)
            case ModelsList(payload=models):
                return await providers.list_models(services.providers, refresh=models.refresh)
            case ProvidersList():
                return await providers.list_providers(services)
            case ProvidersTest(payload=provider):
                return await providers.test(services.providers, provider.provider)
            case KeysStatus():
                return await providers.key_status(services.credentials)
            case KeysSet(payload=key):
                return await providers.set_key(services, key)
            case KeysDelete(payload=provider):
                return await providers.delete_key(services, provider.provider)
            case ApprovalsResolve(payload=answer):
                return await services.approvals.resolve(answer, connection.connection_id)
            case ElicitationsResolve(payload=reply):
                return await services.elicitations.resolve(reply, connection.connection_id)
            case ApprovalsRulesList():
                return RulesListResult(items=services.approvals.rules())
            case ApprovalsRulesDelete(payload=rules):
                return await approvals.forget(services.approvals, rules)
            case McpServersList():
                return McpServersListResult(items=services.host.statuses())
            case McpServersAdd(payload=added):
                return await services.entries.add(added)
            case McpServersUpdate(payload=replaced):
                return await services.entries.update(replaced)
            case McpServersImport(payload=others):
                return await services.entries.import_text(others)
            case McpServersApprove(payload=agreed):
                return await services.entries.approve(agreed.server, agreed.fingerprint)
            case McpServersDelete(payload=server):
                await services.entries.delete(server.server)
                return Empty()
            case McpServersEnable(payload=server):
                return await services.entries.enable(server.server, is_enabled=True)
            case McpServersDisable(payload=server):
                return await services.entries.enable(server.server, is_enabled=False)
            case McpServersRestart(payload=server):
                return await services.host.restart(server.server)
            case McpServersLogs(payload=logs):
                return ServerLogsResult(items=services.host.logs(logs.server, logs.limit))
            case McpServersAuthorize(payload=authorize):
                return await mcp.authorize(services.host, authorize)
            case McpToolsList(payload=listing):
                return mcp.list_tools(services, listing.server)
            case McpToolsCall(payload=call):
                return await mcp.call_tool(services, call)
            case ConfigGet():
                return ConfigGetResult(
                    revision=services.settings.now.revision,
                    settings=masked(services.settings.now),
                    sources=dict(services.settings.now.sources),
                )
            case Diagnostics():
                return await examine(program.patient(services))
            case Shutdown():
                services.stop("request")
                return Empty()
            case _:
                assert_never(request)

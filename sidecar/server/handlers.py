"""One function per action; the match statement is the router.

A handler turns a request into calls of the rooms below and their answer into a result. It raises
SidecarError for what the client should read, and leaves everything else to its connection.
"""

import asyncio
from binascii import a2b_base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar, assert_never
from uuid import uuid4

from sidecar import __version__
from sidecar.chat.approvals import Allow, Approvals, Asking, Deny
from sidecar.chat.base import Attachments, ToolSource
from sidecar.chat.runs import Run, Runs
from sidecar.config import Loaded, masked
from sidecar.credentials import Credentials, Keyring
from sidecar.doctor import Patient, examine
from sidecar.errors import BadRequest, NotFound, ToolNotFound, UnsupportedProtocol
from sidecar.mcp_host.consent import Allowed, Asked, Decision, Denied
from sidecar.mcp_host.host import Host
from sidecar.messages import TextContent, Tool
from sidecar.paths import Folders
from sidecar.protocol import (
    CAPABILITIES,
    PROTOCOL_VERSION,
    SUPPORTED_VERSIONS,
    AnyRequest,
    ApprovalsResolve,
    ApprovalsRulesDelete,
    ApprovalsRulesList,
    AttachmentsCreate,
    AttachmentsCreatePayload,
    AttachmentsCreateResult,
    Cancel,
    CancelPayload,
    CancelResult,
    Chat,
    ChatPayload,
    ConfigGet,
    ConfigGetResult,
    Diagnostics,
    Empty,
    Event,
    Hello,
    HelloPayload,
    HelloResult,
    KeyChange,
    KeyItem,
    KeysChanged,
    KeysDelete,
    KeysSet,
    KeysSetPayload,
    KeysSetResult,
    KeysStatus,
    KeysStatusResult,
    Limits,
    McpServersList,
    McpServersListResult,
    McpServersLogs,
    McpServersRestart,
    McpToolsCall,
    McpToolsList,
    ModelItem,
    ModelsList,
    ModelsListResult,
    Pending,
    Ping,
    ProviderFault,
    ProviderItem,
    ProvidersList,
    ProvidersListResult,
    ProvidersTest,
    ProvidersTestResult,
    Resume,
    RulesDeletePayload,
    RulesDeleteResult,
    RulesListResult,
    ServerInfo,
    ServerLogsResult,
    Shutdown,
    ToolItem,
    ToolsCallPayload,
    ToolsCallResult,
    ToolsListResult,
    error_info,
)
from sidecar.providers.registry import Providers
from sidecar.server.connection import Answer, Connection
from sidecar.server.follow import Follow
from sidecar.threads import run_in_thread

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms below, as app.py has built them."""

    instance: str
    runs: Runs
    attachments: Attachments
    approvals: Approvals
    host: Host
    providers: Providers
    credentials: Credentials
    settings: Loaded
    keyring: Keyring
    folders: Folders
    publish: Callable[[Event], None]
    stop: Callable[[str], None]
    greeted: asyncio.Event
    """Set by the first hello."""


class Handlers:
    """Serves every action there is, for any connection."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, request: AnyRequest, connection: Connection) -> Answer:
        services = self._services
        match request:
            case Hello(payload=hello):
                return _hello(services, hello, connection)
            case Ping():
                return Empty()
            case Chat(payload=chat):
                return await _chat(services, chat, request.request_id, connection)
            case Cancel(payload=cancel):
                return _cancel(services, cancel, connection)
            case Resume(payload=resume):
                run = services.runs.get(resume.run_id)
                return Follow(request.request_id, run, _from_seq(run, resume.after_seq))
            case AttachmentsCreate(payload=file):
                return await _keep(services.attachments, file)
            case ModelsList(payload=models):
                return await _models(services.providers, refresh=models.refresh)
            case ProvidersList():
                return await _providers(services)
            case ProvidersTest(payload=provider):
                return await _test(services.providers, provider.provider)
            case KeysStatus():
                return await _keys(services.credentials)
            case KeysSet(payload=key):
                return await _set_key(services, key)
            case KeysDelete(payload=provider):
                await services.credentials.delete(provider.provider)
                return _key_changed(services, provider.provider, Empty())
            case ApprovalsResolve(payload=answer):
                return await services.approvals.resolve(answer, connection.connection_id)
            case ApprovalsRulesList():
                return RulesListResult(items=services.approvals.rules())
            case ApprovalsRulesDelete(payload=rules):
                return await _forget(services.approvals, rules)
            case McpServersList():
                return McpServersListResult(items=services.host.statuses())
            case McpServersRestart(payload=server):
                return await services.host.restart(server.server)
            case McpServersLogs(payload=logs):
                return ServerLogsResult(items=services.host.logs(logs.server, logs.limit))
            case McpToolsList(payload=listing):
                return _tools(services, listing.server)
            case McpToolsCall(payload=call):
                return await _call(services, call)
            case ConfigGet():
                return ConfigGetResult(
                    revision=services.settings.revision,
                    settings=masked(services.settings),
                    sources=dict(services.settings.sources),
                )
            case Diagnostics():
                return await examine(_patient(services))
            case Shutdown():
                services.stop("request")
                return Empty()
            case _:
                assert_never(request)


def _hello(services: Services, hello: HelloPayload, connection: Connection) -> HelloResult:
    if hello.protocol not in SUPPORTED_VERSIONS:
        spoken = ", ".join(map(str, SUPPORTED_VERSIONS))
        raise UnsupportedProtocol(f"This sidecar speaks protocol {spoken}, not {hello.protocol}.")
    connection.subscribe(hello.events, can_answer="approvals" in hello.answers)
    services.greeted.set()
    return HelloResult(
        protocol=PROTOCOL_VERSION,
        server=ServerInfo(version=__version__, instance=services.instance),
        connection_id=connection.connection_id,
        capabilities=CAPABILITIES,
        limits=Limits(),
        runs=services.runs.running(),
        pending=Pending(approvals=services.approvals.pending()),
    )


async def _chat(
    services: Services, chat: ChatPayload, request_id: str, connection: Connection
) -> Follow:
    if connection.is_extended:
        return Follow(request_id, await services.runs.start(chat), 0)
    # a basic client has one conversation, waits its turn in it, and cannot come back for a run
    run = await services.runs.start(chat, queue=True, conversation_id=connection.conversation_id)
    connection.conversation_id = run.conversation_id
    return Follow(request_id, run, 0)


def _cancel(services: Services, cancel: CancelPayload, connection: Connection) -> CancelResult:
    if (cancel.run_id is None) == (cancel.target is None):
        raise BadRequest("Name what to cancel by run_id or by target, the chat's request_id.")
    run_id = cancel.run_id
    if cancel.target is not None:
        followed = connection.followed(cancel.target)
        run_id = followed.run_id if followed else None
    return CancelResult(
        cancelled=run_id is not None and services.runs.cancel(run_id, cancel.tool_call_id)
    )


def _from_seq(run: Run, after_seq: int) -> int:
    """The first seq to send; the terminal frame comes whatever was seen before."""
    newest = run.log.next_seq - 1
    if after_seq > newest:
        raise BadRequest(f"This run's newest seq is {newest}; after_seq cannot be {after_seq}.")
    return min(after_seq + 1, newest) if run.ended.is_set() else after_seq + 1


async def _keep(
    attachments: Attachments, file: AttachmentsCreatePayload
) -> AttachmentsCreateResult:
    try:
        data = await run_in_thread(partial(a2b_base64, file.data_b64, strict_mode=True), "base64")
    except ValueError as error:
        raise BadRequest(f"payload.data_b64 is not base64: {error}.") from error

    async def whole() -> AsyncIterator[bytes]:
        yield data

    kept = await attachments.receive(whole(), file.name)
    return AttachmentsCreateResult(
        attachment_id=kept.attachment_id, bytes=kept.bytes, mime=kept.mime
    )


async def _models(providers: Providers, *, refresh: bool) -> ModelsListResult:
    listings = await providers.list_models(refresh=refresh)
    items = tuple(
        ModelItem(
            model=f"{listing.provider}/{model.model}",
            provider=listing.provider,
            name=model.name,
            context=model.context,
            max_output=model.max_output,
            vision=model.vision,
            tools=model.tools,
            reasoning=model.reasoning,
            price=model.price,
        )
        for listing in listings
        for model in listing.models
    )
    faults = tuple(
        ProviderFault(
            provider=listing.provider, code=listing.error.code, message=str(listing.error)
        )
        for listing in listings
        if listing.error is not None
    )
    return ModelsListResult(items=items, errors=faults)


async def _providers(services: Services) -> ProvidersListResult:
    keys = {item.provider: item.set for item in (await _keys(services.credentials)).items}
    return ProvidersListResult(
        items=tuple(
            ProviderItem(
                provider=name,
                kind=section.kind,
                base_url=section.base_url,
                key_set=keys.get(name, False),
                supported=True,  # every kind there is has a client by now
            )
            for name, section in services.providers.sections.items()
        )
    )


async def _test(providers: Providers, name: str) -> ProvidersTestResult:
    listing, seconds = await providers.test(name)
    return ProvidersTestResult(
        provider=name,
        ok=listing.error is None,
        models=None if listing.error else len(listing.models),
        duration_ms=round(seconds * 1000),
        error=None if listing.error is None else str(listing.error),
        error_info=None if listing.error is None else error_info(listing.error),
    )


async def _keys(credentials: Credentials) -> KeysStatusResult:
    states = await credentials.status()
    return KeysStatusResult(
        items=tuple(
            KeyItem(
                provider=state.provider,
                set=state.source is not None,
                source=state.source,
                backend=state.backend,
                reason=state.reason,
            )
            for state in states
        )
    )


async def _set_key(services: Services, key: KeysSetPayload) -> KeysSetResult:
    stored = await services.credentials.set(key.provider, key.key, persist=key.persist)
    result = KeysSetResult(source=stored.source, shadowed_by=stored.shadowed_by)
    return _key_changed(services, key.provider, result)


def _key_changed(services: Services, provider: str, result: R) -> R:
    services.providers.forget(provider)
    services.publish(KeysChanged(data=KeyChange(provider=provider)))
    return result


async def _forget(approvals: Approvals, payload: RulesDeletePayload) -> RulesDeleteResult:
    if (payload.rule_id is None) == (not payload.all):
        raise BadRequest("Name one rule by rule_id, or all of them with all: true.")
    deleted = await approvals.forget(payload.rule_id)
    if not deleted and payload.rule_id:
        raise NotFound("There is no such rule; approvals.rules.list has them.")
    return RulesDeleteResult(deleted=deleted)


def _tools(services: Services, server: str | None) -> ToolsListResult:
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


async def _call(services: Services, call: ToolsCallPayload) -> ToolsCallResult:
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


def _no_progress(progress: float, total: float | None) -> None:
    """Nobody follows a direct call."""


def _patient(services: Services) -> Patient:
    return Patient(
        settings=services.settings,
        folders=services.folders,
        keyring=services.keyring,
        credentials=services.credentials,
        test_provider=partial(_test, services.providers),
        servers_settled=services.host.settled,
        servers=services.host.statuses,
    )

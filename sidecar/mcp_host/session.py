"""A session with one MCP server through the SDK: negotiate, list the tools, call one.

The only place that calls the SDK's client; its errors leave here as ours. What comes was sifted
before (`tolerance.py`). Results are not held against the output schemas that servers promise: a
model can use one that is a little off, and a pattern in a schema can stop the whole program.
Importing this imports the SDK, so it is loaded off the loop.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

import mcp_types as types
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for
from mcp.client import Client, InputRequiredRoundsExceededError, Transport
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from sidecar import __version__
from sidecar.errors import McpCrashed, McpError, McpInvalidResult
from sidecar.mcp_host.asking import Ask
from sidecar.mcp_host.catalogue import ListedTool, cut, digest
from sidecar.mcp_host.clock import Ticking
from sidecar.mcp_host.diagnosis import NotDelivered
from sidecar.mcp_host.eliciting import elicit
from sidecar.mcp_host.http import LOST, NOT_DELIVERED
from sidecar.mcp_host.memory import Mode
from sidecar.mcp_host.tolerance import OUTPUT_SCHEMA, SCHEMA_BYTES, Dropped, Tolerant, first_problem
from sidecar.messages import Hints, JsonObject
from sidecar.protocol.base import TOOLS_PER_SERVER
from sidecar.threads import run_in_thread
from sidecar.visible import visible

PAGES = 100  # of a list; a server may page for ever
SCHEMA_DEPTH = 64
NAME_CHARS = 128  # what MCP advises; a name goes into errors, rules and logs
MESSAGE_BYTES = 2000  # of a server's own error text
PROGRESS_BYTES = 256  # of its word on how far a call is
RELISTEN_S = (1.0, 60.0)  # first and longest pause before a lost subscription is opened again
LISTENED_S = 60.0  # a subscription of this length forgives what was before

LIST_CHANGED = (
    types.ToolListChangedNotification,
    types.PromptListChangedNotification,
    types.ResourceListChangedNotification,
)


class Session:
    """Made by `connect`; valid inside it, and to be used from any task."""

    def __init__(self, server: str, client: Client, on_dropped: Dropped) -> None:
        self.era = client.protocol_version
        self.is_modern = self.era in MODERN_PROTOCOL_VERSIONS
        info = client.server_info
        self.version = None if info is None else f"{info.name} {info.version}"
        self._server = server
        self._client = client
        self._on_dropped = on_dropped
        self._running: set[Ticking] = set()
        self._is_idle = asyncio.Event()  # no call runs

    async def list_tools(self) -> tuple[ListedTool, ...]:
        """Raises McpError. The caller's deadline bounds the pages that a server makes up."""
        if self._client.server_capabilities.tools is None:
            return ()
        with self._translated("its list of tools"):
            listed = await self._all_pages()
        tools, dropped = await run_in_thread(lambda: _usable(listed), "MCP tools")
        for name, reason in dropped:
            self._on_dropped("tool", name, reason)
        return tools

    async def call_tool(
        self, name: str, arguments: JsonObject, ticking: Ticking
    ) -> types.CallToolResult:
        """Raises NotDelivered, McpCrashed (the outcome is unknown), McpInvalidResult, McpError.

        Cancelling it cancels the call on the server.
        """

        async def report(progress: float, total: float | None, message: str | None) -> None:
            told = None if message is None else visible(cut(message, PROGRESS_BYTES))
            ticking.progress(progress, total, told)

        self._running.add(ticking)
        self._is_idle.clear()
        try:
            with self._translated("its result"):
                return await self._client.call_tool(name, arguments, progress_callback=report)
        finally:
            self._running.discard(ticking)
            if not self._running:
                self._is_idle.set()

    async def answered(self, asking: Coroutine[Any, Any, types.ElicitResult]) -> types.ElicitResult:
        """What a person answers, with the clocks of calls stopped.

        A question that came with a call is taken back when no call runs any more: older servers
        do not say which one they ask for, nor that they do not want to know any more.
        """
        has_calls = bool(self._running)
        with self.paused():
            answer = asyncio.create_task(asking)
            idle = asyncio.create_task(self._is_idle.wait())
            try:
                await asyncio.wait(
                    [answer, idle] if has_calls else [answer], return_when=asyncio.FIRST_COMPLETED
                )
                if answer.done():
                    return answer.result()
                return types.ElicitResult(action="cancel")
            finally:
                idle.cancel()
                answer.cancel()
                await asyncio.wait([answer, idle])

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While the server has a person asked; which of its running calls that is for, nobody says.

        On 2026-07-28 it does say so, but a pause that other calls do not need does no harm.
        """
        with contextlib.ExitStack() as stack:
            for ticking in tuple(self._running):
                stack.enter_context(ticking.paused())
            yield

    async def watch(self, changed: asyncio.Event) -> None:
        """Set `changed` when the server says that one of its lists did, as long as it says so.

        While it cannot be listened to, `changed` is set at every attempt: what it would have said
        is lost. Older servers tell without being asked, through `connect`.
        """
        has = self._client.server_capabilities
        tools, prompts, resources = (
            capability is not None and capability.list_changed is True
            for capability in (has.tools, has.prompts, has.resources)
        )
        if not self.is_modern or not (tools or prompts or resources):
            return
        pause_s, longest_s = RELISTEN_S
        while True:
            began_at = time.monotonic()
            try:
                async with self._client.listen(
                    tools_list_changed=tools,
                    prompts_list_changed=prompts,
                    resources_list_changed=resources,
                ) as subscription:
                    changed.set()  # what changed before is not replayed
                    async for _ in subscription:
                        changed.set()
            except SubscriptionLost:
                pass
            except MCPError as error:
                if error.code == types.METHOD_NOT_FOUND:
                    return
            if time.monotonic() - began_at > LISTENED_S:
                pause_s = RELISTEN_S[0]
            await asyncio.sleep(pause_s)
            changed.set()
            pause_s = min(2 * pause_s, longest_s)

    async def _all_pages(self) -> list[types.Tool]:
        tools: list[types.Tool] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(PAGES):
            page = await self._client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None or cursor in seen or len(tools) > TOOLS_PER_SERVER:
                break
            seen.add(cursor)
        return tools

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """The SDK's errors for one request → ours."""
        try:
            yield
        except MCPError as error:
            raise self._told(error) from error
        except ValidationError as error:
            raise McpInvalidResult(
                f"The MCP server {self._server} sent {what} in a form that MCP does not allow: "
                f"{first_problem(error)}.",
                server=self._server,
            ) from error
        except (RuntimeError, InputRequiredRoundsExceededError) as error:
            # how the SDK reports a result that asks for input, or asks again and again
            reason = cut(str(error).partition("\n")[0], MESSAGE_BYTES)
            raise McpInvalidResult(
                f"The MCP server {self._server} sent {what} in an unexpected form: {reason}",
                server=self._server,
            ) from error

    def _told(self, error: MCPError) -> McpError:
        if error.data == NOT_DELIVERED:
            return NotDelivered(error.message, server=self._server)
        if error.data == LOST or error.code == types.CONNECTION_CLOSED:
            return McpCrashed(
                f"The MCP server {self._server} went away before it answered.", server=self._server
            )
        return McpInvalidResult(
            f"The MCP server {self._server} answered with an error: "
            f"{cut(error.message, MESSAGE_BYTES)}",
            server=self._server,
        )


@contextlib.asynccontextmanager
async def connect(
    server: str,
    transport: Transport,
    mode: Mode,
    on_changed: Callable[[], None],
    on_dropped: Dropped,
    ask: Ask,
) -> AsyncGenerator[Session, None]:
    """To be entered and left in one task. `on_changed`: a list of an older server did.

    `ask` has a person answer what the server wants to know.

    Errors of the SDK and of the transport come out as they are, often in groups.
    """

    async def on_message(message: IncomingMessage) -> None:
        if isinstance(message, LIST_CHANGED):
            on_changed()

    async def on_question(
        context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult:
        return await session.answered(elicit(server, params, ask))

    client = Client(
        Tolerant(transport, on_dropped),
        mode=mode,
        message_handler=on_message,
        elicitation_callback=on_question,
        client_info=types.Implementation(name="sidecar", version=__version__),
        cache=None,  # the catalogue is the cache
    )
    async with client:
        session = Session(server, client, on_dropped)
        yield session


# ---- tools ----------------------------------------------------------------------------------


def _usable(
    listed: list[types.Tool],
) -> tuple[tuple[ListedTool, ...], list[tuple[str, str]]]:
    """The tools that can be offered, and the others with the reason."""
    tools: dict[str, ListedTool] = {}
    dropped = []
    for tool in listed:
        problem = schema_problem(tool.input_schema)
        if len(tool.name) > NAME_CHARS:
            problem = f"its name has more than {NAME_CHARS} characters"
        elif tool.name in tools:
            problem = "the server lists it twice"
        elif len(tools) == TOOLS_PER_SERVER:
            problem = f"a server may have {TOOLS_PER_SERVER} tools"
        if problem is None:
            tools[tool.name] = _listed(tool)
        else:
            dropped.append((tool.name, problem))
    return tuple(tools.values()), dropped


def _listed(tool: types.Tool) -> ListedTool:
    said = tool.annotations or types.ToolAnnotations()
    hints = Hints(
        read_only=said.read_only_hint,
        destructive=said.destructive_hint,
        idempotent=said.idempotent_hint,
        open_world=said.open_world_hint,
    )
    title, description = tool.title or said.title, tool.description or ""
    output_schema = (tool.meta or {}).get(OUTPUT_SCHEMA)
    return ListedTool(
        name=tool.name,
        title=title,
        description=description,
        input_schema=tool.input_schema,
        output_schema=output_schema,
        hints=hints,
        digest=digest(tool.name, title, description, tool.input_schema, output_schema, hints),
    )


def schema_problem(schema: JsonObject) -> str | None:
    """Why no vendor would take a tool with these parameters: one such fails the whole request."""
    if schema.get("type") != "object":
        return "its input schema is not of type object"
    if _is_deeper(schema, SCHEMA_DEPTH):
        return f"its input schema is nested more than {SCHEMA_DEPTH} deep"
    if len(json.dumps(schema)) > SCHEMA_BYTES:
        return f"its input schema has more than {SCHEMA_BYTES // 1024} KiB"
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        return f"its input schema is no JSON Schema: {error.json_path}: {error.message[:200]}"
    return None


def _is_deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True

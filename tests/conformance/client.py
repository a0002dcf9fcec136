"""One scenario: a sidecar, a frontend of it, and a person who agrees to everything.

The suite runs `python -m tests.conformance.client URL`. The frontend adds the server at that URL,
approves it, signs in where it is asked to, and has a scripted model call the tools in a chat.
Nothing here knows the scenarios; what they give is in MCP_CONFORMANCE_CONTEXT.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from sidecar.client import Client, ServerError
from sidecar.messages import JsonObject
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.elicitations import (
    ElicitationsPending,
    ElicitationsResolve,
    ElicitationsResolvePayload,
)
from sidecar.protocol.mcp import (
    ApprovePayload,
    AuthorizePayload,
    McpServersAdd,
    McpServersApprove,
    McpServersAuthorize,
    McpServersList,
    McpServerStateChanged,
    McpServerStatus,
    McpToolsList,
    OAuthEntry,
    ServerEntry,
    ToolItem,
)
from tests.support.authority import browse
from tests.support.fake_openai import Answer, FakeOpenAI, text, tool_calls
from tests.support.keyrings import FILE_VARIABLE
from tests.support.processes import spawned

SERVER = "judge"
SIGN_INS = 3  # in a row: a server that is never content gets no more
SIGNED_IN_S = 10.0  # after the browser came back
SETTLED = frozenset(("ready", "degraded", "needs_auth", "failed", "backoff"))
CLIENT_METADATA = "https://conformance-test.local/client-metadata.json"  # which the suite knows
STUBS: dict[object, Any] = {
    "string": "test", "number": 1.5, "integer": 1, "boolean": True, "array": [], "object": {},
}  # fmt: skip


class Model:
    """Calls what it is told to, and then says a word."""

    def __init__(self) -> None:
        self.calls: Sequence[tuple[str, JsonObject]] = ()

    def answer(self, body: dict[str, Any]) -> Answer:
        has_results = body["messages"][-1]["role"] == "tool"
        return text("Done.") if has_results or not self.calls else tool_calls(*self.calls)


class Scenario:
    def __init__(self, client: Client, model: Model, context: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._context = context

    async def run(self, url: str) -> None:
        added = await self._client.request(McpServersAdd, self._entry(url))
        agreed = ApprovePayload(server=SERVER, fingerprint=added.fingerprint)
        await self._client.request(McpServersApprove, agreed)
        for _ in range(SIGN_INS):
            status = await self._settled()
            if status.state == "ready":
                await self._chat()
                status = await self._status()
            if not wants_sign_in(status) or not await self._sign_in():
                return

    def _entry(self, url: str) -> ServerEntry:
        client_id = self._context.get("client_id")
        oauth = (
            OAuthEntry(client_metadata_url=CLIENT_METADATA)
            if client_id is None
            else OAuthEntry(client_id=client_id, client_secret=self._context["client_secret"])
        )
        return ServerEntry(server=SERVER, url=url, oauth=oauth)

    async def _status(self) -> McpServerStatus:
        [status] = (await self._client.request(McpServersList)).items
        return status

    async def _settled(self) -> McpServerStatus:
        while (status := await self._status()).state not in SETTLED:
            await self._client.event(McpServerStateChanged)
        return status

    async def _sign_in(self) -> bool:
        """As a person in a browser; False when that is refused."""
        before = await self._status()
        try:
            begun = await self._client.request(McpServersAuthorize, AuthorizePayload(server=SERVER))
        except ServerError as error:
            print(error, file=sys.stderr)
            return False
        await browse(begun.url or "")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SIGNED_IN_S):
                while await self._status() == before:
                    await self._client.event(McpServerStateChanged)
        return True

    async def _chat(self) -> None:
        tools = (await self._client.request(McpToolsList)).items
        self._model.calls = self._wanted_calls(tools)
        run = await self._client.chat("Call the tools.")
        try:
            await run.finished()
        except ServerError as error:
            print(error, file=sys.stderr)

    def _wanted_calls(self, tools: Sequence[ToolItem]) -> list[tuple[str, JsonObject]]:
        """Those that the scenario names, else each tool once."""
        offered = {tool.name: tool.offered_as for tool in tools}
        named = self._context.get("toolCalls")
        if named:
            return [(offered[call["name"]], call["arguments"]) for call in named]
        return [(tool.offered_as, _stub(tool.input_schema)) for tool in tools]


def wants_sign_in(status: McpServerStatus) -> bool:
    """At all, or for more than it was signed in to."""
    return status.error_info is not None and status.error_info.code == "mcp_auth_required"


async def main(url: str, context: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with FakeOpenAI() as upstream:
            model = Model()
            upstream.will_choose(model.answer)
            async with (
                _frontend(Path(folder), upstream.url) as (client, window),
                asyncio.TaskGroup() as group,
            ):
                person = group.create_task(_agree(window))
                await Scenario(client, model, context).run(url)
                person.cancel()


@contextlib.asynccontextmanager
async def _frontend(home: Path, upstream: str) -> AsyncIterator[tuple[Client, Client]]:
    """Its connection, and that of the window in which a person is asked."""
    settings = json.dumps(
        {
            "providers": {"fake": {"kind": "openai_compatible", "base_url": upstream}},
            "chat": {"model": "fake/scripted"},
        }
    )
    environ = {
        "PYTHON_KEYRING_BACKEND": "tests.support.keyrings.FileKeyring",
        FILE_VARIABLE: str(home / "keyring"),
    }
    async with spawned(home, "--managed", settings=settings, environ=environ) as sidecar:
        await sidecar.first_line()
        async with (
            sidecar.client(events=["mcp"]) as client,
            sidecar.client(answers=["approvals", "elicitations"]) as window,
        ):
            yield client, window
        sidecar.close_stdin()
        await sidecar.ended()
        print(sidecar.stderr, file=sys.stderr)


async def _agree(client: Client) -> None:
    async for event in client.events():
        match event:
            case ApprovalsPending(data=asked):
                allow = ApprovalsResolvePayload(approval_id=asked.approval_id, decision="allow")
                await client.request(ApprovalsResolve, allow)
            case ElicitationsPending(data=form):
                content = None
                if form.requested_schema is not None:
                    content = _stub(form.requested_schema)
                accept = ElicitationsResolvePayload(
                    elicitation_id=form.elicitation_id, action="accept", content=content
                )
                await client.request(ElicitationsResolve, accept)


def _stub(schema: Any) -> Any:
    """Something that fits the schema."""
    for chosen in ("const", "default"):
        if chosen in schema:
            return schema[chosen]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: _stub(properties.get(name, {})) for name in properties}
    return STUBS.get(schema.get("type"), "test")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1], json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")))

"""An MCP server over streamable HTTP in the test's own loop, whose behaviour a test can change."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Answer = Callable[[web.Request, Json], Awaitable[web.StreamResponse | None]]


class HttpServer:
    """Handshake of 2025-11-25 with session ids; `echo`, `read` and `big` are its tools.

    `before(request, message)` may answer in its place; `calls` are the tool calls that it got.
    """

    def __init__(self) -> None:
        self.port = 0
        self.sessions: set[str] = set()
        self.calls: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.before: Answer | None = None
        self.ignores_goodbye = False
        self.routes: list[web.RouteDef] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        """On the port it had before, if it had one; every session is forgotten."""
        self.sessions.clear()
        app = web.Application()
        app.router.add_post("/mcp", self._post)
        app.router.add_delete("/mcp", self._delete)
        app.router.add_routes(self.routes)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.StreamResponse:
        message = await request.json()
        self.headers.append(dict(request.headers))
        if message.get("method") == "tools/call":
            self.calls.append(message)
        if self.before is not None:
            answer = await self.before(request, message)
            if answer is not None:
                return answer
        if message["method"] == "initialize":
            session = f"session-{len(self.headers)}"
            self.sessions.add(session)
            return reply(message, _WELCOME, {"Mcp-Session-Id": session})
        if message["method"] == "server/discover":
            return web.Response(status=404)
        if request.headers.get("Mcp-Session-Id") not in self.sessions:
            return web.Response(status=404)
        if "id" not in message:
            return web.Response(status=202)
        if message["method"] == "tools/list":
            read = {**_tool("read"), "annotations": {"readOnlyHint": True}}
            listed = [_tool("echo"), read, _tool("big"), {"name": "malformed"}]
            return reply(message, {"tools": listed})
        return await self._call(request, message)

    async def _call(self, request: web.Request, message: Json) -> web.StreamResponse:
        arguments = message["params"].get("arguments") or {}
        result = text(str(arguments.get("text")))
        if message["params"]["name"] in ("echo", "read"):
            return reply(message, result)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": text("x" * arguments["bytes"])}
        await response.write(f"event: message\ndata: {json.dumps(answer)}\n\n".encode())
        return response

    async def _delete(self, request: web.Request) -> web.Response:
        if self.ignores_goodbye:
            await asyncio.Event().wait()
        self.sessions.discard(request.headers["Mcp-Session-Id"])
        return web.Response(status=204)


def reply(message: Json, result: Json, headers: dict[str, str] | None = None) -> web.Response:
    body = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    return web.json_response(body, headers=headers)


def failure(message: Json, code: int, text: str) -> web.Response:
    error = {"code": code, "message": text}
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})


def text(value: str) -> Json:
    return {"content": [{"type": "text", "text": value}]}


@contextlib.asynccontextmanager
async def http_server() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def hang(request: web.Request, message: Json) -> web.StreamResponse:
    """A `before` that never answers."""
    await asyncio.Event().wait()
    raise AssertionError


def _tool(name: str) -> Json:
    return {"name": name, "inputSchema": {"type": "object"}}


_WELCOME: Json = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "http", "version": "1"},
}

"""The servers of `support/servers` behind a URL, in the test's own loop: streamable HTTP, or SSE.

Each session is a child of its own; what it writes goes out as events, whatever it is. A child that
ends takes its session along. `start` and `stop` are the server's life; its port stays.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from sidecar.config import McpServerConfig
from tests.support.hosts import PROJECT, faulty, plain

EVENTS = {"Content-Type": "text/event-stream"}


class Session:
    """A child and whoever listens to it."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.listeners: dict[Any, asyncio.Queue[bytes | None]] = {}

    def listen(self, key: Any) -> asyncio.Queue[bytes | None]:
        return self.listeners.setdefault(key, asyncio.Queue())

    def say(self, line: bytes) -> None:
        assert self.child.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.child.stdin.write(line + b"\n")

    async def pump(self) -> None:
        """To the listener of the id, else to any."""
        assert self.child.stdout is not None
        while line := await self.child.stdout.readline():
            key = None
            with contextlib.suppress(ValueError, AttributeError):
                key = json.loads(line).get("id")
            found = self.listeners.get(key) or next(iter(self.listeners.values()), None)
            if found is not None:
                found.put_nowait(line.rstrip(b"\n"))
        for listener in self.listeners.values():
            listener.put_nowait(None)


class Bridge:
    """`requests` has method and path of all that was answered, `headers` those of the last."""

    def __init__(self, kind: str, module: str, *args: str, tls: ssl.SSLContext | None) -> None:
        self.kind = kind
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.sessions: dict[str, Session] = {}
        self.spawned = 0
        self._command = ("-m", f"tests.support.servers.{module}", *args)
        self._tls = tls
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._port}/{self.kind}"

    async def start(self) -> None:
        app = web.Application(client_max_size=2**28)
        if self.kind == "http":
            app.router.add_post("/http", self._post)
            app.router.add_delete("/http", self._delete)
        else:
            app.router.add_get("/sse", self._stream)
            app.router.add_post("/messages", self._take)
        app.on_response_prepare.append(self._note)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self._port, reuse_address=True, ssl_context=self._tls
        )
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for session in self.sessions.values():
            with contextlib.suppress(ProcessLookupError):
                session.child.kill()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await asyncio.gather(*self._pumps)
        for session in self.sessions.values():
            await session.child.wait()
        self.sessions.clear()

    async def _note(self, request: web.Request, response: web.StreamResponse) -> None:
        self.requests.append(f"{request.method} {request.path}")
        self.headers = dict(request.headers)

    # ---- streamable HTTP ----

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        message = json.loads(body)
        key = request.headers.get("Mcp-Session-Id")
        if message.get("method") == "initialize":
            key = await self._spawn()
        session = self.sessions.get(key or "")
        if session is None or key is None:
            return web.Response(status=404)
        if "id" not in message or "method" not in message:
            session.say(body)
            return web.Response(status=202)
        listener = session.listen(message["id"])
        session.say(body)
        response = web.StreamResponse(headers={**EVENTS, "Mcp-Session-Id": key})
        await response.prepare(request)
        try:
            while (line := await listener.get()) is not None:
                await response.write(b"data: " + line + b"\n\n")
                if b'"id"' in line and json.loads(line).get("id") == message["id"]:
                    break
        finally:
            session.listeners.pop(message["id"], None)
        return response

    async def _delete(self, request: web.Request) -> web.Response:
        session = self.sessions.get(request.headers["Mcp-Session-Id"])
        if session is not None:
            session.child.kill()
        return web.Response(status=204)

    # ---- SSE ----

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        key = await self._spawn()
        session = self.sessions[key]
        listener = session.listen("stream")
        response = web.StreamResponse(headers=EVENTS)
        await response.prepare(request)
        await response.write(f"event: endpoint\ndata: /messages?session={key}\n\n".encode())
        await response.write(b": keep-alive\n\nevent: ping\ndata: now\n\n")
        try:
            while (line := await listener.get()) is not None:
                await response.write(b"event: message\ndata: " + line + b"\n\n")
        finally:
            with contextlib.suppress(ProcessLookupError):
                session.child.kill()
        return response

    async def _take(self, request: web.Request) -> web.Response:
        session = self.sessions.get(request.query["session"])
        if session is None:
            return web.Response(status=404, text="no such session")
        session.say(await request.read())
        return web.Response(status=202, text="Accepted")

    async def _spawn(self) -> str:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            cwd=PROJECT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**28,
        )
        self.spawned += 1
        key = f"session-{self.spawned}"
        self.sessions[key] = session = Session(child)
        pump = asyncio.create_task(self._lived(key, session))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        return key

    async def _lived(self, key: str, session: Session) -> None:
        await session.pump()
        await session.child.wait()
        self.sessions.pop(key, None)


@contextlib.asynccontextmanager
async def bridge(
    kind: str, module: str = "plain", *args: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Bridge]:
    """`kind` is `http` or `sse`, and so is the path."""
    server = Bridge(kind, module, *args, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


TRANSPORTS = ("stdio", "http", "sse")


@contextlib.asynccontextmanager
async def served(
    transport: str, fault: str | None = None, **settings: Any
) -> AsyncIterator[McpServerConfig]:
    """The entry of a server that is reached so, plain or with one of the faults of `faulty.py`."""
    if transport == "stdio":
        yield plain(**settings) if fault is None else faulty(fault, **settings)
        return
    module = ("plain",) if fault is None else ("faulty", fault)
    async with bridge(transport, *module) as server:
        yield McpServerConfig.model_validate(
            {"url": server.url, "transport": transport, **settings}
        )


@contextlib.asynccontextmanager
async def modern_over_http(module: str = "modern") -> AsyncIterator[McpServerConfig]:
    """The entry of a module of `servers` that takes a port; it may not listen yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"tests.support.servers.{module}", str(port)),
        cwd=PROJECT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield McpServerConfig(url=f"http://127.0.0.1:{port}/mcp")
    finally:
        process.kill()
        await process.wait()

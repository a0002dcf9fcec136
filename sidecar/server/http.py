"""The listening side: one address, a few routes, and the limits on who may use them.

Every request passes the gate before anything else looks at it; what is open without a token is
listed here, the rest is not. Connections that have shown none are counted apart and leave after
seconds, so that they cannot keep a person out.
"""

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from sidecar.chat.questions import Questions
from sidecar.door_key import DoorKey
from sidecar.errors import (
    BadRequest,
    ConfigInvalid,
    NotFound,
    Overloaded,
    PortInUse,
    Refused,
    SidecarError,
    Unauthorized,
)
from sidecar.protocol.base import CLOSE_SESSION_ENDED, FRAME_BYTES_IN
from sidecar.protocol.frames import error_info
from sidecar.server import page
from sidecar.server.attachments import PATH as ATTACHMENTS
from sidecar.server.attachments import AttachmentRoutes
from sidecar.server.auth import SUBPROTOCOL, Gate
from sidecar.server.connection import Connection, Handler
from sidecar.server.events import Events
from sidecar.server.openai_wire import BadField, error_body, error_headers
from sidecar.server.sessions import Sessions, parse_code
from sidecar.server.status import http_status

SOCKETS = 16
WAITING = 64  # connections that have not passed the gate; the oldest makes room
WAITING_S = 5.0  # for them to finish an upgrade
REFUSAL_S = 0.25  # a wrong token waits, so that guessing is slow; nobody else does
HEARTBEAT_S = 30.0
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # to read, without a token, like the page's files
DOOR = "/v1/"  # what the door key opens, and nothing else
SESSION = "/api/session"  # without one too, since it is where a page gets its token
BODY_BYTES = 4096  # a code has 43
HTTP_SHUTDOWN_S = 1.0  # sockets are closed by then, what is left is a slow plain request
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "sidecar",
}
PREFLIGHT_HEADERS = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "authorization, content-type",
}
ORIGIN = web.RequestKey("origin", str)  # of a page that may read the answer
TOKEN = web.RequestKey("token", str)  # by which this request passed

log = structlog.get_logger()
NextHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bind(host: str, port: int, *, may_move: bool = False) -> socket.socket:
    """A bound socket; port 0 takes a free one, and so does one that is taken and may move.

    Raises PortInUse or ConfigInvalid.
    """
    try:
        return _bound(host, port)
    except PortInUse:
        if not may_move:
            raise
        log.warning("port_in_use", port=port, using="a free one")
        return _bound(host, 0)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets others share it otherwise
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port} on {host} is in use by another program: "
                "choose another with --port, or --port 0 for any free one."
            ) from error
        raise ConfigInvalid(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
    return bound


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Raises ConfigInvalid when the files cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigInvalid(
            f"server.tls: the certificate {cert} and key {key} cannot be used: {error}."
        ) from error
    return context


class Server:
    """One listening address. `start` it, then `close` it once."""

    def __init__(
        self,
        bound: socket.socket,
        tls: ssl.SSLContext | None,
        gate: Gate,
        sessions: Sessions,
        door_key: DoorKey,
        door: Iterable[web.RouteDef],
        handler: Handler,
        events: Events,
        questions: Mapping[str, Questions[Any, Any]],
        attachments: AttachmentRoutes,
        *,
        waiting: int = WAITING,
        waiting_s: float = WAITING_S,
    ) -> None:
        """`door` are the routes below DOOR; they may raise any SidecarError."""
        self._bound = bound
        self._tls = tls
        self._gate = gate
        self._sessions = sessions
        self._door_key = door_key
        self._handler = handler
        self._events = events
        self._questions = questions
        self._attachments = attachments
        self._connections: dict[Connection, str] = {}  # and the token of each
        self._sockets = 0  # also those whose upgrade is being answered
        self._waiting = _WaitingRoom(waiting, waiting_s)
        self._listener: asyncio.Server | None = None
        self._files = page.files(page.folder())
        self._open_paths = OPEN_PATHS.union(self._files)
        policy = page.content_security_policy(gate.origin)
        self._headers = {**HEADERS, "Content-Security-Policy": policy}
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES)
        for path in self._files:
            application.router.add_get(path, self._page)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_post(SESSION, self._session)
        application.router.add_post("/api/code", self._code)
        application.router.add_post(ATTACHMENTS, self._receive)
        application.router.add_get(f"{ATTACHMENTS}/{{attachment_id}}", self._give, allow_head=False)
        application.router.add_post("/api/door-key", self._show_door_key)
        application.router.add_get("/ws/chat", self._chat)
        application.router.add_routes(door)
        application.on_response_prepare.append(self._add_headers)
        self._runner = web.AppRunner(application, shutdown_timeout=HTTP_SHUTDOWN_S)

    async def start(self) -> None:
        """Accepting when it returns."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Visitor(server, self._waiting, self._headers),
            sock=self._bound,
            ssl=self._tls,
            ssl_handshake_timeout=self._waiting.patience_s if self._tls else None,
        )

    def stop_accepting(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def close(self) -> None:
        """Close every socket, then the rest; aiohttp would wait for open sockets otherwise."""
        self.stop_accepting()
        async with asyncio.TaskGroup() as group:
            for connection in self._connections:
                group.create_task(connection.finish())
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: NextHandler) -> web.StreamResponse:
        try:
            return await self._pass(request, handler)
        except Unauthorized as error:
            await asyncio.sleep(REFUSAL_S)
            return _refusal(request, error, error.status)
        except Refused as error:
            return _refusal(request, error, error.status)
        except SidecarError as error:
            return _refusal(request, error, http_status(error_info(error)))
        except web.HTTPException as error:
            problem = NotFound if error.status == 404 else BadRequest
            return _refusal(request, problem(f"{error.reason}."), error.status)

    async def _pass(self, request: web.Request, handler: NextHandler) -> web.StreamResponse:
        self._gate.check_host(_joined(request, hdrs.HOST))
        origin = _joined(request, hdrs.ORIGIN)
        self._gate.check_origin(origin)
        if origin is not None:
            request[ORIGIN] = origin
            if request.method == hdrs.METH_OPTIONS:
                return web.Response(status=204, headers=PREFLIGHT_HEADERS)
        is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
        is_open = request.path in self._open_paths if is_read else request.path == SESSION
        if request.path.startswith(DOOR):
            await self._gate.check_door(_joined(request, hdrs.AUTHORIZATION))
            self._waiting.leave(request.protocol)
            return await _while_connected(request, handler)
        if not is_open:
            request[TOKEN] = self._check_token(request)
        return await handler(request)

    def _check_token(self, request: web.Request) -> str:
        return self._gate.check_token(
            _joined(request, hdrs.AUTHORIZATION), _joined(request, hdrs.SEC_WEBSOCKET_PROTOCOL)
        )

    async def _page(self, request: web.Request) -> web.Response:
        if not self._gate.is_literal(request.headers.get(hdrs.HOST)):
            return web.Response(
                status=302, headers={hdrs.LOCATION: self._gate.origin + request.path}
            )
        body, content_type = page.load(self._files[request.path])
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        """Judges a token that is sent, for webviews: a failed socket cannot say why it failed."""
        if hdrs.AUTHORIZATION in request.headers:
            self._check_token(request)
        return web.json_response({"status": "ready"})

    async def _code(self, request: web.Request) -> web.Response:
        """For a second start, which opens the page of the first one."""
        return web.json_response({"code": self._sessions.new_code()})

    async def _show_door_key(self, request: web.Request) -> web.Response:
        """For `sidecar door key`; `{"renew": true}` makes another one."""
        wants_new = _flag(await request.read(), "renew")
        key = await (self._door_key.renew() if wants_new else self._door_key.show())
        return web.json_response({"key": key.value, "kept": key.is_kept})

    async def _session(self, request: web.Request) -> web.Response:
        """Our own page's token, for the code that it was opened with."""
        self._gate.check_own_origin(request.get(ORIGIN))
        code = parse_code(await request.read())
        try:
            token = self._sessions.exchange(code)
        finally:
            await self._close_ended()
        return web.json_response({"token": token})

    async def _close_ended(self) -> None:
        """The sockets of pages whose session is over."""
        ended = [each for each, token in self._connections.items() if not self._gate.knows(token)]
        async with asyncio.TaskGroup() as group:
            for connection in ended:
                group.create_task(connection.close(CLOSE_SESSION_ENDED, "session ended"))

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self._waiting.leave(request.protocol)  # a file takes its time
        return await self._attachments.receive(request)

    async def _give(self, request: web.Request) -> web.StreamResponse:
        self._waiting.leave(request.protocol)
        return await self._attachments.give(request)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self._sockets >= SOCKETS:
            raise Overloaded(f"{SOCKETS} sockets are open already; close one.")
        response = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=HEARTBEAT_S,
            compress=False,  # on loopback it costs more than it saves
            max_msg_size=FRAME_BYTES_IN + 1,  # aiohttp's limit is exclusive
        )
        if not response.can_prepare(request):
            raise web.HTTPUpgradeRequired(reason="Open a WebSocket here")
        self._waiting.leave(request.protocol)
        self._sockets += 1
        try:
            await self._serve(request, response)
        finally:
            self._sockets -= 1
        return response

    async def _serve(self, request: web.Request, response: web.WebSocketResponse) -> None:
        transport = request.transport
        await response.prepare(request)
        assert transport is not None
        connection = Connection(response, transport, self._handler, self._events, self._questions)
        self._connections[connection] = request[TOKEN]
        if not self._gate.knows(request[TOKEN]):  # its session ended during the upgrade
            await connection.close(CLOSE_SESSION_ENDED, "session ended")
        try:
            with structlog.contextvars.bound_contextvars(connection=connection.connection_id):
                log.info("connection_opened")
                await connection.run()
                log.info("connection_closed", code=response.close_code)
        finally:
            del self._connections[connection]

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        own_policy = response.headers.get(hdrs.CONTENT_SECURITY_POLICY)
        response.headers.update(self._headers)
        if own_policy is not None:  # a file's, which allows nothing at all
            response.headers[hdrs.CONTENT_SECURITY_POLICY] = own_policy
        if ORIGIN in request:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request[ORIGIN]
            response.headers[hdrs.VARY] = "Origin"


class _Visitor(RequestHandler):
    """A connection, in the waiting room from its first moment."""

    def __init__(
        self, server: web.Server, room: "_WaitingRoom", headers: Mapping[str, str]
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]  # allowed
        self._room = room
        self._headers = headers
        self._serving: asyncio.Task[object] | None = None

    def serves(self, task: asyncio.Task[object] | None) -> None:
        """Whom to cancel when the client leaves; aiohttp would let it go on for nobody."""
        self._serving = task

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._room.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._room.leave(self)
        super().connection_lost(exc)
        if self._serving is not None:
            self._serving.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What comes before any route, and what a route did not expect, answered as the rest is."""
        if status < 500:
            log.info("request_not_understood", status=status)
            problem: SidecarError = BadRequest("This is not a request that can be understood.")
        else:
            log.error("request_crashed", exc_info=exc)
            problem = SidecarError("Something went wrong inside the sidecar; its log has more.")
        if request.writer.output_size > 0:
            raise ConnectionError("An answer has begun already.")
        response = _refusal(request, problem, status)
        response.headers.update(self._headers)
        response.force_close()
        return response


class _WaitingRoom:
    """Connections that have not shown a token yet: a bounded number, for a bounded time."""

    def __init__(self, limit: int, patience_s: float) -> None:
        self.patience_s = patience_s
        self._limit = limit
        self._waiting: dict[RequestHandler, asyncio.TimerHandle] = {}

    def enter(self, visitor: RequestHandler) -> None:
        if len(self._waiting) >= self._limit:
            self._drop(next(iter(self._waiting)))
        timer = asyncio.get_running_loop().call_later(self.patience_s, self._drop, visitor)
        self._waiting[visitor] = timer

    def leave(self, visitor: RequestHandler) -> None:
        timer = self._waiting.pop(visitor, None)
        if timer is not None:
            timer.cancel()

    def _drop(self, visitor: RequestHandler) -> None:
        self.leave(visitor)
        visitor.force_close()


async def _while_connected(request: web.Request, handler: NextHandler) -> web.StreamResponse:
    visitor = request.protocol
    assert isinstance(visitor, _Visitor)
    if visitor.transport is None:
        raise ConnectionError("The client has left already.")
    visitor.serves(asyncio.current_task())
    try:
        return await handler(request)
    finally:
        visitor.serves(None)


def _joined(request: web.Request, name: str) -> str | None:
    """A header that comes twice is no valid value of any that we judge."""
    values = request.headers.getall(name, None)
    return None if values is None else ",".join(values)


def _flag(body: bytes, name: str) -> bool:
    """A field of a JSON object that may be absent. Raises BadRequest for anything else."""
    try:
        value = json.loads(body or b"{}").get(name, False)
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadRequest("The body is no JSON object.") from error
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is true or false.")
    return value


def _refusal(request: web.BaseRequest, error: SidecarError, status: int) -> web.Response:
    """At the door, in the form that OpenAI's clients read."""
    info = error_info(error)
    if request.path.startswith(DOOR):
        param = error.param if isinstance(error, BadField) else None
        body, headers = error_body(str(error), info, status, param), error_headers(info)
        return web.json_response(body, status=status, headers=headers)
    body = {"error": str(error), "error_info": info.model_dump()}
    return web.json_response(body, status=status)

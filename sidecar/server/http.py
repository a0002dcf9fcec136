"""The listening side: one address, four routes, and the limits on who may use them.

Every request passes the gate before anything else looks at it; what is open without a token is
listed here, the rest is not. Connections that have shown none are counted apart and leave after
seconds, so that they cannot keep a person out.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from sidecar.chat.approvals import Approvals
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
from sidecar.protocol import FRAME_BYTES_IN, error_info
from sidecar.server.auth import SUBPROTOCOL, Gate
from sidecar.server.connection import Connection, Handler
from sidecar.server.events import Events
from sidecar.server.page import CONTENT_SECURITY_POLICY, page

SOCKETS = 16
WAITING = 64  # connections that have not passed the gate; the oldest makes room
WAITING_S = 5.0  # for them to finish an upgrade
REFUSAL_S = 0.25  # a wrong token waits, so that guessing is slow; nobody else does
HEARTBEAT_S = 30.0
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})  # to read, without a token
HTTP_SHUTDOWN_S = 1.0  # sockets are closed by then, what is left is a slow plain request
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
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
        handler: Handler,
        events: Events,
        approvals: Approvals,
        *,
        waiting: int = WAITING,
        waiting_s: float = WAITING_S,
    ) -> None:
        self._bound = bound
        self._tls = tls
        self._gate = gate
        self._handler = handler
        self._events = events
        self._approvals = approvals
        self._connections: set[Connection] = set()
        self._sockets = 0  # also those whose upgrade is being answered
        self._waiting = _WaitingRoom(waiting, waiting_s)
        self._listener: asyncio.Server | None = None
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/", self._page)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/ws/chat", self._chat)
        application.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(application, shutdown_timeout=HTTP_SHUTDOWN_S)

    async def start(self) -> None:
        """Accepting when it returns."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Visitor(server, self._waiting),
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
            return _refusal(error, error.status)
        except Refused as error:
            return _refusal(error, error.status)
        except Overloaded as error:
            return _refusal(error, 503)
        except web.HTTPException as error:
            problem = NotFound if error.status == 404 else BadRequest
            return _refusal(problem(f"{error.reason}."), error.status)

    async def _pass(self, request: web.Request, handler: NextHandler) -> web.StreamResponse:
        self._gate.check_host(_joined(request, hdrs.HOST))
        origin = _joined(request, hdrs.ORIGIN)
        self._gate.check_origin(origin)
        if origin is not None:
            request[ORIGIN] = origin
            if request.method == hdrs.METH_OPTIONS:
                return web.Response(status=204, headers=PREFLIGHT_HEADERS)
        is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
        if not (is_read and request.path in OPEN_PATHS):
            self._check_token(request)
        return await handler(request)

    def _check_token(self, request: web.Request) -> None:
        self._gate.check_token(
            _joined(request, hdrs.AUTHORIZATION), _joined(request, hdrs.SEC_WEBSOCKET_PROTOCOL)
        )

    async def _page(self, request: web.Request) -> web.Response:
        if not self._gate.is_literal(request.headers.get(hdrs.HOST)):
            return web.Response(status=302, headers={hdrs.LOCATION: self._gate.origin + "/"})
        http = self._gate.origin
        text = page(http, http.replace("http", "ws", 1) + "/ws/chat")
        return web.Response(text=text, content_type="text/html")

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        """Judges a token that is sent, for webviews: a failed socket cannot say why it failed."""
        if hdrs.AUTHORIZATION in request.headers:
            self._check_token(request)
        return web.json_response({"status": "ready"})

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
        connection = Connection(response, transport, self._handler, self._events, self._approvals)
        self._connections.add(connection)
        try:
            with structlog.contextvars.bound_contextvars(connection=connection.connection_id):
                log.info("connection_opened")
                await connection.run()
                log.info("connection_closed", code=response.close_code)
        finally:
            self._connections.discard(connection)


class _Visitor(RequestHandler):
    """A connection, in the waiting room from its first moment."""

    def __init__(self, server: web.Server, room: "_WaitingRoom") -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]  # allowed
        self._room = room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._room.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._room.leave(self)
        super().connection_lost(exc)

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
        response = _refusal(problem, status)
        response.headers.update(HEADERS)
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


def _joined(request: web.Request, name: str) -> str | None:
    """A header that comes twice is no valid value of any that we judge."""
    values = request.headers.getall(name, None)
    return None if values is None else ",".join(values)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    if ORIGIN in request:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request[ORIGIN]
        response.headers[hdrs.VARY] = "Origin"


def _refusal(error: SidecarError, status: int) -> web.Response:
    info = error_info(error).model_dump()
    return web.json_response({"error": str(error), "error_info": info}, status=status)

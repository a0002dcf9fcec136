"""MCP over streamable HTTP: the SDK's transport over a client that says what went wrong.

The SDK reports a refused connection by tearing its session down and a 401, a 500 and a lost
session by one and the same error. Here every POST answers for itself: what never left us is told
apart from what may have been done. A body is bounded before any of it is read; the SDK parses it,
on the loop. Importing this imports the SDK, so it is loaded off the loop.
"""

import contextlib
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp_types import INTERNAL_ERROR

from sidecar.mcp_host.challenge import Challenge

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

EVENT_BYTES = 32 * 1024 * 1024  # a screenshot is over the SDK's 1 MiB
BODY_BYTES = 64 * 1024 * 1024
CONNECT_S = 10.0
WRITE_S = 30.0
GOODBYE_S = 2.0  # a server that does not answer our DELETE must not hold up a shutdown

SESSION = "sidecar.session"  # extension of a request whose address names a session, or opens one

# In the `data` of errors that are ours; no server can know them, so none can pass for us.
NOT_DELIVERED = f"not delivered {secrets.token_hex()}"
LOST = f"lost {secrets.token_hex()}"


class HttpWatch:
    """What the last exchanges showed. `on_loss` is called when this session is of no more use."""

    def __init__(
        self,
        on_loss: Callable[[], None],
        on_more_wanted: Callable[[Challenge], None] | None = None,
    ) -> None:
        """`on_more_wanted` is told when a request needs more than our token may do."""
        self.status: int | None = None
        self.challenge: Challenge | None = None
        self.fault: str | None = None
        self._on_loss = on_loss
        self._on_more_wanted = on_more_wanted

    def answered(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        said = challenge_of(response)
        if said.status == 401:
            self.challenge = said
            self._on_loss()
        elif said.wants_more and self._on_more_wanted is not None:
            self.challenge = said
            self._on_more_wanted(said)

    def lost(self, fault: str) -> None:
        self.fault = fault
        self._on_loss()


@dataclass(frozen=True, slots=True)
class Way:
    """How a server behind a URL is reached. Without `tls`, no certificate is trusted."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    tls: ssl.SSLContext | None
    proxy: str | None = field(repr=False)
    auth: httpx2.Auth | None = field(repr=False)


def open_client(way: Way, watch: HttpWatch) -> "WatchedClient":
    """What every request to one server goes through; to be entered."""
    return WatchedClient(
        watch,
        # a compressed body could be a thousand times what its limit says
        headers={**way.headers, "accept-encoding": "identity"},
        # how long an answer may take is the call's own clock
        timeout=httpx2.Timeout(None, connect=CONNECT_S, write=WRITE_S),
        **way_options(way.tls, way.proxy),
        auth=way.auth,
    )


@contextlib.asynccontextmanager
async def http_transport(way: Way, watch: HttpWatch) -> AsyncGenerator["TransportStreams", None]:
    """The SDK's `Transport`."""
    async with (
        open_client(way, watch) as client,
        streamable_http_client(
            way.url, http_client=client, max_sse_event_size=EVENT_BYTES
        ) as streams,
    ):
        yield streams


class WatchedClient(httpx2.AsyncClient):
    def __init__(self, watch: HttpWatch, **options: Any) -> None:
        super().__init__(**options)
        self._watch = watch

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        if request.method == "DELETE":
            limit = httpx2.Timeout(GOODBYE_S).as_dict()
            request.extensions = {**request.extensions, "timeout": limit}
        try:
            response = await super().send(request, stream=True, **options)
            self._watch.answered(response)
            if not _is_of(response, "text/event-stream"):
                response.stream = Capped(
                    response.stream, BODY_BYTES, partial(self._broke_off, request)
                )
            refusal = await self._refused(request, response)
        except httpx2.TransportError as error:
            return self._failed(request, error)
        if refusal is not None:
            await response.aclose()
            return refusal
        if not stream:
            await response.aread()
        return response

    async def _refused(
        self, request: httpx2.Request, response: httpx2.Response
    ) -> httpx2.Response | None:
        """The answer in place of one that the SDK has no words for."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            return _refusal(request, "It compresses its answers, unasked.")
        if request.method != "POST" or response.status_code < 400:
            return None
        if response.status_code == 401:
            return _refusal(request, "It asks for authorization (HTTP 401).", NOT_DELIVERED)
        if challenge_of(response).wants_more:
            return _refusal(request, "It wants more permission (HTTP 403).", NOT_DELIVERED)
        if await _is_session_lost(request, response):
            self._watch.lost("it has forgotten our session, as after a restart")
            return _refusal(request, "It had lost our session; call again.", NOT_DELIVERED)
        if _is_of(response, "application/json"):
            return None
        return _refusal(request, f"HTTP {response.status_code}")

    def _failed(self, request: httpx2.Request, error: httpx2.TransportError) -> httpx2.Response:
        reason = self._broke_off(request, error)
        never_left = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        return _refusal(request, reason, NOT_DELIVERED if never_left else LOST)

    def _broke_off(self, request: httpx2.Request, error: httpx2.TransportError) -> str:
        """Told before anybody can use the session again. Returns the reason."""
        reason = str(error) or type(error).__name__
        if request.method == "POST" or SESSION in request.extensions:
            self._watch.lost(reason)
        return reason


def challenge_of(response: httpx2.Response) -> Challenge:
    return Challenge(response.status_code, response.headers.get("www-authenticate", ""))


async def _is_session_lost(request: httpx2.Request, response: httpx2.Response) -> bool:
    """404 as the specification says; some servers answer 400 and say so in the body."""
    if MCP_SESSION_ID not in request.headers and SESSION not in request.extensions:
        return False
    if response.status_code == 400:
        return b"session" in (await response.aread()).lower()
    return response.status_code == 404


def _is_of(response: httpx2.Response, media_type: str) -> bool:
    content_type: str = response.headers.get("content-type", "")
    return content_type.lower().startswith(media_type)


def _refusal(request: httpx2.Request, message: str, mark: str | None = None) -> httpx2.Response:
    """An answer of our own in the server's place; the SDK passes on its message and mark."""
    error = {"code": INTERNAL_ERROR, "message": message, "data": mark}
    return httpx2.Response(
        503, json={"jsonrpc": "2.0", "id": None, "error": error}, request=request
    )


class Capped(httpx2.AsyncByteStream):
    """A body that ends with an error instead of filling the memory."""

    def __init__(
        self,
        stream: Any,
        max_bytes: int,
        broke_off: Callable[[httpx2.TransportError], object] = lambda error: None,
    ) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._broke_off = broke_off

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._stream:
                size += len(chunk)
                if size > self._max_bytes:
                    limit = f"{self._max_bytes // 2**20} MiB"
                    raise httpx2.StreamError(f"the body has more than {limit}")
                yield chunk
        except httpx2.TransportError as error:
            self._broke_off(error)
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


def way_options(tls: ssl.SSLContext | None, proxy: str | None) -> dict[str, Any]:
    """What a client is made with to go this way, and no other that the environment names."""
    return {
        "verify": tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        "proxy": None if proxy is None else _proxy(proxy, tls),
        "trust_env": False,
    }


def _proxy(url: str, tls: ssl.SSLContext | None) -> httpx2.Proxy:
    is_tls = url.lower().startswith("https:")
    return httpx2.Proxy(url, ssl_context=tls if is_tls else None)

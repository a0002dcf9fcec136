"""OpenAI through its official SDK, of which only the request and the raw bytes are used.

The SDK makes and signs the request; the stream is read by our own decoder over our own session,
which costs a tenth of the SDK's typed chunks and reads what they do not. Imported at first use,
off the loop: it takes a second and a half. Environment variables that the SDK would follow on its
own change nothing; only the settings do.
"""

import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import aiohttp

from sidecar.config import DEFAULT_BASE_URLS
from sidecar.messages import JsonObject
from sidecar.providers.dialects.base import Dialect
from sidecar.providers.dialects.chat_completions import ChatCompletions
from sidecar.providers.dialects.responses import Responses
from sidecar.providers.endpoint import Api
from sidecar.providers.http import Http, Reply
from sidecar.providers.wire import has_login
from sidecar.threads import load_modules

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncAPIResponse, AsyncOpenAI

PIECE_BYTES = 64 * 1024
_STATUS = "sidecar.status"
_MODULES = (  # all that the first request would import, so that none of it happens on the loop
    "openai",
    "openai._vendor.httpx_aiohttp.transport",
    "openai.lib._chat_completion_resources",
    "openai.lib._client_auth",
    "openai.lib._response_resources",
    "openai.resources.chat.chat",
    "openai.resources.chat.completions.completions",
    "openai.resources.models",
    "openai.resources.responses.responses",
    "httpcore2",
)


def openai_api(
    name: str,
    base_url: str,
    headers: Mapping[str, str],
    http: Http,
    connect_s: float,
    speaks_chat: bool,
) -> Api:
    """Asked by the Responses API, or with `speaks_chat` by the older Chat Completions."""
    dialect: Dialect = Responses(name)
    advice = ""
    if speaks_chat:
        dialect = ChatCompletions(name, "max_completion_tokens")
    elif base_url != DEFAULT_BASE_URLS["openai"]:
        advice = " (A server that knows only OpenAI's older API needs `api: chat`.)"
    return Api(
        base_url,
        dialect,
        SdkWire(http, base_url, headers, connect_s),
        key_variable=None if has_login(headers, "authorization") else "OPENAI_API_KEY",
        advice=advice,
    )


class SdkWire:
    def __init__(
        self, http: Http, base_url: str, headers: Mapping[str, str], connect_s: float
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._headers = headers
        self._connect_s = connect_s
        self._client: AsyncOpenAI | None = None
        self._session: aiohttp.ClientSession | None = None

    async def prepare(self) -> aiohttp.ClientSession:
        await load_modules(*_MODULES)
        return await self._http.session(self._base_url)

    @asynccontextmanager
    async def post(
        self, session: aiohttp.ClientSession, key: str | None, path: str, body: JsonObject
    ) -> AsyncGenerator[Reply, None]:
        async with _replied(self._asked(self._client_for(session, key), path, body)) as reply:
            yield reply

    def _asked(
        self, client: "AsyncOpenAI", path: str, body: JsonObject
    ) -> AbstractAsyncContextManager["AsyncAPIResponse[Any]"]:
        # `extra_body` goes out as it is; typed messages are walked by the SDK, 0.15 ms for each.
        if path == "/responses":
            respond = client.responses.with_streaming_response.create
            return respond(model="", input="", stream=True, extra_body=body)
        complete = client.chat.completions.with_streaming_response.create
        return complete(model="", messages=[], stream=True, extra_body=body)

    @asynccontextmanager
    async def get(
        self, session: aiohttp.ClientSession, key: str | None, path: str
    ) -> AsyncGenerator[Reply, None]:
        client = self._client_for(session, key)
        async with _replied(client.models.with_streaming_response.list()) as reply:
            yield reply

    def _client_for(self, session: aiohttp.ClientSession, key: str | None) -> "AsyncOpenAI":
        key = key or ""
        if self._client is None or self._client.api_key != key or self._session is not session:
            self._client, self._session = self._open_client(key, session), session
        return self._client

    def _open_client(self, key: str, session: aiohttp.ClientSession) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, DefaultAioHttpClient, Timeout
        from openai._vendor.httpx_aiohttp.transport import AiohttpTransport

        # The session has its own certificates; what is given here trusts nobody and is not used.
        transport = AiohttpTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), client=session)
        client = AsyncOpenAI(
            api_key=key,
            admin_api_key="",
            webhook_secret="",
            base_url=self._base_url,
            max_retries=0,
            # What httpx calls waiting for the pool, aiohttp calls having a connection.
            timeout=Timeout(None, pool=self._connect_s),
            http_client=DefaultAioHttpClient(
                transport=transport,
                trust_env=False,
                follow_redirects=False,
                event_hooks={"request": [_in_pieces], "response": [_keep_unread]},
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            ),
        )
        # By now it follows OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS.
        client.organization = client.project = None
        client._custom_headers = dict(self._headers)
        return client


@asynccontextmanager
async def _replied(
    request: AbstractAsyncContextManager["AsyncAPIResponse[Any]"],
) -> AsyncGenerator[Reply, None]:
    """The SDK's answer as ours."""
    from openai import APIConnectionError

    async with AsyncExitStack() as stack:
        try:
            response = await stack.enter_async_context(request)
        except APIConnectionError as error:
            raise _cause(error) from error
        status = response.http_response.extensions[_STATUS]
        yield Reply(status, response.headers, _reader(response.iter_bytes()))


async def _in_pieces(request: "httpx2.Request") -> None:
    """A body with images is some MB: written as a whole, it would hold up everybody else."""
    if len(request.content) > PIECE_BYTES:
        request.stream = _pieces_of(request.content)
        del request._content  # what has none is sent from its stream


def _pieces_of(whole: bytes) -> "httpx2.AsyncByteStream":
    from httpx2 import AsyncByteStream

    class Pieces(AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for start in range(0, len(whole), PIECE_BYTES):
                yield whole[start : start + PIECE_BYTES]

    return Pieces()


async def _keep_unread(response: "httpx2.Response") -> None:
    """The SDK reads a refusal to its end, however long or slow: it sees a success instead."""
    response.extensions[_STATUS] = response.status_code
    response.status_code = 200


def _reader(chunks: AsyncIterator[bytes]) -> Callable[[], Awaitable[bytes]]:
    from httpx2 import HTTPError

    async def read() -> bytes:
        try:
            return await anext(chunks, b"")
        except HTTPError as error:
            raise _cause(error) from error

    return read


def _cause(error: BaseException) -> aiohttp.ClientError | OSError:
    """What aiohttp said, below httpx's and the SDK's translations of it."""
    below = error.__cause__ or error.__context__
    if isinstance(below, aiohttp.ClientError | OSError):
        return below
    return _cause(below) if below else aiohttp.ClientConnectionError(str(error))

"""A vendor's documented wire, straight over aiohttp.

Never imports a vendor's SDK: a local model answers within a second of the program's start.
"""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from io import BytesIO
from typing import TypeAlias

import aiohttp
from aiohttp.payload import BytesIOPayload
from multidict import CIMultiDict
from pydantic import JsonValue

from sidecar import __version__
from sidecar.messages import JsonObject
from sidecar.providers.http import Http, Reply
from sidecar.threads import run_in_thread

JSON = "application/json"
LONG_CHARS = 1024 * 1024  # 4 ms of encoding

_Request: TypeAlias = AbstractAsyncContextManager[aiohttp.ClientResponse]


def has_login(headers: Mapping[str, str], *names: str) -> bool:
    """Whether one of these headers, in small letters, shows who the person is."""
    return any(header.lower() in names for header in headers)


def bearer(key: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"}


class DirectWire:
    def __init__(
        self,
        http: Http,
        base_url: str,
        headers: Mapping[str, str],
        connect_s: float,
        login: Callable[[str], Mapping[str, str]] = bearer,
    ) -> None:
        """`login` is how this vendor wants to be shown a key; `headers` are the person's own."""
        self._http = http
        self._base_url = base_url
        self._headers = headers
        self._connect_s = connect_s
        self._login = login

    async def prepare(self) -> aiohttp.ClientSession:
        return await self._http.session(self._base_url)

    @asynccontextmanager
    async def post(
        self, session: aiohttp.ClientSession, key: str | None, path: str, body: JsonObject
    ) -> AsyncGenerator[Reply, None]:
        # Written in pieces, since one with images is some MB.
        encoded = BytesIOPayload(BytesIO(await _encoded(body)), content_type=JSON)
        post = partial(session.post, self._base_url + path, data=encoded)
        async with self._replied(post, "text/event-stream", key) as reply:
            yield reply

    def get(
        self, session: aiohttp.ClientSession, key: str | None, path: str
    ) -> AbstractAsyncContextManager[Reply]:
        get = partial(session.get, self._base_url + path)
        return self._replied(get, JSON, key)

    @asynccontextmanager
    async def _replied(
        self, request: Callable[..., _Request], accept: str, key: str | None
    ) -> AsyncGenerator[Reply, None]:
        headers = CIMultiDict({"accept": accept, "user-agent": f"sidecar/{__version__}"})
        if key is not None:
            headers.update(self._login(key))
        headers.update(self._headers)  # what the person wrote has the last word
        async with request(
            headers=headers,
            allow_redirects=False,  # a key goes to the address it was given for, and nowhere else
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
        ) as response:
            yield Reply(response.status, response.headers, response.content.readany)


async def _encoded(body: JsonObject) -> bytes:
    """The body as JSON; a long one, which has images, is made off the loop."""
    if _chars(body) <= LONG_CHARS:
        return json.dumps(body).encode()
    # String by string: `dumps` would keep all threads waiting until it is through.
    return await run_in_thread(
        lambda: "".join(json.JSONEncoder().iterencode(body)).encode(), "request"
    )


def _chars(value: JsonValue) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_chars, value)) if isinstance(value, list) else 0

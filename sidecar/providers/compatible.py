"""A vendor's documented wire, straight over aiohttp.

Never imports a vendor's SDK: a local model answers within a second of the program's start.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeAlias

import aiohttp
from multidict import CIMultiDict

from sidecar import __version__
from sidecar.messages import JsonObject
from sidecar.providers.http import Http, Reply

_Request: TypeAlias = AbstractAsyncContextManager[aiohttp.ClientResponse]


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

    def post(
        self, session: aiohttp.ClientSession, key: str | None, path: str, body: JsonObject
    ) -> AbstractAsyncContextManager[Reply]:
        post = partial(session.post, self._base_url + path, json=body)
        return self._replied(post, "text/event-stream", key)

    def get(
        self, session: aiohttp.ClientSession, key: str | None, path: str
    ) -> AbstractAsyncContextManager[Reply]:
        get = partial(session.get, self._base_url + path)
        return self._replied(get, "application/json", key)

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

"""Any server that speaks OpenAI's chat completions format, straight over aiohttp.

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


class DirectWire:
    def __init__(
        self, http: Http, base_url: str, headers: Mapping[str, str], connect_s: float
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._headers = headers
        self._connect_s = connect_s

    async def prepare(self) -> aiohttp.ClientSession:
        return await self._http.session(self._base_url)

    def chat(
        self, session: aiohttp.ClientSession, key: str | None, body: JsonObject
    ) -> AbstractAsyncContextManager[Reply]:
        post = partial(session.post, self._base_url + "/chat/completions", json=body)
        return self._replied(post, "text/event-stream", key)

    def models(
        self, session: aiohttp.ClientSession, key: str | None
    ) -> AbstractAsyncContextManager[Reply]:
        get = partial(session.get, self._base_url + "/models")
        return self._replied(get, "application/json", key)

    @asynccontextmanager
    async def _replied(
        self, request: Callable[..., _Request], accept: str, key: str | None
    ) -> AsyncGenerator[Reply, None]:
        headers = CIMultiDict({"accept": accept, "user-agent": f"sidecar/{__version__}"})
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        headers.update(self._headers)  # what the person wrote has the last word
        async with request(
            headers=headers,
            allow_redirects=False,  # a key goes to the address it was given for, and nowhere else
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
        ) as response:
            yield Reply(response.status, response.headers, response.content.readany)

"""Any server that speaks OpenAI's chat completions format, straight over aiohttp.

Never imports a vendor's SDK: a local model answers within a second of the program's start.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
from multidict import CIMultiDict

from sidecar import __version__
from sidecar.messages import JsonObject
from sidecar.providers.http import Http, Reply


class DirectWire:
    def __init__(
        self, http: Http, base_url: str, headers: Mapping[str, str], connect_s: float
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._headers = headers
        self._connect_s = connect_s

    async def prepare(self) -> None:
        await self._http.session(self._base_url)

    def chat(self, body: JsonObject, key: str | None) -> AbstractAsyncContextManager[Reply]:
        return self._request("POST", "/chat/completions", "text/event-stream", key, body)

    def models(self, key: str | None) -> AbstractAsyncContextManager[Reply]:
        return self._request("GET", "/models", "application/json", key)

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, accept: str, key: str | None, body: JsonObject | None = None
    ) -> AsyncGenerator[Reply, None]:
        headers = CIMultiDict({"accept": accept, "user-agent": f"sidecar/{__version__}"})
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        headers.update(self._headers)  # what the person wrote has the last word
        session = await self._http.session(self._base_url)
        async with session.request(
            method,
            self._base_url + path,
            headers=headers,
            json=body,
            allow_redirects=False,  # a key goes to the address it was given for, and nowhere else
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
        ) as response:
            yield Reply(response.status, response.headers, response.content.readany)

"""MCP over HTTP with server-sent events, as it was before streamable HTTP; old servers speak it.

One stream brings all messages; its first event says where ours are to be posted. The SDK's own
client drops the connection at an event of 1 MiB and after five silent minutes, so this one is
ours, over the same watched client as streamable HTTP. The end of the stream is the end of the
session. Importing this imports the SDK, so it is loaded off the loop.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

import anyio
import httpx2
from anyio.abc import ObjectSendStream, TaskGroup
from mcp.shared._httpx_utils import stream_within_origin
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCRequest

from sidecar.mcp_host.http import EVENT_BYTES, SESSION, HttpWatch, Way, open_client
from sidecar.mcp_host.streams import Stream
from sidecar.mcp_host.wire import read_message

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

STREAM = {"accept": "text/event-stream", "cache-control": "no-store"}
JSON = {"content-type": "application/json"}

Arrivals = ObjectSendStream[SessionMessage | Exception]


class NotSse(Exception):
    """What answers there is no MCP server of this kind."""


@contextlib.asynccontextmanager
async def sse_transport(way: Way, watch: HttpWatch) -> AsyncGenerator["TransportStreams", None]:
    """The SDK's `Transport`. Raises NotSse on entering."""
    async with (
        open_client(way, watch) as client,
        stream_within_origin(
            client, "GET", way.url, headers=STREAM, extensions={SESSION: True}
        ) as response,
    ):
        _check(response)
        events = aiter(httpx2.EventSource(response, max_event_size=EVENT_BYTES))
        endpoint = await _endpoint(events, response.url)
        arrivals, arrived = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        async with arrivals, arrived, anyio.create_task_group() as tasks:
            tasks.start_soon(_receive, events, arrivals, watch)
            yield arrived, _Writer(client, endpoint, arrivals, tasks)
            tasks.cancel_scope.cancel()


def _check(response: httpx2.Response) -> None:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code != 200 or media_type != "text/event-stream":
        raise NotSse(f"no event stream, but HTTP {response.status_code} {media_type}".rstrip())


async def _endpoint(events: AsyncIterator[httpx2.ServerSentEvent], url: httpx2.URL) -> httpx2.URL:
    """Where to post: on the server's own origin, since our headers go there."""
    async for event in events:
        if event.event == "endpoint":
            endpoint = url.join(event.data)
            if (endpoint.scheme, endpoint.netloc) != (url.scheme, url.netloc):
                raise NotSse("an event stream that wants our messages at another address")
            return endpoint
    raise NotSse("an event stream that ended before it said where to post")


async def _receive(
    events: AsyncIterator[httpx2.ServerSentEvent], arrivals: Arrivals, watch: HttpWatch
) -> None:
    """Pass messages on until the stream ends; then no further one can come."""
    fault = "its event stream has ended"
    async with arrivals:
        try:
            async for event in events:
                if event.event == "message" and event.data:
                    # a cut surrogate pair cannot get here: the stream was decoded already
                    message = await read_message(event.data.encode())
                    if message is not None:
                        await arrivals.send(SessionMessage(message))
        except (httpx2.TransportError, httpx2.StreamError) as error:
            fault = str(error) or type(error).__name__
        except anyio.BrokenResourceError:
            return  # nobody listens any more
        watch.lost(fault)


class _Writer(Stream):
    """Posts each message. One that is refused is answered in the server's place."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        endpoint: httpx2.URL,
        arrivals: Arrivals,
        tasks: TaskGroup,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._arrivals = arrivals
        self._tasks = tasks

    async def send(self, item: SessionMessage, /) -> None:
        """Requests beside each other, since some servers hold a POST until they have an answer."""
        if isinstance(item.message, JSONRPCRequest):
            self._tasks.start_soon(self._ask, item.message)
        else:
            await self._post(item.message)

    async def _ask(self, request: JSONRPCRequest) -> None:
        response = await self._post(request)
        if response.status_code >= 300:
            refusal = JSONRPCError(jsonrpc="2.0", id=request.id, error=_error(response))
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._arrivals.send(SessionMessage(refusal))

    async def _post(self, message: JSONRPCMessage) -> httpx2.Response:
        async with stream_within_origin(
            self._client,
            "POST",
            self._endpoint,
            content=message.model_dump_json(by_alias=True, exclude_unset=True),
            headers=JSON,
            extensions={SESSION: True},
        ) as response:
            with contextlib.suppress(httpx2.TransportError, httpx2.StreamError):
                await response.aread()
            return response


def _error(response: httpx2.Response) -> ErrorData:
    """The client's own words for a failure, or the server's."""
    try:
        return JSONRPCError.model_validate_json(response.content).error
    except (ValueError, httpx2.StreamError):
        return ErrorData(code=INTERNAL_ERROR, message=f"HTTP {response.status_code}")

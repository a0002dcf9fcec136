"""One chat completions API: request, stream, retries, list of models, whatever carries the bytes.

The one flow for every kind that speaks this format; a Wire is all in which they differ. A
parameter that the server refuses by name is left out, once found, for that model from then on.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Protocol

import aiohttp
import structlog

from sidecar.config import TimeoutsConfig
from sidecar.errors import KeyMissing, KeyRejected
from sidecar.messages import JsonObject
from sidecar.providers.base import ModelEvent, ModelInfo, ModelRequest
from sidecar.providers.dialects.chat_completions import (
    ChatCompletionsStream,
    TokenLimit,
    encode_request,
    parse_models,
    refused_parameter,
    without,
)
from sidecar.providers.failures import Vendor, said
from sidecar.providers.http import (
    Clocks,
    Reply,
    briefly,
    end_of,
    read_body,
    read_refusal,
    retrying,
)
from sidecar.providers.sse import SseDecoder

log = structlog.get_logger()

MAX_LIST_BYTES = 16 * 1024 * 1024  # the longest list known, an aggregator's, is under 2 MiB
LIST_S = 30.0
SLICE_BYTES = 16 * 1024  # of a burst, 3 ms of work; then the other turns and sockets have theirs
LAST_EVENTS_S = 2.0  # the usage comes at once after the answer, or it never comes
LAST_BYTES_S = 0.05  # the end of a body comes with its last event, or the server is in no hurry


class Wire(Protocol):
    """Carries requests to one address. Raises aiohttp.ClientError and OSError, and no others."""

    async def prepare(self) -> aiohttp.ClientSession:
        """Whatever takes time before a request and is no fault of the vendor's.

        The session is for the next request only: the way to the vendor may change.
        """

    def chat(
        self, session: aiohttp.ClientSession, key: str | None, body: JsonObject
    ) -> AbstractAsyncContextManager[Reply]:
        """Leaving it closes the connection if the body was not read to its end."""

    def models(
        self, session: aiohttp.ClientSession, key: str | None
    ) -> AbstractAsyncContextManager[Reply]: ...


class Endpoint:
    """A Provider over a Wire."""

    def __init__(
        self,
        name: str,
        base_url: str,
        wire: Wire,
        *,
        key: Callable[[], Awaitable[str | None]],
        key_variable: str | None,
        token_limit: TokenLimit,
        timeouts: TimeoutsConfig,
        max_retries: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`key_variable` is where the vendor's key usually is; None: it works without a key."""
        self._name = name
        self._base_url = base_url
        self._wire = wire
        self._key = key
        self._key_variable = key_variable
        self._token_limit = token_limit
        self._timeouts = timeouts
        self._max_retries = max_retries
        self._sleep = sleep
        self._refused: dict[str, list[str]] = {}  # model → parameters, in the order found

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        return retrying(
            lambda end: self._attempt(request, end),
            self._max_retries,
            self._timeouts.total_s,
            self._sleep,
        )

    async def prepare(self) -> None:
        await self._wire.prepare()

    async def models(self) -> Sequence[ModelInfo]:
        vendor = await self._vendor()
        whole_s = self._timeouts.connect_s + LIST_S
        limits = {"first_byte_s": whole_s, "silence_s": LIST_S, "total_s": whole_s}
        timeouts = self._timeouts.model_copy(update=limits)
        session = await self._wire.prepare()
        async with AsyncExitStack() as stack:
            clocks = Clocks(vendor, timeouts, end_of(whole_s))
            reply = await _opened(self._wire.models(session, vendor.key), clocks, stack)
            if reply.status != 200:
                raise vendor.refused(reply.status, reply.headers, await read_refusal(reply))
            body = await read_body(reply, MAX_LIST_BYTES)
        try:
            return parse_models(body)
        except ValueError as error:
            raise vendor.bad_response("answered with something else than its models.") from error

    async def close(self) -> None:
        """Connections belong to Http."""

    async def _attempt(self, request: ModelRequest, end: float) -> AsyncGenerator[ModelEvent, None]:
        vendor = replace(await self._vendor(), model=request.model)
        refused = self._refused.setdefault(request.model, [])
        body = encode_request(request, self._token_limit)
        for name in refused:
            if name in body:
                body = without(body, name)
        while True:
            session = await self._wire.prepare()
            async with AsyncExitStack() as stack:
                clocks = Clocks(vendor, self._timeouts, end)
                reply = await _opened(self._wire.chat(session, vendor.key, body), clocks, stack)
                if reply.status == 200:
                    stream, decoder = await _stream(reply, vendor), SseDecoder(self._name)
                    is_whole = False
                    taken = 0
                    while not stream.done and (data := await reply.read()):
                        for start in range(0, len(data), SLICE_BYTES):
                            piece = data[start : start + SLICE_BYTES]
                            for sent in decoder.feed(piece):
                                for event in stream.feed(sent):
                                    yield event
                            if stream.is_whole and not is_whole:
                                is_whole, reply = True, briefly(reply, LAST_EVENTS_S)
                            taken += len(piece)
                            if taken >= SLICE_BYTES:  # a burst: reading alone would not wait
                                await asyncio.sleep(0)
                                taken = 0
                    for sent in decoder.end():
                        for event in stream.feed(sent):
                            yield event
                    for event in stream.end():
                        yield event
                    await _read_rest(reply)
                    return
                error = await read_refusal(reply)
            parameter = refused_parameter(said(error), body) if reply.status in (400, 422) else None
            if parameter is None or parameter in refused:
                raise vendor.refused(reply.status, reply.headers, error)
            refused.append(parameter)
            log.info(
                "parameter_dropped",
                provider=self._name,
                model=request.model,
                parameter=parameter,
            )
            body = without(body, parameter)

    async def _vendor(self) -> Vendor:
        key = await self._key()
        if key is None and self._key_variable is not None:
            raise KeyMissing(
                f"There is no API key for {self._name}. Set one with `sidecar keys set "
                f"{self._name}`, or in {self._key_variable}; `--demo` works without a key.",
                provider=self._name,
            )
        if key is not None and not (key.isascii() and key.isprintable()):
            raise KeyRejected(
                f"The API key for {self._name} has characters that no key has; set it again with "
                f"`sidecar keys set {self._name}`.",
                provider=self._name,
            )
        return Vendor(self._name, self._base_url, key)


async def _opened(
    wire: AbstractAsyncContextManager[Reply], clocks: Clocks, stack: AsyncExitStack
) -> Reply:
    """The reply, held open by `stack`, whose reads keep to the clocks."""
    reply = await clocks.wait(stack.enter_async_context(wire))

    async def read() -> bytes:
        data = await clocks.wait(reply.read())
        clocks.heard()
        return data

    return replace(reply, read=read)


async def _stream(reply: Reply, vendor: Vendor) -> ChatCompletionsStream:
    media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in ("application/json", "text/html"):
        raise vendor.not_streamed(media_type, await read_refusal(reply))
    return ChatCompletionsStream(vendor)


async def _read_rest(reply: Reply) -> None:
    """Read to the body's end, so that the next step finds the connection open."""
    rest = briefly(reply, LAST_BYTES_S)
    while await rest.read():
        pass

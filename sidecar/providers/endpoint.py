"""A vendor's API: request, stream, retries, list of models, whatever its format and transport.

The one flow for every kind; an Api is all in which they differ. A parameter
that the server refuses by name is left out, once found, for that model from then on.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import aiohttp
import structlog

from sidecar.config import TimeoutsConfig
from sidecar.errors import KeyMissing, KeyRejected, ModelNoVision
from sidecar.messages import JsonObject
from sidecar.providers.base import ModelEvent, ModelInfo, ModelRequest, Notice, UsageReport
from sidecar.providers.dialects.base import AnswerStream, Dialect
from sidecar.providers.discovery import Find
from sidecar.providers.failures import Vendor, said
from sidecar.providers.files import Fitting, shows_image
from sidecar.providers.http import (
    Clocks,
    Reply,
    briefly,
    end_of,
    read_body,
    read_refusal,
    retrying,
)
from sidecar.providers.prices import Prices
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

    def post(
        self, session: aiohttp.ClientSession, key: str | None, path: str, body: JsonObject
    ) -> AbstractAsyncContextManager[Reply]:
        """Ask for a stream. Leaving it closes the connection if it was not read to its end."""

    def get(
        self, session: aiohttp.ClientSession, key: str | None, path: str
    ) -> AbstractAsyncContextManager[Reply]: ...


@dataclass(frozen=True, slots=True)
class Api:
    """What a vendor's API differs in from another's.

    `key_variable` is where the vendor's key usually is; None: it works without a key. `advice` is
    a sentence for errors that say there is nothing at the address.
    """

    base_url: str
    dialect: Dialect
    wire: Wire
    key_variable: str | None = None
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    """One request as it is asked, and what reads the answer.

    It `needs_images` when the newest message shows one; older ones may be left out of it. The body
    is without the parameters that are `left_out`.
    """

    request: ModelRequest
    vendor: Vendor
    body: JsonObject
    stream: AnswerStream
    notices: tuple[Notice, ...]
    needs_images: bool
    has_images: bool
    left_out: tuple[str, ...] = ()

    @property
    def has_only_old_images(self) -> bool:
        return self.has_images and not self.needs_images

    def sequel(self) -> "_Question | None":
        """What to ask for the rest of an answer that the vendor has paused."""
        body = self.stream.sequel
        return None if body is None else replace(self, body=body, notices=())


class Endpoint:
    """A Provider of an Api."""

    def __init__(
        self,
        name: str,
        api: Api,
        *,
        key: Callable[[], Awaitable[str | None]],
        timeouts: TimeoutsConfig,
        max_retries: int,
        find_local: Find,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`find_local` finds what a person without a key can use instead."""
        self._name = name
        self._api = api
        self._dialect = api.dialect
        self._wire = api.wire
        self._key = key
        self._timeouts = timeouts
        self._max_retries = max_retries
        self._find_local = find_local
        self._sleep = sleep
        self._prices = Prices(api.base_url)
        self._known: dict[str, ModelInfo] = {}
        self._refused: dict[str, list[str]] = {}  # model → parameters, in the order found
        self._fitting = Fitting(api.dialect.takes)
        self._listed_blind: frozenset[str] = frozenset()  # models
        self._found_blind: set[str] = set()

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
            listing = self._wire.get(session, vendor.key, self._dialect.models_path)
            reply = await _opened(listing, clocks, stack)
            if reply.status != 200:
                raise vendor.refused(reply.status, reply.headers, await read_refusal(reply))
            body = await read_body(reply, MAX_LIST_BYTES)
        try:
            models = self._dialect.parse_models(body)
        except ValueError as error:
            raise vendor.bad_response("answered with something else than its models.") from error
        self._listed_blind = frozenset(info.model for info in models if info.vision is False)
        filled_in = await self._prices.fill_in(models)
        self._known = {info.model: info for info in filled_in}
        return filled_in

    async def about(self, model: str) -> ModelInfo:
        if model not in self._known:
            [self._known[model]] = await self._prices.fill_in([ModelInfo(model, model)])
        return self._known[model]

    async def close(self) -> None:
        """Connections belong to Http."""

    async def _attempt(self, request: ModelRequest, end: float) -> AsyncGenerator[ModelEvent, None]:
        vendor = replace(await self._asked_vendor(), model=request.model)
        question: _Question | None = await self._question(request, vendor)
        while question is not None:
            question = self._without_refused(question)
            session = await self._wire.prepare()
            async with AsyncExitStack() as stack:
                path = self._dialect.path(request.model)
                post = self._wire.post(session, vendor.key, path, question.body)
                reply = await _opened(post, Clocks(vendor, self._timeouts, end), stack)
                if reply.status == 200:
                    await _check_media_type(reply, vendor)
                    for notice in question.notices:  # not before: who says something asks no more
                        yield notice
                    async with aclosing(
                        self._read(reply, question.stream, request.model)
                    ) as events:
                        async for event in events:
                            yield event
                    question = question.sequel()
                    continue
                error = await read_refusal(reply)
            question = await self._mended(question, reply, error)

    async def _question(self, request: ModelRequest, vendor: Vendor) -> _Question:
        """Raises ModelNoVision for a question about an image that the model cannot see."""
        is_listed_blind = request.model in self._listed_blind
        is_about_image = shows_image(request)
        if is_about_image and is_listed_blind:
            raise vendor.no_vision()
        can_see = is_about_image or not (is_listed_blind or request.model in self._found_blind)
        files, notices = await self._fitting.fit(request, can_see=can_see)
        encoded = self._dialect.encode(request, files)
        return _Question(
            request,
            vendor,
            encoded.body,
            self._dialect.stream(vendor, encoded.body),
            (*notices, *encoded.notices),
            needs_images=is_about_image,
            has_images=can_see,
        )

    def _without_refused(self, question: _Question) -> _Question:
        body, names = question.body, tuple(self._refused.get(question.request.model, ()))
        for name in names:
            body = self._dialect.without(body, name)
        return replace(question, body=body, left_out=names)

    async def _mended(self, question: _Question, reply: Reply, error: bytes) -> _Question:
        """The question as this refusal may let it pass. Raises ProviderError for any other."""
        request, vendor = question.request, question.vendor
        refused = self._refused.setdefault(request.model, [])
        parameter = self._refusal(reply.status, error, question.body)
        if parameter is not None and parameter not in question.left_out:
            if parameter not in refused:  # else another question of these moments was told first
                refused.append(parameter)
            log.info(
                "parameter_dropped", provider=self._name, model=request.model, parameter=parameter
            )
            told = f"{request.model} at {self._name} does not take {parameter}: asked without it."
            notices = (*question.notices, Notice("parameter_dropped", told))
            return replace(question, notices=notices)
        failure = vendor.refused(reply.status, reply.headers, error)
        if isinstance(failure, ModelNoVision) and question.has_only_old_images:
            self._found_blind.add(request.model)
            return await self._question(request, vendor)
        raise failure

    async def _read(
        self, reply: Reply, stream: AnswerStream, model: str
    ) -> AsyncGenerator[ModelEvent, None]:
        """The events of one body."""
        decoder = SseDecoder(self._name)
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
            yield await self._priced(event, model) if isinstance(event, UsageReport) else event
        await _read_rest(reply)

    async def _priced(self, report: UsageReport, model: str) -> UsageReport:
        if report.usage.cost is not None:  # the vendor's own word
            return report
        cost = await self._prices.cost(model, report.usage)
        return UsageReport(report.usage.model_copy(update={"cost": cost}))

    def _refusal(self, status: int, error: bytes, body: JsonObject) -> str | None:
        if status not in (400, 422, 500):  # the last is llama.cpp's for its templates' complaints
            return None
        return self._dialect.refused_parameter(said(error), body)

    async def _asked_vendor(self) -> Vendor:
        """The vendor of a chat: who has no key for it is told what answers on this machine."""
        try:
            return await self._vendor()
        except KeyMissing as error:
            found = await self._find_local()
            instead = (
                f" {server.place.name} answers at {server.place.base_url} and has "
                f"{server.models[0]}."
                for server in found
            )
            raise KeyMissing(f"{error}{''.join(instead)}", provider=self._name) from None

    async def _vendor(self) -> Vendor:
        key = await self._key()
        variable = self._api.key_variable
        if key is None and variable is not None:
            raise KeyMissing(
                f"There is no API key for {self._name}. Set one with `sidecar keys set "
                f"{self._name}`, or in {variable}; `--demo` works without a key.",
                provider=self._name,
            )
        if key is not None and not (key.isascii() and key.isprintable()):
            raise KeyRejected(
                f"The API key for {self._name} has characters that no key has; set it again with "
                f"`sidecar keys set {self._name}`.",
                provider=self._name,
            )
        return Vendor(self._name, self._api.base_url, key, advice=self._api.advice)


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


async def _check_media_type(reply: Reply, vendor: Vendor) -> None:
    media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in ("application/json", "text/html"):
        raise vendor.not_streamed(media_type, await read_refusal(reply))


async def _read_rest(reply: Reply) -> None:
    """Read to the body's end, so that the next step finds the connection open."""
    rest = briefly(reply, LAST_BYTES_S)
    while await rest.read():
        pass

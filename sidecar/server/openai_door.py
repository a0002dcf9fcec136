"""`/v1`: the person's models for apps that speak OpenAI's HTTP API.

A request is one run like any other, with the same limits and the same consent; only the words
differ, and they are `openai_wire`'s. Raises SidecarError for what the app should read.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from time import time

from aiohttp import hdrs, web

from sidecar.chat.log import Entry, Failed
from sidecar.chat.run import Run
from sidecar.chat.runs import Runs
from sidecar.errors import ModelNotFound, Overloaded
from sidecar.messages import ErrorInfo, JsonObject
from sidecar.protocol.chat import ChatResult
from sidecar.protocol.chunks import (
    NoticeChunk,
    ReasoningChunk,
    RetryChunk,
    TextChunk,
    ToolCallChunk,
    ToolResultChunk,
)
from sidecar.protocol.frames import Started, error_info
from sidecar.providers.base import ModelInfo
from sidecar.server.openai_request import Completion, parse
from sidecar.server.openai_wire import Answer, error_body, error_headers
from sidecar.server.status import http_status

BODY_BYTES = 4 * 1024 * 1024  # a socket's frame may have as many
KEEP_ALIVE_S = 15.0  # a person who is asked may take minutes; proxies and clients give up before
STORE_HEADER = "X-Sidecar-Store"

KnownModels = Callable[[], Mapping[str, Sequence[ModelInfo] | None]]
"""By provider, what is known without asking a vendor; None where nothing is."""


class Door:
    def __init__(self, runs: Runs, known_models: KnownModels, default_model: str) -> None:
        self._runs = runs
        self._known_models = known_models
        self._default_model = default_model

    def routes(self) -> Sequence[web.RouteDef]:
        return (
            web.get("/v1/models", self._models),
            web.get("/v1/models/{model:.+}", self._model),
            web.post("/v1/chat/completions", self._complete),
        )

    async def _models(self, request: web.Request) -> web.Response:
        listed = [_model(name) for name in self._names()]
        return web.json_response({"object": "list", "data": listed})

    async def _model(self, request: web.Request) -> web.Response:
        """A model of a provider that was not asked yet is not denied."""
        name = request.match_info["model"]
        provider, slash, model = name.partition("/")
        known = self._known_models()
        is_open = bool(slash and model) and provider in known and known[provider] is None
        if not is_open and name not in self._names():
            raise ModelNotFound(f"There is no model {name!r}; GET /v1/models lists those known.")
        return web.json_response(_model(name))

    def _names(self) -> Sequence[str]:
        """The default model first, which an app takes that lets nobody choose."""
        listed = (
            f"{provider}/{model.model}"
            for provider, models in self._known_models().items()
            for model in models or ()
        )
        return tuple(dict.fromkeys((self._default_model, *listed)))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        store = request.headers.get(STORE_HEADER, "").lower() == "true"
        asked = parse(await _body(request), store=store)
        run = await self._runs.answer(asked.history, asked.chat, asked.tools)
        answer = Answer(
            f"chatcmpl-{run.run_id}", run.model, int(time()), tells_usage=asked.wants_usage
        )
        async with aclosing(_entries(run)) as entries:
            if asked.is_streamed:
                return await _streamed(request, run, asked, answer, entries)
            return await _whole(run, answer, entries)


async def _body(request: web.Request) -> bytes:
    """Raises HTTPRequestEntityTooLarge as soon as that is known."""
    data = bytearray()
    size = request.content_length or 0
    while size <= BODY_BYTES:
        piece = await request.content.readany()
        if not piece:
            return bytes(data)
        data += piece
        size = max(size, len(data))
    raise web.HTTPRequestEntityTooLarge(
        max_size=BODY_BYTES, actual_size=size, reason=f"A body has {BODY_BYTES} bytes at most"
    )


async def _entries(run: Run) -> AsyncGenerator[Entry | None, None]:
    """The run's log up to its terminal entry, and None when nothing has come for a while.

    Closing it cancels a run that has not ended. Raises Overloaded for who reads too slowly.
    """
    news = asyncio.Event()
    seq = 0
    run.follow(news.set)
    try:
        while True:
            while seq < run.log.next_seq:
                if seq < run.log.first_seq:
                    raise Overloaded("The answer was read too slowly, so it was stopped.")
                entry = run.log.entry(seq)
                seq += 1
                yield entry
                if isinstance(entry, ChatResult | Failed):
                    return
            news.clear()
            if not await _came(news):
                yield None
    finally:
        run.unfollow(news.set)


async def _came(news: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(KEEP_ALIVE_S):
            await news.wait()
    except TimeoutError:
        return False
    return True


async def _whole(
    run: Run, answer: Answer, entries: AsyncGenerator[Entry | None, None]
) -> web.Response:
    last: Entry | None = None
    async for entry in entries:
        last = entry
    failure = _failure(last)
    if failure is not None:
        return _refusal(run, failure)
    assert isinstance(last, ChatResult) and run.answer is not None  # it did not fail
    return web.json_response(answer.whole(run.answer.parts, last.finish_reason, last.usage))


async def _streamed(
    request: web.Request,
    run: Run,
    asked: Completion,
    answer: Answer,
    entries: AsyncGenerator[Entry | None, None],
) -> web.StreamResponse:
    """Server-sent events; until the model has begun, a failure has its own HTTP status."""
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
    try:
        async for entry in entries:
            failure = _failure(entry)
            if not response.prepared:
                if entry is None or isinstance(entry, Started | NoticeChunk | RetryChunk):
                    continue
                if failure is not None:
                    return _refusal(run, failure)
                await response.prepare(request)
                await response.write(_event(answer.opening()))
            if entry is None:
                await response.write(b": the answer goes on\n\n")
            elif failure is not None:
                await response.write(_event(_failure_body(failure)))
            elif events := b"".join(map(_event, _chunks(entry, run, asked, answer))):
                await response.write(events)
            if isinstance(entry, ChatResult) and failure is None:
                await response.write(b"data: [DONE]\n\n")
    except Overloaded as error:
        failure = Failed(str(error), error_info(error))
        await response.write(_event(_failure_body(failure)))
    await response.write_eof()
    return response


def _chunks(entry: Entry, run: Run, asked: Completion, answer: Answer) -> Sequence[JsonObject]:
    match entry:
        case TextChunk(data=text):
            return (answer.text(text),)
        case ReasoningChunk(data=text) if text:
            return (answer.reasoning(text),)
        case ToolCallChunk(metadata=call) if asked.tools:
            assert run.turn is not None  # it has called a tool
            open_calls = {part.tool_call_id: part for part in run.turn.draft.unanswered()}
            return (answer.call(open_calls[call.tool_call_id]),)  # a chunk may have half of it
        case ToolResultChunk():
            answer.tool_ran()
        case ChatResult(finish_reason=reason, usage=usage):
            return answer.closing(reason, usage)
    return ()


def _failure(entry: Entry | None) -> Failed | None:
    """A cancel is one here: OpenAI has no word for an answer that somebody stopped."""
    match entry:
        case Failed():
            return entry
        case ChatResult(finish_reason="cancelled"):
            info = ErrorInfo(code="cancelled", retryable=False, origin="client")
            return Failed("The answer was cancelled.", info)
        case _:
            return None


def _refusal(run: Run, failure: Failed) -> web.Response:
    parts = run.answer.parts if run.answer is not None else ()
    has_called = any(part.type == "tool_result" for part in parts)
    headers = error_headers(failure.info, is_repeatable=not has_called)
    status = http_status(failure.info)
    return web.json_response(_failure_body(failure), status=status, headers=headers)


def _failure_body(failure: Failed) -> JsonObject:
    return error_body(failure.error, failure.info, http_status(failure.info))


def _event(value: JsonObject) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _model(name: str) -> JsonObject:
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}

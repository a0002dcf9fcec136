"""A server that speaks OpenAI's format on loopback, and misbehaves as told.

    async with FakeOpenAI() as upstream:
        upstream.will(status(429, "slow down", {"retry-after": "0"}), text("Hello"))
        ...                          # point base_url at upstream.url
        assert upstream.requests[0].body["model"] == "gpt-4o-mini"
        await upstream.hung_up.wait()    # set when a client leaves an answer early

Answers are used in the order given, the last one for ever. Each is a list of steps: bytes to
write, `HANG` (until the client leaves), `CUT` (drop the connection), or a pause. Without any,
every request gets the text "Hello."; `GET /models` lists `upstream.models`.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self

from aiohttp import web


class Fault(Enum):
    HANG = "hang"
    CUT = "cut"


HANG, CUT = Fault.HANG, Fault.CUT
Step = bytes | Fault | asyncio.Event  # an event is waited for


@dataclass(frozen=True)
class Answer:
    steps: Sequence[Step]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    query: str = ""


class FakeOpenAI:
    """Serves any POST as a question and any GET as a list of models, while it is entered."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.models: list[dict[str, Any]] = [{"id": "gpt-4o-mini", "object": "model"}]
        self.arrived = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.connections: set[object] = set()  # the clients' addresses: one for each connection
        self._answers: list[Answer] = [text("Hello.")]
        self._models_answer: Answer | None = None
        self._choose: Callable[[dict[str, Any]], Answer] | None = None

    @property
    def url(self) -> str:
        """The base_url to configure; it ends in /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was asked, in order."""
        return [request.body for request in self.requests if request.method == "POST"]

    def will(self, *answers: Answer) -> None:
        self._answers = list(answers)

    def will_choose(self, choose: Callable[[dict[str, Any]], Answer]) -> None:
        """By what is asked, for questions that come at once."""
        self._choose = choose

    def will_list(self, answer: Answer) -> None:
        self._models_answer = answer

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)  # questions with images
        app.router.add_post("/{path:.*}", self._chat)
        app.router.add_get("/{path:.*}", self._list)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        await self._record(request, body)
        if self._choose is not None:
            return await self._give(request, self._choose(body))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return await self._give(request, answer)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        await self._record(request, {})
        listing = json.dumps({"object": "list", "data": self.models}).encode()
        plain = Answer([listing], content_type="application/json")
        return await self._give(request, self._models_answer or plain)

    async def _record(self, request: web.Request, body: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        query = request.query_string
        self.requests.append(Request(request.method, request.path, headers, body, query))
        self.arrived.set()

    async def _give(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        headers = {**answer.headers, "content-type": answer.content_type}
        response = web.StreamResponse(status=answer.status, headers=headers)
        try:
            for step in answer.steps:
                if step is HANG:
                    await asyncio.Event().wait()
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                elif step is CUT:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                elif isinstance(step, bytes):
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(step)
            if not response.prepared:
                await response.prepare(request)
            await response.write_eof()
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise
        return response


def stream(body: bytes, *more: Step, cut_at: Iterable[int] = ()) -> Answer:
    """An event stream, written in pieces that end at the offsets `cut_at`."""
    offsets = [0, *sorted(cut_at), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(offsets) if a < b]
    return Answer([*pieces, *more])


def random_cuts(body: bytes, seed: int, pieces: int = 20) -> list[int]:
    return sorted(random.Random(seed).choices(range(len(body) + 1), k=pieces))


def status(
    http_status: int, message: str, headers: Mapping[str, str] | None = None, **error: Any
) -> Answer:
    """An error in OpenAI's form; `error` are more fields of it, such as code="…"."""
    body = json.dumps({"error": {"message": message, **error}}).encode()
    return Answer([body], http_status, headers or {}, "application/json")


def text(*deltas: str, **usage: int) -> Answer:
    """A complete answer that says these pieces of text."""
    return Answer([*(chunk(content=delta) for delta in deltas), ending("stop", **usage)])


def unfinished_text(*deltas: str, then: Step) -> Answer:
    """An answer that says this and then hangs, is cut, or waits for an event."""
    return Answer([*(chunk(content=delta) for delta in deltas), then])


def tool_calls(*calls: tuple[str, dict[str, Any]], **usage: int) -> Answer:
    """A complete answer that calls these tools, in parallel when they are many."""
    steps: list[Step] = []
    for index, (name, arguments) in enumerate(calls):
        call_id = f"call_{random.getrandbits(64):016x}"
        head = {"index": index, "id": call_id, "type": "function"}
        steps.append(chunk(tool_calls=[{**head, "function": {"name": name, "arguments": ""}}]))
        raw = json.dumps(arguments)
        for start in range(0, len(raw), 8):
            piece = {"index": index, "function": {"arguments": raw[start : start + 8]}}
            steps.append(chunk(tool_calls=[piece]))
    return Answer([*steps, ending("tool_calls", **usage)])


def chunk(finish_reason: str | None = None, **delta: Any) -> bytes:
    """One event of a stream, with this delta."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]})


def ending(finish_reason: str, **usage: int) -> bytes:
    """The last events: finish reason, usage (`prompt_tokens=…`, …) and [DONE]."""
    counts = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, **usage}
    last = event({"id": "chatcmpl-1", "choices": [], "usage": counts})
    return chunk(finish_reason) + last + b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"

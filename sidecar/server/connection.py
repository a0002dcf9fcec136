"""One socket: a reader that takes requests, and a writer that alone sends.

The writer has a cursor into every run that this socket follows and takes whatever is new when it
can send, so that a stuck window slows nobody. What a request means is the handlers' business.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

import structlog
from aiohttp import WSMsgType, web

from sidecar.chat.questions import Questions
from sidecar.chat.run import Run
from sidecar.errors import (
    BadRequest,
    DuplicateRequest,
    HelloRequired,
    Overloaded,
    SidecarError,
)
from sidecar.protocol.base import (
    ACTIONS_PER_S,
    CLOSE_BINARY,
    CLOSE_SHUTDOWN,
    CLOSE_SLOW_CONSUMER,
    FRAME_BYTES_OUT,
)
from sidecar.protocol.frames import AnyResult, CompleteFrame, ErrorFrame, Frame, encode, error_info
from sidecar.protocol.requests import BASIC_REQUESTS, AnyRequest, RequestProblem, parse_request
from sidecar.server.events import Events
from sidecar.server.follow import BEHIND_BYTES, BEHIND_FRAMES, Follow, TooFarBehind

BEHIND_S = 10.0  # a laptop that wakes up needs a few seconds
CHECK_S = 1.0  # how often a send that does not end looks whether it is the slow consumer's
SHUTDOWN_EVENT = "server.shutdown"  # comes to everybody
FAREWELL_S = 30.0
SENTENCE_CHARS = 4000
CLOSE_S = 1.0  # for a client to answer a close; one that does not is gone

log = structlog.get_logger()


Answer: TypeAlias = "AnyResult | Follow"
"""What a handler returns: a result, or a run whose frames are the answer."""


class Handler(Protocol):
    """Serves one request. Raises SidecarError for what the client should read."""

    async def __call__(self, request: AnyRequest, connection: "Connection") -> Answer: ...


class Connection:
    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.WriteTransport,
        handler: Handler,
        events: Events,
        questions: Mapping[str, Questions[Any, Any]],
    ) -> None:
        """`questions` are what a person may be asked, by the topic that tells of them."""
        self.connection_id = uuid4().hex
        self.is_extended = False
        self.conversation_id: str | None = None  # of a basic client, which has one
        self._socket = socket
        self._transport = transport
        self._handler = handler
        self._events = events
        self._questions = questions
        self._topics: frozenset[str] = frozenset()
        self._open: dict[str, Follow | None] = {}  # requests that are being answered
        self._tasks: set[asyncio.Task[None]] = set()
        self._outbox: deque[str] = deque()
        self._outbox_bytes = 0
        self._news = asyncio.Event()
        self._idle = asyncio.Event()  # everything there is has been sent
        self._working = asyncio.Event()
        self._has_room = asyncio.Event()  # in the outbox
        self._has_room.set()
        self._budget = _Budget()

    async def run(self) -> None:
        """Serve until either side closes. The runs it followed are let go of."""
        self._events.subscribe(self._on_event)
        try:
            async with asyncio.TaskGroup() as group:
                owned = [group.create_task(self._write()), group.create_task(self._watch())]
                await self._read(group)
                for task in (*owned, *self._tasks):
                    task.cancel()
        except* ConnectionError:
            log.info("connection_lost")
        except* TooFarBehind:
            log.info("connection_too_slow")
            await self.close(CLOSE_SLOW_CONSUMER, "slow consumer")
            # it may wake up and read why; until then little is kept for it, and not for long
            asyncio.get_running_loop().call_later(FAREWELL_S, self._transport.abort)
        finally:
            self._events.unsubscribe(self._on_event)
            for asked in self._questions.values():
                asked.leave(self.connection_id)
            for follow in self._follows():
                follow.run.unfollow(self._wake)

    def subscribe(self, topics: Sequence[str], answers: Sequence[str]) -> None:
        """From now on extended: sees every chunk, and the events of these topics.

        Who can answer questions is told of them, whatever the topics say. Raises BadRequest for
        questions that nobody asks.
        """
        unknown = [word for word in answers if word not in self._questions]
        if unknown:
            known = ", ".join(self._questions)
            raise BadRequest(
                f"answers: there is no {unknown[0]!r:.80} to answer; there are: {known}."
            )
        self.is_extended = True
        self._topics = frozenset((*topics, *answers))
        for topic, asked in self._questions.items():
            if topic in answers:
                asked.join(self.connection_id)
            else:
                asked.leave(self.connection_id)

    def followed(self, request_id: str) -> Run | None:
        """The run that answers this open request."""
        follow = self._open.get(request_id)
        return follow.run if follow is not None else None

    async def finish(self) -> None:
        """Send what there is, then close because of the shutdown."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._idle.wait()
        await self.close(CLOSE_SHUTDOWN, "shutdown")

    async def close(self, code: int, reason: str) -> None:
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close(code=code, message=reason.encode())

    async def _read(self, group: asyncio.TaskGroup) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                self._receive(message.data, group)
                await self._has_room.wait()  # who reads nothing is read no further
            elif message.type is WSMsgType.BINARY:
                await self.close(CLOSE_BINARY, "text frames only")

    def _receive(self, text: str, group: asyncio.TaskGroup) -> None:
        is_affordable = self._budget.spend()
        try:
            request = parse_request(text)
            if not is_affordable:
                too_many = Overloaded(f"More than {ACTIONS_PER_S} actions a second; slow down.")
                raise RequestProblem(request.request_id, too_many)
            if request.request_id in self._open:
                in_use = DuplicateRequest("This request_id is still being answered; use a new one.")
                raise RequestProblem(request.request_id, in_use)
        except RequestProblem as problem:
            self._send(_failure(problem.request_id, problem.error))
            return
        self._open[request.request_id] = None
        self._working.set()
        task = group.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: AnyRequest) -> None:
        request_id = request.request_id
        frame: Frame
        with structlog.contextvars.bound_contextvars(action=request.action):
            try:
                if not (self.is_extended or isinstance(request, BASIC_REQUESTS)):
                    raise HelloRequired(
                        f"Say hello first: {request.action} is for extended clients."
                    )
                answer = await self._handler(request, self)
            except SidecarError as error:
                log.info("request_failed", code=error.code)
                frame = _failure(request_id, error)
            except Exception:  # the owner of the request: a bug must not end the socket
                log.exception("request_crashed")
                bug = SidecarError("Something went wrong inside the sidecar; its log has more.")
                frame = _failure(request_id, bug)
            else:
                if isinstance(answer, Follow):
                    self._follow(answer)
                    return
                frame = CompleteFrame(request_id=request_id, result=answer)
        del self._open[request_id]
        self._send(frame)

    def _follow(self, follow: Follow) -> None:
        self._open[follow.request_id] = follow
        follow.run.follow(self._wake)
        self._wake()

    def _follows(self) -> list[Follow]:
        return [follow for follow in self._open.values() if follow is not None]

    def _on_event(self, event_type: str, text: str) -> None:
        topic = event_type.partition(".")[0]
        wanted = "*" in self._topics or topic in self._topics or event_type == SHUTDOWN_EVENT
        if self.is_extended and wanted:
            self._post(text)

    def _send(self, frame: Frame) -> None:
        text = encode(frame)
        if isinstance(frame, CompleteFrame) and len(text.encode()) > FRAME_BYTES_OUT:
            problem = Overloaded("The answer is larger than a frame may be; ask for less of it.")
            text = encode(_failure(frame.request_id, problem))
        self._post(text)

    def _post(self, text: str) -> None:
        self._outbox.append(text)
        self._outbox_bytes += len(text)
        if self._outbox_bytes > BEHIND_BYTES:
            self._has_room.clear()
        self._working.set()
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._news.set()

    async def _write(self) -> None:
        """Alone sends: answers and events first, then one frame of each run in turn."""
        while True:
            if not self._news.is_set():
                self._idle.set()
            await self._news.wait()
            self._news.clear()
            has_more = True
            while has_more:
                while self._outbox:
                    text = self._outbox.popleft()
                    self._outbox_bytes -= len(text)
                    if self._outbox_bytes <= BEHIND_BYTES:
                        self._has_room.set()
                    await self._socket.send_str(text)
                has_more = False
                for follow in self._follows():
                    frame = follow.take(self.is_extended)
                    if frame is None:
                        continue
                    has_more = True
                    if follow.has_ended:
                        follow.run.unfollow(self._wake)
                        del self._open[follow.request_id]
                    await self._socket.send_str(frame)

    async def _watch(self) -> None:
        """Notice a slow consumer, at no cost per frame."""
        behind_s = 0.0
        while True:
            await self._working.wait()
            await asyncio.sleep(CHECK_S)
            if self._is_behind():
                behind_s += CHECK_S
                if behind_s >= BEHIND_S:
                    raise TooFarBehind
            else:
                behind_s = 0.0
                if not self._open and not self._outbox:
                    self._working.clear()

    def _is_behind(self) -> bool:
        return (
            len(self._outbox) > BEHIND_FRAMES
            or self._outbox_bytes > BEHIND_BYTES
            or any(follow.is_behind for follow in self._follows())
        )


class _Budget:
    """Actions that a client may still send: a bucket that refills at ACTIONS_PER_S."""

    def __init__(self) -> None:
        self._left = float(ACTIONS_PER_S)
        self._at = monotonic()

    def spend(self) -> bool:
        now = monotonic()
        self._left = min(float(ACTIONS_PER_S), self._left + (now - self._at) * ACTIONS_PER_S)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _failure(request_id: str | None, error: SidecarError) -> ErrorFrame:
    sentence = str(error)[:SENTENCE_CHARS]  # it may repeat what came
    return ErrorFrame(request_id=request_id, error=sentence, error_info=error_info(error))

"""A typed client of the sidecar's WebSocket, for the command line and for the tests.

One task reads the socket; whoever waits for an answer, a run or an event is woken by it, and by
its end: a lost connection is an error at every waiting line and never a hang. It understands a
later server: unknown fields, chunks and events are ignored, and an unknown state or finish reason
reads as the one that the protocol names for it.

Knows nothing about what the sidecar does; starts none and looks for none.
"""

import asyncio
import contextlib
import copy
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from io import BytesIO
from typing import Any, Protocol, TypeVar, cast, get_args

import aiohttp
from pydantic import BaseModel, JsonValue, ValidationError
from yarl import URL

from sidecar.door_key import ShownKey
from sidecar.messages import ErrorInfo, JsonObject
from sidecar.protocol.base import (
    CLOSE_SHUTDOWN,
    PROTOCOL_VERSION,
    EventModel,
    Inbound,
    Request,
    Result,
)
from sidecar.protocol.chat import (
    AttachmentsCreateResult,
    Cancel,
    CancelPayload,
    Chat,
    ChatPayload,
    ChatResult,
    Regenerate,
    RegeneratePayload,
    Resume,
    ResumePayload,
)
from sidecar.protocol.chunks import Chunk, SnapshotChunk, TextChunk
from sidecar.protocol.events import Event
from sidecar.protocol.frames import (
    ChunkFrame,
    ErrorFrame,
    EventFrame,
    ProcessingFrame,
    StartedMetadata,
)
from sidecar.protocol.program import Hello, HelloPayload, HelloResult

CONNECT_S = 10.0  # a loopback answers in milliseconds; a machine that just woke may need seconds
CLOSE_S = 2.0
DOOR_KEY_S = 150.0  # somebody may have to type the keyring's password, to read and to write
HEARTBEAT_S = 30.0  # finds a server that is stopped but not gone
EVENTS_KEPT = 1000  # of those that nobody has read; the oldest go first

R = TypeVar("R", bound=Result)
E = TypeVar("E", bound=EventModel)
M = TypeVar("M", bound=BaseModel)
R_co = TypeVar("R_co", bound=Result, covariant=True)


class ClientError(Exception):
    """`str(error)` is a sentence for a person."""


class CannotConnect(ClientError):
    """Nobody answers, or the connection was refused; then `status` is the HTTP status."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ConnectionLost(ClientError):
    """The socket is closed; `close_code` is None when it broke without a word."""

    def __init__(self, message: str, close_code: int | None = None) -> None:
        super().__init__(message)
        self.close_code = close_code


class NotUnderstood(ClientError):
    """A frame that does not follow the protocol."""


class ServerError(ClientError):
    """The sidecar answered with an error frame."""

    def __init__(self, message: str, error_info: ErrorInfo) -> None:
        super().__init__(message)
        self.error_info = error_info

    @property
    def code(self) -> str:
        return self.error_info.code


class Refusal(BaseModel):
    """What an HTTP request gets that is not served."""

    error: str
    error_info: ErrorInfo


class _Asks(Protocol[R_co]):
    """A request, seen as what it is answered with."""

    @property
    def result(self) -> type[R_co]: ...


@contextlib.asynccontextmanager
async def connect(
    url: str,
    token: str,
    *,
    events: Iterable[str] = (),
    answers: Iterable[str] = (),
    basic: bool = False,
    timeout_s: float = CONNECT_S,
    session: aiohttp.ClientSession | None = None,
    on_frame: Callable[[JsonObject], None] | None = None,
) -> "AsyncIterator[Client]":
    """A client that has said hello, unless it is to be `basic`; leaving closes the socket.

    `timeout_s` bounds connecting and hello each; `on_frame` is shown every frame as it came.
    Raises CannotConnect, and ServerError when the sidecar does not speak our protocol.
    """
    async with contextlib.AsyncExitStack() as stack:
        if session is None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
        socket = await _open(session, url, token, timeout_s)
        client = Client(socket, on_frame, _Files(session, url, token))
        reader = asyncio.create_task(client._read(), name="client reader")
        try:
            if not basic:
                payload = HelloPayload(
                    protocol=PROTOCOL_VERSION, events=tuple(events), answers=tuple(answers)
                )
                await client._say_hello(payload, timeout_s)
            yield client
        finally:
            client._end(ConnectionLost("The connection to the sidecar is closed."))
            await socket.close()  # and with it the reader ends
            await reader


async def ask_for_door_key(address: str, token: str, *, renew: bool) -> ShownKey:
    """The door key of the sidecar at this HTTP address. Raises ServerError and CannotConnect."""
    limits = aiohttp.ClientTimeout(total=DOOR_KEY_S, connect=CONNECT_S)
    bearer = {"Authorization": f"Bearer {token}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, headers=bearer) as session,
            session.post(f"{address}/api/door-key", json={"renew": renew}) as response,
        ):
            answer = await response.json()
    except TimeoutError as error:
        raise CannotConnect(f"{address} did not answer in time.") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CannotConnect(f"Nothing that is understood answers at {address}: {error}.") from error
    match answer:
        case {"key": str(key), "kept": bool(is_kept)}:
            return ShownKey(key, is_kept)
        case {"error": str(sentence), "error_info": info}:
            raise ServerError(sentence, _read_as(ErrorInfo, info))
    raise NotUnderstood("The sidecar's answer has no key: it may be of another version.")


async def _open(
    session: aiohttp.ClientSession, url: str, token: str, timeout_s: float
) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(timeout_s):
            return await session.ws_connect(
                url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                heartbeat=HEARTBEAT_S,
            )
    except aiohttp.WSServerHandshakeError as error:
        raise CannotConnect(
            f"The sidecar at {url} refused the connection: HTTP {error.status}.", error.status
        ) from error
    except TimeoutError as error:
        raise CannotConnect(f"{url} did not answer within {timeout_s:g} s.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise CannotConnect(f"Nothing answers at {url}: {error}.") from error


class _Files:
    """Attachments, which go over HTTP, since they do not fit a frame."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self._address = URL(url.replace("ws", "http", 1)).with_path("/api/attachments")
        self._headers = {"Authorization": f"Bearer {token}"}

    async def send(self, data: bytes, query: dict[str, str]) -> AttachmentsCreateResult:
        sending = self._session.post(
            self._address, params=query, data=BytesIO(data), headers=self._headers
        )
        return _read_as(AttachmentsCreateResult, json.loads(await self._body(sending)))

    async def fetch(self, attachment_id: str) -> bytes:
        return await self._body(
            self._session.get(self._address / attachment_id, headers=self._headers)
        )

    async def _body(
        self, request: contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]
    ) -> bytes:
        try:
            async with request as response:
                body = await response.read()
                refusal = await response.json() if response.status != 200 else None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CannotConnect(f"{self._address} cannot be reached: {error}.") from error
        if refusal is not None:
            refused = _read_as(Refusal, refusal)
            raise ServerError(refused.error, refused.error_info)
        return body


class Run:
    """One turn as it is shown, followed by the request that started or resumed it.

    Iterating yields the chunks from the first on, however often, and ends with the run; a run
    that failed raises its ServerError there.
    """

    def __init__(self, request_id: str, run_id: str | None = None) -> None:
        self.request_id = request_id
        self.run_id = run_id
        self.seq = -1
        self.frames: list[ProcessingFrame | ChunkFrame] = []
        self._text: list[str] = []
        self._outcome: ChatResult | ClientError | None = None
        self._news = asyncio.Event()

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    async def started(self) -> StartedMetadata:
        """Wait until the chat is accepted."""
        while True:
            for frame in self.frames:
                if isinstance(frame, ProcessingFrame):
                    return frame.chunk.metadata
            await self._wait_for_news()

    async def finished(self) -> ChatResult:
        """Wait for the end. Raises ServerError, or ConnectionLost when it cannot be seen."""
        while not isinstance(self._outcome, ChatResult):
            await self._wait_for_news()
        return self._outcome

    async def text_so_far(self, expected: str) -> None:
        """Wait until the answer begins with `expected`."""
        while not self.text.startswith(expected):
            await self._wait_for_news()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for index in itertools.count():
            while index == len(self.frames):
                if isinstance(self._outcome, ChatResult):
                    return
                await self._wait_for_news()
            frame = self.frames[index]
            if isinstance(frame, ChunkFrame):
                yield frame.chunk

    async def _wait_for_news(self) -> None:
        if isinstance(self._outcome, ClientError):
            raise self._outcome
        if self._outcome is not None:
            raise NotUnderstood("The run ended without what was waited for.")
        await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _show(self, frame: ProcessingFrame | ChunkFrame) -> None:
        self.frames.append(frame)
        self.seq = frame.seq
        match frame.chunk:
            case TextChunk(data=text):
                self._text.append(text)
            case SnapshotChunk(metadata=snapshot):
                self._text = [snapshot.message.text]
            case _:
                pass
        if isinstance(frame, ProcessingFrame):
            self.run_id = frame.chunk.metadata.run_id
        self._wake()

    def _answer(self, result: JsonValue, seq: int | None) -> None:
        self.seq = self.seq if seq is None else seq
        try:
            self._outcome = _read_as(ChatResult, result)
        except NotUnderstood as error:
            self._outcome = error
        self._wake()

    def _fail(self, error: ClientError) -> None:
        self._outcome = error
        self._wake()


class _Answer:
    """The one frame that ends a request which does not stream."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._result: JsonValue = None
        self._error: ClientError | None = None
        self._came = asyncio.Event()

    async def result(self) -> JsonValue:
        await self._came.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def _answer(self, result: JsonValue, seq: int | None) -> None:
        self._result = result
        self._came.set()

    def _fail(self, error: ClientError) -> None:
        self._error = error
        self._came.set()


class Client:
    """An open connection; made by `connect`."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        on_frame: Callable[[JsonObject], None] | None,
        files: _Files,
    ) -> None:
        self.hello: HelloResult | None = None  # None in basic mode
        self._socket = socket
        self._on_frame = on_frame
        self._files = files
        self._numbers = itertools.count(1)
        self._waiting: dict[str, Run | _Answer] = {}
        self._events: deque[EventModel] = deque(maxlen=EVENTS_KEPT)
        self._event_came = asyncio.Event()
        self._ended: ClientError | None = None

    async def request(self, kind: type[_Asks[R]], payload: Inbound | None = None) -> R:
        """Ask and wait for the result. Raises ServerError, ConnectionLost, NotUnderstood."""
        request = cast("type[Request]", kind)
        answer = _Answer(self._next_id())
        try:
            await self._send(request, payload, answer)
            result = await answer.result()
        finally:
            self._waiting.pop(answer.request_id, None)
        return cast("R", _read_as(request.result, result))

    async def chat(self, text: str | None = None, **fields: JsonValue) -> Run:
        """Send a message with the fields of ChatPayload; the run may still be refused."""
        given = fields if text is None else {"text": text, **fields}
        run = Run(self._next_id())
        await self._send(Chat, ChatPayload.model_validate(given), run)
        return run

    async def attach(self, data: bytes, name: str) -> str:
        """Send a file for a chat's parts, over HTTP, since one does not fit a frame.

        Returns its attachment_id. Raises ServerError and CannotConnect.
        """
        return (await self._files.send(data, {"name": name})).attachment_id

    async def send_import(self, data: bytes) -> str:
        """Send a file for `conversations.import`. Returns and raises as `attach`."""
        return (await self._files.send(data, {"for": "import"})).attachment_id

    async def fetch(self, attachment_id: str) -> bytes:
        """The bytes of an attachment. Raises ServerError and CannotConnect."""
        return await self._files.fetch(attachment_id)

    async def regenerate(self, message_id: str, **fields: JsonValue) -> Run:
        """Answer once more, with the fields of RegeneratePayload."""
        run = Run(self._next_id())
        asked = RegeneratePayload.model_validate({"message_id": message_id, **fields})
        await self._send(Regenerate, asked, run)
        return run

    async def resume(self, run_id: str, after_seq: int = -1) -> Run:
        """Follow a run that this or another connection started, from after `after_seq`."""
        run = Run(self._next_id(), run_id)
        await self._send(Resume, ResumePayload(run_id=run_id, after_seq=after_seq), run)
        return run

    async def cancel(self, run: Run) -> bool:
        """Stop a run, which then finishes as cancelled. False: it had ended."""
        if run.run_id is None:
            payload = CancelPayload(target=run.request_id)
        else:
            payload = CancelPayload(run_id=run.run_id)
        return (await self.request(Cancel, payload)).cancelled

    async def events(self) -> AsyncIterator[Event]:
        """Events in order, each given to one reader only, until ConnectionLost."""
        while True:
            yield cast("Event", await self.event(EventModel))

    async def event(self, kind: type[E]) -> E:
        """The oldest unread event of this kind, or the next one. Raises ConnectionLost."""
        while True:
            for event in self._events:
                if isinstance(event, kind):
                    self._events.remove(event)
                    return event
            if self._ended is not None:
                raise self._ended
            await self._event_came.wait()

    async def _say_hello(self, payload: HelloPayload, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                self.hello = await self.request(Hello, payload)
        except TimeoutError as error:
            raise CannotConnect(f"No answer to hello within {timeout_s:g} s.") from error

    def _next_id(self) -> str:
        return str(next(self._numbers))

    async def _send(
        self,
        kind: type[Request],
        payload: Inbound | None,
        waiter: Run | _Answer,
    ) -> None:
        if self._ended is not None:
            raise self._ended
        (action,) = get_args(kind.model_fields["action"].annotation)
        given = {} if payload is None else {"payload": payload}
        frame = kind.model_validate({"action": action, "request_id": waiter.request_id, **given})
        self._waiting[waiter.request_id] = waiter
        try:
            await self._socket.send_str(frame.model_dump_json(exclude_unset=True))
        except (aiohttp.ClientError, ConnectionError) as error:
            self._waiting.pop(waiter.request_id, None)
            raise ConnectionLost("The connection to the sidecar is closed.") from error

    async def _read(self) -> None:
        ended: ClientError = ConnectionLost("The connection to the sidecar broke.")
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._take(message.data)
            ended = _loss(self._socket.close_code)
        except NotUnderstood as error:
            ended = error
            await self._socket.close()
        finally:
            self._end(ended)

    def _end(self, error: ClientError) -> None:
        if self._ended is not None:
            return
        self._ended = error
        for waiter in self._waiting.values():
            waiter._fail(error)
        self._waiting.clear()
        self._event_came.set()

    def _take(self, text: str) -> None:
        frame = _parse(text)
        if self._on_frame is not None:
            self._on_frame(frame)
        request_id = frame.get("request_id")
        waiter = self._waiting.get(request_id) if isinstance(request_id, str) else None
        match frame.get("status"), waiter:
            case "event", _:
                self._take_event(frame)
            case "processing", Run():
                waiter._show(_read_as(ProcessingFrame, frame))
            case "chunk", Run():
                with contextlib.suppress(_UnknownWord):
                    waiter._show(_read_as(ChunkFrame, frame))
            case "complete", Run() | _Answer():
                seq = frame.get("seq")
                waiter._answer(frame.get("result"), seq if isinstance(seq, int) else None)
                del self._waiting[waiter.request_id]
            case "error", Run() | _Answer():
                failure = _read_as(ErrorFrame, frame)
                waiter._fail(ServerError(failure.error, failure.error_info))
                del self._waiting[waiter.request_id]

    def _take_event(self, frame: JsonObject) -> None:
        with contextlib.suppress(_UnknownWord):
            self._events.append(_read_as(EventFrame, frame).event)
            self._event_came.set()
            self._event_came = asyncio.Event()


def _loss(close_code: int | None) -> ConnectionLost:
    if close_code is None or close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
        return ConnectionLost("The connection to the sidecar broke.")
    if close_code == aiohttp.WSCloseCode.OK:
        return ConnectionLost("The connection to the sidecar is closed.", close_code)
    if close_code == CLOSE_SHUTDOWN:
        return ConnectionLost("The sidecar shut down.", close_code)
    return ConnectionLost(f"The sidecar closed the connection with code {close_code}.", close_code)


# ---- reading what a later server may say ----------------------------------------------------

_READS_AS = (  # the known word for an unknown one; a decision has none, it is never guessed
    "degraded",  # a server's state
    "stop",  # a finish reason
    "unknown",  # a tool call's status
    "server",  # an error's origin
    "running",  # a run's state
    "complete",  # a message's status
)


_LEFT_OUT = object()


class _UnknownWord(NotUnderstood):
    """A kind of thing that this client does not know, and that nothing stands in for."""


def _parse(text: str) -> JsonObject:
    try:
        frame = json.loads(text)
    except ValueError as error:
        raise NotUnderstood("The sidecar sent a frame that is not JSON.") from error
    if not isinstance(frame, dict):
        raise NotUnderstood("The sidecar sent a frame that is no object.")
    return frame


def _read_as(model: type[M], data: JsonValue) -> M:
    """`data` as `model`: without unknown fields and list items, unknown words replaced."""
    try:
        return model.model_validate(data, extra="ignore")
    except ValidationError as error:
        known = _in_known_words(data, error)
    try:
        return model.model_validate(known, extra="ignore")
    except ValidationError as error:
        raise NotUnderstood(f"The sidecar sent a {model.__name__} that is none: {error}") from error


def _in_known_words(data: JsonValue, error: ValidationError) -> JsonValue:
    """Raises NotUnderstood if anything but a word is unknown."""
    known: Any = copy.deepcopy(data)
    for problem in error.errors(include_url=False, include_input=False):
        path = _path(known, problem["loc"])
        lists = [(node, step) for node, step in path if isinstance(node, list)]
        if problem["type"] not in ("literal_error", "union_tag_invalid"):
            raise NotUnderstood(f"The sidecar sent what the protocol does not allow: {error}")
        if word := _stand_in(problem.get("ctx", {})):
            node, step = path[-1]
            node[step] = word
        elif lists:
            node, step = lists[-1]
            node[step] = _LEFT_OUT
        else:
            raise _UnknownWord(f"The sidecar sent what this client does not know: {error}")
    return _without_left_out(known)


def _path(node: Any, location: tuple[int | str, ...]) -> list[tuple[Any, Any]]:
    """The containers on the way to `location`, which also names the tags of unions."""
    path = []
    for step in location:
        is_in_data = step in node if isinstance(node, dict) else isinstance(node, list)
        if is_in_data:
            path.append((node, step))
            node = node[step]
    return path


def _stand_in(facts: dict[str, Any]) -> str | None:
    expected = facts.get("expected", "")  # "'stop', 'length' or 'cancelled'"
    return next((word for word in _READS_AS if f"'{word}'" in expected), None)


def _without_left_out(node: Any) -> JsonValue:
    match node:
        case dict():
            return {key: _without_left_out(value) for key, value in node.items()}
        case list():
            return [_without_left_out(value) for value in node if value is not _LEFT_OUT]
        case _:
            return cast("JsonValue", node)

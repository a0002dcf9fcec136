"""The typed client, against a server that speaks the protocol's frames by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from aiohttp import WSCloseCode, web
from pytest_aiohttp.plugin import AiohttpServer

from sidecar.client import (
    EVENTS_KEPT,
    CannotConnect,
    Client,
    ConnectionLost,
    NotUnderstood,
    Run,
    ServerError,
    connect,
)
from sidecar.messages import JsonObject
from sidecar.protocol.approvals import ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.chunks import TextChunk
from sidecar.protocol.mcp import (
    McpServersList,
    McpServerStateChanged,
    McpToolsCall,
    ToolsCallPayload,
)
from sidecar.protocol.program import Limits, Ping, ServerShutdown
from sidecar.protocol.providers import KeysStatus, ModelsList, ModelsListPayload

TOKEN = "t" * 43
HELLO: JsonObject = {
    "protocol": 1,
    "server": {"name": "sidecar", "version": "0.1.0", "instance": "i1"},
    "connection_id": "c1",
    "capabilities": ["chat"],
    "limits": Limits().model_dump(),
    "runs": [],
    "pending": {"approvals": []},
}
CHAT_RESULT: JsonObject = {
    "run_id": "r1",
    "conversation_id": "v1",
    "message_id": "m1",
    "finish_reason": "stop",
    "usage": {"input": 3, "output": 2, "cached": 0, "reasoning": 0},
}
SERVER_STATUS: JsonObject = {
    "server": "files",
    "transport": "stdio",
    "state": "ready",
    "era": None,
    "fingerprint": "f1",
    "tools": 2,
    "since": "2026-01-01T00:00:00Z",
}


class Peer:
    """The other end of the socket: reads requests, writes frames."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket

    async def request(self) -> Any:
        async with asyncio.timeout(5):
            return await self.socket.receive_json()

    async def send(self, **frame: Any) -> None:
        await self.socket.send_json(frame)

    async def complete(self, request: Any, result: JsonObject, **more: Any) -> None:
        await self.send(request_id=request["request_id"], status="complete", result=result, **more)

    async def processing(self, request: Any) -> None:
        metadata = {
            "user_message": "Hi",
            "run_id": "r1",
            "conversation_id": "v1",
            "user_message_id": "m0",
            "message_id": "m1",
            "model": "demo/scripted",
        }
        await self.send(
            request_id=request["request_id"],
            status="processing",
            seq=0,
            chunk={"type": None, "data": None, "metadata": metadata},
        )

    async def chunk(
        self,
        request: Any,
        seq: int,
        kind: str,
        data: str | None,
        metadata: JsonObject | None = None,
    ) -> None:
        await self.send(
            request_id=request["request_id"],
            status="chunk",
            seq=seq,
            chunk={"type": kind, "data": data, "metadata": metadata or {}},
        )

    async def event(self, kind: str, data: JsonObject) -> None:
        await self.send(
            request_id=None, status="event", event_seq=1, event={"type": kind, "data": data}
        )


Script: TypeAlias = Callable[[Peer], Awaitable[None]]
Serve: TypeAlias = Callable[[Script], Awaitable[str]]


@pytest.fixture
async def serve(aiohttp_server: AiohttpServer) -> Serve:
    """Start a server that follows the script on each socket, and then reads until it closes."""

    async def start(script: Script) -> str:
        async def accept(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise web.HTTPUnauthorized
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await script(Peer(socket))
            async for _ in socket:
                pass
            return socket

        app = web.Application()
        app.router.add_get("/ws/chat", accept)
        server = await aiohttp_server(app)
        return str(server.make_url("/ws/chat").with_scheme("ws"))

    return start


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    async with asyncio.timeout(10):
        yield


async def silent(peer: Peer) -> None:
    """Accepts and never speaks."""


def after_hello(script: Script) -> Script:
    async def full(peer: Peer) -> None:
        await peer.complete(await peer.request(), HELLO)
        await script(peer)

    return full


async def test_connecting_says_hello_with_its_topics_and_answers(serve: Serve) -> None:
    seen: list[Any] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.complete(seen[0], HELLO)

    async with connect(await serve(script), TOKEN, events=["*"], answers=["approvals"]) as client:
        assert client.hello is not None
        assert client.hello.server.instance == "i1"

    assert seen == [
        {
            "action": "hello",
            "request_id": "1",
            "payload": {"protocol": 1, "events": ["*"], "answers": ["approvals"]},
        }
    ]


async def test_a_basic_client_says_nothing_before_its_first_request(serve: Serve) -> None:
    seen: list[Any] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.complete(seen[0], {})

    async with connect(await serve(script), TOKEN, basic=True) as client:
        await client.request(Ping)

    assert seen == [{"action": "ping", "request_id": "1"}]


async def test_a_request_answers_with_its_own_result(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        assert request["payload"] == {"refresh": True}
        await peer.complete(request, {"items": [], "errors": []})

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        models = await client.request(ModelsList, ModelsListPayload(refresh=True))

    assert models.errors == ()


async def test_many_requests_may_be_answered_out_of_order(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        first, second = await peer.request(), await peer.request()
        await peer.complete(second, {"items": []})
        await peer.complete(first, {})

    async with (
        connect(await serve(after_hello(script)), TOKEN) as client,
        asyncio.TaskGroup() as group,
    ):
        ping = group.create_task(client.request(Ping))
        keys = group.create_task(client.request(KeysStatus))

    assert keys.result().items == ()
    assert ping.done()


async def test_an_error_frame_is_raised_with_its_sentence_and_its_code(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(
            request_id=request["request_id"],
            status="error",
            error="There is no server x.",
            error_info={"code": "not_found", "retryable": False, "origin": "client"},
        )

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        with pytest.raises(ServerError, match=r"There is no server x\.") as caught:
            await client.request(McpToolsCall, ToolsCallPayload(server="x", name="y"))

    assert caught.value.code == "not_found"


async def answer_a_chat(peer: Peer) -> None:
    request = await peer.request()
    await peer.processing(request)
    await peer.chunk(request, 1, "text", "Hel")
    await peer.chunk(request, 2, "text", "lo")
    await peer.complete(request, CHAT_RESULT, seq=3)


async def test_a_run_yields_its_chunks_and_ends_with_its_result(serve: Serve) -> None:
    async with connect(await serve(after_hello(answer_a_chat)), TOKEN) as client:
        run = await client.chat("Hi")
        chunks = [chunk async for chunk in run]
        result = await run.finished()

    assert [chunk.data for chunk in chunks if isinstance(chunk, TextChunk)] == ["Hel", "lo"]
    assert (run.text, run.run_id, run.seq) == ("Hello", "r1", 3)
    assert (await run.started()).model == "demo/scripted"
    assert result.usage.input == 3


async def test_a_run_can_be_read_again_from_its_first_chunk(serve: Serve) -> None:
    async with connect(await serve(after_hello(answer_a_chat)), TOKEN) as client:
        run = await client.chat("Hi")
        await run.finished()

        assert [chunk async for chunk in run] == [chunk async for chunk in run]


async def test_a_chat_sends_only_the_fields_that_were_given(serve: Serve) -> None:
    seen: list[Any] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.complete(seen[0], CHAT_RESULT)

    async with connect(await serve(script), TOKEN, basic=True) as client:
        run = await client.chat("Hi", model="demo/scripted", tools={"mode": "ask"})
        await run.finished()

    assert seen[0]["payload"] == {
        "text": "Hi",
        "model": "demo/scripted",
        "tools": {"mode": "ask"},
    }


async def test_a_run_that_fails_raises_where_it_is_read(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.processing(request)
        await peer.chunk(request, 1, "text", "Hel")
        await peer.send(
            request_id=request["request_id"],
            status="error",
            seq=2,
            error="OpenAI is limiting requests; try again in 21 s",
            error_info={
                "code": "rate_limited",
                "retryable": True,
                "retry_after_ms": 21000,
                "origin": "provider",
            },
        )

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        run = await client.chat("Hi")
        with pytest.raises(ServerError):
            async for _ in run:
                pass
        with pytest.raises(ServerError) as caught:
            await run.finished()

    assert caught.value.error_info.retry_after_ms == 21000
    assert run.text == "Hel"


async def test_cancelling_names_the_run_and_the_run_then_finishes_as_cancelled(
    serve: Serve,
) -> None:
    async def script(peer: Peer) -> None:
        chat = await peer.request()
        await peer.processing(chat)
        await peer.chunk(chat, 1, "text", "Once upon ")
        cancel = await peer.request()
        assert cancel["payload"] == {"run_id": "r1"}
        await peer.complete(cancel, {"cancelled": True})
        await peer.complete(chat, CHAT_RESULT | {"finish_reason": "cancelled"}, seq=2)

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        run = await client.chat("tell me a story")
        await run.text_so_far("Once upon ")

        assert await client.cancel(run)
        assert (await run.finished()).finish_reason == "cancelled"


async def test_a_run_that_has_not_begun_is_cancelled_by_its_request(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        chat = await peer.request()
        cancel = await peer.request()
        assert cancel["payload"] == {"target": chat["request_id"]}
        await peer.complete(cancel, {"cancelled": True})
        await peer.complete(chat, CHAT_RESULT | {"finish_reason": "cancelled"}, seq=0)

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        run = await client.chat("Hi")
        assert await client.cancel(run)
        await run.finished()


async def test_a_resumed_run_takes_its_text_from_the_snapshot(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        assert request["payload"] == {"run_id": "r1", "after_seq": 4}
        message: JsonObject = {
            "message_id": "m1",
            "parent_id": "m0",
            "role": "assistant",
            "parts": [{"type": "text", "text": "Once upon "}],
            "status": "streaming",
            "created_at": "2026-01-01T00:00:00Z",
        }
        await peer.chunk(request, 9, "snapshot", None, {"message": message, "seq": 9})
        await peer.chunk(request, 10, "text", "a time")
        await peer.complete(request, CHAT_RESULT, seq=11)

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        run = await client.resume("r1", after_seq=4)
        await run.finished()

    assert run.text == "Once upon a time"


async def test_waiting_for_a_text_that_never_comes_ends_with_the_run(serve: Serve) -> None:
    async with connect(await serve(after_hello(answer_a_chat)), TOKEN) as client:
        run = await client.chat("Hi")
        with pytest.raises(NotUnderstood):
            await run.text_so_far("Goodbye")


async def test_events_wait_for_their_reader_and_can_be_picked_by_kind(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        await peer.event("mcp.server_state", SERVER_STATUS)
        await peer.event("server.shutdown", {"reason": "asked", "deadline_ms": 6000})

    async with connect(await serve(after_hello(script)), TOKEN, events=["*"]) as client:
        notice = await client.event(ServerShutdown)
        events = client.events()
        first = await anext(events)

    assert notice.data.deadline_ms == 6000
    assert isinstance(first, McpServerStateChanged)


async def test_of_events_that_nobody_reads_the_oldest_are_dropped(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        for count in range(EVENTS_KEPT + 1):
            await peer.event("mcp.server_state", SERVER_STATUS | {"tools": count})
        await peer.complete(await peer.request(), {})

    async with connect(await serve(after_hello(script)), TOKEN, events=["*"]) as client:
        await client.request(Ping)
        oldest = await client.event(McpServerStateChanged)

    assert oldest.data.tools == 1


async def test_what_a_later_server_adds_disturbs_nothing(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(request_id=request["request_id"], status="rejoicing")
        await peer.processing(request)
        await peer.event("moon.phase", {"phase": "full"})
        await peer.chunk(request, 1, "hologram", "…")
        await peer.chunk(
            request,
            2,
            "tool_result",
            "12:00",
            {
                "tool_call_id": "t1",
                "status": "postponed",
                "duration_ms": 3,
                "of_a_later_version": 1,
                "content": [{"type": "scent", "notes": []}, {"type": "text", "text": "12:00"}],
            },
        )
        await peer.complete(request, CHAT_RESULT | {"finish_reason": "bored", "mood": 1}, seq=3)

    async with connect(await serve(after_hello(script)), TOKEN, events=["*"]) as client:
        run = await client.chat("Hi")
        (chunk,) = [chunk async for chunk in run]
        result = await run.finished()

    assert chunk.type == "tool_result"
    assert chunk.metadata.status == "unknown"
    assert chunk.metadata.content is not None
    assert [block.type for block in chunk.metadata.content] == ["text"]
    assert result.finish_reason == "stop"


async def test_an_unknown_state_reads_as_degraded(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        status = SERVER_STATUS | {"state": "meditating"}
        await peer.complete(await peer.request(), {"items": [status]})

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        servers = await client.request(McpServersList)

    assert servers.items[0].state == "degraded"


async def test_an_error_of_a_later_server_keeps_its_code(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(
            request_id=request["request_id"],
            status="error",
            error="The moon is full.",
            error_info={"code": "full_moon", "retryable": True, "origin": "moon"},
        )

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        with pytest.raises(ServerError) as caught:
            await client.request(Ping)

    assert (caught.value.code, caught.value.error_info.origin) == ("full_moon", "server")


async def test_a_decision_that_is_not_known_is_never_guessed(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        result: JsonObject = {"applied": False, "decision": "perhaps", "by": "c2"}
        await peer.complete(await peer.request(), result)
        await peer.complete(await peer.request(), {})

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        with pytest.raises(NotUnderstood):
            await client.request(
                ApprovalsResolve, ApprovalsResolvePayload(approval_id="a1", decision="allow")
            )
        await client.request(Ping)


async def test_a_frame_that_is_not_json_ends_the_connection_with_an_error(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.socket.send_str("{")

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        with pytest.raises(NotUnderstood, match="not JSON"):
            await client.request(Ping)
        with pytest.raises(NotUnderstood, match="not JSON"):
            await client.request(Ping)


async def test_a_wrong_token_is_refused_with_its_status(serve: Serve) -> None:
    url = await serve(silent)

    with pytest.raises(CannotConnect, match="HTTP 401") as caught:
        async with connect(url, "wrong"):
            pass

    assert caught.value.status == 401
    assert "wrong" not in str(caught.value)


async def test_an_address_where_nobody_listens_is_a_sentence(unused_tcp_port: int) -> None:
    with pytest.raises(CannotConnect, match="Nothing answers at ws://127"):
        async with connect(f"ws://127.0.0.1:{unused_tcp_port}/ws/chat", TOKEN):
            pass


async def test_a_server_that_never_answers_hello_is_given_up(serve: Serve) -> None:
    url = await serve(silent)

    with pytest.raises(CannotConnect, match=r"No answer to hello within 0\.1 s\."):
        async with connect(url, TOKEN, timeout_s=0.1):
            pass


@pytest.mark.parametrize("wait", ["request", "run", "iteration", "event"])
async def test_a_lost_connection_is_an_error_wherever_somebody_waits(
    serve: Serve, wait: str
) -> None:
    may_close = asyncio.Event()

    async def script(peer: Peer) -> None:
        chat = await peer.request()
        await peer.processing(chat)
        await may_close.wait()
        await peer.socket.close(code=WSCloseCode.GOING_AWAY)

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        run = await client.chat("Hi")
        await run.started()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(loss_of(client, run, wait))
            await asyncio.sleep(0)  # it waits now
            may_close.set()

        assert waiting.result().close_code == 1001
        with pytest.raises(ConnectionLost):
            await client.request(Ping)


async def loss_of(client: Client, run: Run, wait: str) -> ConnectionLost:
    with pytest.raises(ConnectionLost) as caught:
        match wait:
            case "request":
                await client.request(Ping)
            case "run":
                await run.finished()
            case "iteration":
                async for _ in run:
                    pass
            case _:
                await client.event(ServerShutdown)
    return caught.value


async def test_a_connection_that_breaks_without_a_word_is_lost(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        transport = peer.socket.get_extra_info("socket")
        transport.shutdown(2)

    async with connect(await serve(after_hello(script)), TOKEN) as client:
        with pytest.raises(ConnectionLost, match="broke") as caught:
            await client.request(Ping)

    assert caught.value.close_code is None


async def test_leaving_ends_whoever_still_waits(serve: Serve) -> None:
    async with (
        asyncio.TaskGroup() as group,
        connect(await serve(after_hello(silent)), TOKEN) as client,
    ):
        run = await client.chat("Hi")
        waiting = group.create_task(loss_of(client, run, "run"))

    assert str(waiting.result()) == "The connection to the sidecar is closed."


async def test_an_error_in_the_body_comes_out_as_it_is(serve: Serve) -> None:
    with pytest.raises(KeyError):
        async with connect(await serve(after_hello(silent)), TOKEN):
            raise KeyError("mine")


async def test_every_frame_can_be_watched_as_it_came(serve: Serve) -> None:
    frames: list[JsonObject] = []

    url = await serve(after_hello(answer_a_chat))
    async with connect(url, TOKEN, on_frame=frames.append) as client:
        await (await client.chat("Hi")).finished()

    assert [frame["status"] for frame in frames] == [
        "complete",
        "processing",
        "chunk",
        "chunk",
        "complete",
    ]
    assert json.loads(json.dumps(frames[2]))["chunk"]["data"] == "Hel"

"""A client of the origin project: it never says hello, and works as it always did."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from sidecar.app import App
from tests.behaviour.conftest import PLAIN_SERVER, Start
from tests.support.fake_openai import (
    HANG,
    Answer,
    FakeOpenAI,
    chunk,
    ending,
    status,
    text,
    tool_calls,
    unfinished_text,
)


class Origin:
    """The origin's own loop: send one chat, read until `complete` or `error`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, action: str, request_id: str, **payload: Any) -> None:
        frame = {"action": action, "payload": payload, "request_id": request_id}
        await self._socket.send_str(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            frame: dict[str, Any] = json.loads(await self._socket.receive_str())
            return frame

    async def chat(self, text: str, request_id: str = "a1") -> list[dict[str, Any]]:
        await self.send("chat", request_id, text=text)
        frames = []
        while True:
            frames.append(await self.receive())
            if frames[-1]["status"] in ("complete", "error"):
                return frames


@contextlib.asynccontextmanager
async def connected(app: App) -> AsyncIterator[Origin]:
    headers = {"Authorization": f"Bearer {app.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(app.url, headers=headers) as socket,
    ):
        yield Origin(socket)


@pytest.fixture
async def app(start: Start) -> App:
    return await start()


async def test_one_chat_is_processing_then_chunks_then_complete(
    app: App, upstream: FakeOpenAI
) -> None:
    upstream.will(text("Hel", "lo"))

    async with connected(app) as origin:
        first, *chunks, last = await origin.chat("Hi")

    assert (first["request_id"], first["status"]) == ("a1", "processing")
    assert first["chunk"]["type"] is None
    assert first["chunk"]["data"] is None
    assert first["chunk"]["metadata"]["user_message"] == "Hi"
    assert {frame["status"] for frame in chunks} == {"chunk"}
    assert {frame["chunk"]["type"] for frame in chunks} == {"text"}
    assert "".join(frame["chunk"]["data"] for frame in chunks) == "Hello"
    assert (last["request_id"], last["status"]) == ("a1", "complete")
    assert last["result"]["finish_reason"] == "stop"


async def test_only_the_three_old_kinds_of_chunks_are_shown(
    start: Start, upstream: FakeOpenAI
) -> None:
    app = await start(PLAIN_SERVER)
    call = {"index": 0, "id": "c", "function": {"name": "plain__echo", "arguments": "{}"}}
    upstream.will(
        status(429, "slow down", {"retry-after-ms": "1"}),
        Answer([chunk(reasoning="Hm."), chunk(tool_calls=[call]), ending("tool_calls")]),
        text("Done."),
    )

    async with connected(app) as origin:
        frames = await origin.chat("Hi")

    kinds = [frame["chunk"]["type"] for frame in frames if frame["status"] == "chunk"]
    assert kinds == ["tool_call", "tool_result", "text"]
    assert json.loads(frames[1]["chunk"]["data"]) == {}
    assert frames[1]["chunk"]["metadata"]["name"] == "echo"


async def test_an_error_is_a_string_and_ends_the_request(app: App, upstream: FakeOpenAI) -> None:
    upstream.will(status(401, "Incorrect API key"))

    async with connected(app) as origin:
        frames = await origin.chat("Hi")

    assert [frame["status"] for frame in frames] == ["processing", "error"]
    assert isinstance(frames[-1]["error"], str)
    assert frames[-1]["error_info"]["code"] == "key_rejected"


async def test_all_turns_of_one_socket_are_one_conversation(app: App, upstream: FakeOpenAI) -> None:
    upstream.will(text("A1"), text("A2"))

    async with connected(app) as origin:
        await origin.chat("Q1")
        await origin.chat("Q2")
    async with connected(app) as origin:
        await origin.chat("Q3")

    said = [[m["content"] for m in body["messages"][1:]] for body in upstream.bodies]
    assert said == [["Q1"], ["Q1", "A1", "Q2"], ["Q3"]]


async def test_a_second_message_waits_its_turn(app: App, upstream: FakeOpenAI) -> None:
    rest = asyncio.Event()
    upstream.will(unfinished_text("A", then=rest), text("B"))
    upstream.will(Answer([chunk(content="A"), rest, ending("stop")]), text("B"))

    async with connected(app) as origin:
        await origin.send("chat", "one", text="Q1")
        await origin.send("chat", "two", text="Q2")
        started = [(await origin.receive()), (await origin.receive())]
        await upstream.arrived.wait()
        rest.set()
        frames = started
        while len([f for f in frames if f["status"] == "complete"]) < 2:
            frames.append(await origin.receive())

    ends = [frame["request_id"] for frame in frames if frame["status"] == "complete"]
    assert ends == ["one", "two"]
    assert [m["content"] for m in upstream.bodies[1]["messages"][1:]] == ["Q1", "A", "Q2"]


async def test_the_seventeenth_waiting_message_is_refused(app: App, upstream: FakeOpenAI) -> None:
    upstream.will(unfinished_text("A", then=HANG))

    async with connected(app) as origin:
        for number in range(18):
            await origin.send("chat", str(number), text="Q")
        frames = [await origin.receive()]
        while frames[-1]["status"] != "error":
            frames.append(await origin.receive())

    assert frames[-1]["request_id"] == "17"
    assert frames[-1]["error_info"]["code"] == "overloaded"


async def test_a_turn_can_be_cancelled_by_its_request_id(app: App, upstream: FakeOpenAI) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))

    async with connected(app) as origin:
        await origin.send("chat", "one", text="Tell me")
        while (await origin.receive())["status"] != "chunk":
            pass
        await origin.send("cancel", "two", target="one")
        last = {frame["request_id"]: frame for frame in [await origin.receive() for _ in range(2)]}

    assert last["two"]["result"] == {"cancelled": True}
    assert last["one"]["result"]["finish_reason"] == "cancelled"


async def test_a_dropped_socket_cancels_its_turn_since_nobody_could_come_back(
    app: App, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))

    async with connected(app) as origin:
        await origin.send("chat", "one", text="Tell me")
        await upstream.arrived.wait()

    async with asyncio.timeout(5):
        await upstream.hung_up.wait()


async def test_everything_else_asks_for_a_hello_first(app: App) -> None:
    async with connected(app) as origin:
        await origin.send("models.list", "m")
        answer = await origin.receive()
        await origin.send("ping", "p")

        assert answer["error_info"]["code"] == "hello_required"
        assert (await origin.receive())["result"] == {}


async def test_a_call_that_needs_consent_is_denied_since_nobody_can_be_asked(
    start: Start, upstream: FakeOpenAI
) -> None:
    app = await start(PLAIN_SERVER)
    upstream.will(tool_calls(("plain__echo", {"text": "hi"})), text("Then not."))

    async with connected(app) as origin:
        frames = await origin.chat("Say hi")

    [result] = [f["chunk"] for f in frames if f.get("chunk", {}).get("type") == "tool_result"]
    assert result["metadata"]["status"] == "denied"
    assert frames[-1]["status"] == "complete"


async def test_a_cancelled_message_in_the_queue_does_not_let_the_next_one_overtake(
    app: App, upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(Answer([chunk(content="A"), rest, ending("stop")]), text("B"))

    async with connected(app) as origin:
        for request_id in ("one", "two", "three"):
            await origin.send("chat", request_id, text=f"Q {request_id}")
        await upstream.arrived.wait()
        await origin.send("cancel", "c", target="two")
        frames = [await origin.receive()]
        while frames[-1]["request_id"] != "two" or frames[-1]["status"] != "complete":
            frames.append(await origin.receive())
        assert len(upstream.requests) == 1
        rest.set()
        while frames[-1]["request_id"] != "three" or frames[-1]["status"] != "complete":
            frames.append(await origin.receive())

    said = [message["content"] for message in upstream.bodies[1]["messages"][1:]]
    assert said == ["Q one", "A", "Q three"]


async def test_a_basic_clients_message_sent_again_attaches_to_its_run(
    app: App, upstream: FakeOpenAI
) -> None:
    retry_key = "0f8fad5b-d9cb-469f-a165-70867728950e"

    async with connected(app) as origin:
        await origin.chat("before")
        for request_id in ("one", "two"):
            await origin.send("chat", request_id, text="pay", retry_key=retry_key)
            frame = await origin.receive()
            while frame["status"] != "complete":
                frame = await origin.receive()

    assert len(upstream.requests) == 2

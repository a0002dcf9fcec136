"""Whatever comes in gets a code and a sentence, and disturbs nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from sidecar.app import App
from sidecar.client import Client, ServerError
from sidecar.protocol.requests import CAPABILITIES
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import Answer, FakeOpenAI, chunk, ending


@pytest.fixture
async def app(start: Start) -> App:
    return await start()


@pytest.fixture
async def socket(app: App) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {app.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(app.url, headers=headers) as opened,
    ):
        hello = {"action": "hello", "request_id": "h", "payload": {"protocol": 1}}
        await opened.send_json(hello)
        await opened.receive_json(timeout=5)
        yield opened


async def answer(socket: aiohttp.ClientWebSocketResponse, text: str) -> dict[str, Any]:
    await socket.send_str(text)
    frame: dict[str, Any] = await socket.receive_json(timeout=5)
    return frame


@pytest.mark.parametrize(
    ("text", "request_id", "code", "hint"),
    [
        ("", None, "invalid_json", "JSON"),
        ("{", None, "invalid_json", "JSON"),
        ("[" * 100_000, None, "invalid_json", "JSON"),
        ("[1, 2]", None, "bad_request", "JSON object"),
        ('"hi"', None, "bad_request", "JSON object"),
        ("{}", None, "unknown_action", "null"),
        ('{"action": 5, "request_id": "r"}', "r", "unknown_action", "5"),
        ('{"action": "dance", "request_id": "r"}', "r", "unknown_action", "dance"),
        ('{"action": "conversations.burn", "request_id": "r"}', "r", "unknown_action", "conv"),
        ('{"action": "ping"}', None, "bad_request", "request_id"),
        ('{"action": "ping", "request_id": ""}', None, "bad_request", "request_id"),
        ('{"action": "ping", "request_id": 7}', None, "bad_request", "request_id"),
        (json.dumps({"action": "ping", "request_id": "x" * 129}), None, "bad_request", "129|128"),
        ('{"action": "ping", "request_id": "r", "extra": 1}', "r", "bad_request", "extra"),
        ('{"action": "ping", "request_id": "r", "payload": []}', "r", "bad_request", "payload"),
        ('{"action": "chat", "request_id": "r"}', "r", "bad_request", "payload"),
        ('{"action": "chat", "request_id": "r", "payload": {}}', "r", "bad_request", "text"),
        (
            '{"action": "chat", "request_id": "r", "payload": {"text": "a", "txet": 1}}',
            "r",
            "bad_request",
            "payload.txet",
        ),
        (
            '{"action": "chat", "request_id": "r", "payload": {"text": "a", "retry_key": "no"}}',
            "r",
            "bad_request",
            "retry_key",
        ),
        ('{"action": "cancel", "request_id": "r", "payload": {}}', "r", "bad_request", "run_id"),
        (
            '{"action": "resume", "request_id": "r", "payload": {"run_id": "x", "after_seq": -2}}',
            "r",
            "bad_request",
            "after_seq",
        ),
        (
            '{"action": "providers.test", "request_id": "r", "payload": {"provider": "x"}}',
            "r",
            "not_found",
            "fake",
        ),
        (
            '{"action": "mcp.servers.restart", "request_id": "r", "payload": {"server": "x"}}',
            "r",
            "not_found",
            "x",
        ),
        (
            '{"action": "mcp.tools.call", "request_id": "r",'
            ' "payload": {"server": "x", "name": "y"}}',
            "r",
            "tool_not_found",
            "x",
        ),
        (
            '{"action": "approvals.resolve", "request_id": "r",'
            ' "payload": {"approval_id": "x", "decision": "allow"}}',
            "r",
            "not_found",
            "approval",
        ),
        (
            '{"action": "approvals.rules.delete", "request_id": "r", "payload": {}}',
            "r",
            "bad_request",
            "rule_id",
        ),
        (
            '{"action": "keys.set", "request_id": "r", "payload": {"provider": "x", "key": "k"}}',
            "r",
            "not_found",
            "x",
        ),
        (
            '{"action": "hello", "request_id": "r", "payload": {"protocol": 99}}',
            "r",
            "unsupported_protocol",
            "1",
        ),
    ],
)
async def test_a_frame_that_cannot_be_served_says_why(
    socket: aiohttp.ClientWebSocketResponse, text: str, request_id: str, code: str, hint: str
) -> None:
    frame = await answer(socket, text)

    assert frame["status"] == "error"
    assert frame["request_id"] == request_id
    assert frame["error_info"]["code"] == code
    assert any(word in frame["error"] for word in hint.split("|"))
    alive = await answer(socket, '{"action": "ping", "request_id": "alive"}')
    assert alive == {"request_id": "alive", "status": "complete", "result": {}}


async def test_a_key_that_came_with_a_mistake_is_not_repeated(
    socket: aiohttp.ClientWebSocketResponse,
) -> None:
    payload = {"provider": "fake", "key": ["sk-secret-1234567890"], "presist": True}
    frame = {"action": "keys.set", "request_id": "r", "payload": payload}

    error = await answer(socket, json.dumps(frame))

    assert error["error_info"]["code"] == "bad_request"
    assert "sk-secret" not in json.dumps(error)


async def test_a_request_id_in_use_is_refused_and_free_again_afterwards(
    socket: aiohttp.ClientWebSocketResponse, upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(Answer([chunk(content="a"), rest, ending("stop")]))
    chat = {"action": "chat", "request_id": "r", "payload": {"text": "hi"}}
    await socket.send_json(chat)
    assert (await socket.receive_json(timeout=5))["status"] == "processing"

    await socket.send_json(chat)
    frames = [await socket.receive_json(timeout=5)]
    while frames[-1]["status"] != "error":
        frames.append(await socket.receive_json(timeout=5))
    assert frames[-1]["error_info"]["code"] == "duplicate_request"

    rest.set()
    while frames[-1]["status"] != "complete":
        frames.append(await socket.receive_json(timeout=5))
    assert (await answer(socket, json.dumps(chat)))["status"] == "processing"


async def test_more_actions_than_a_person_can_mean_are_refused(
    socket: aiohttp.ClientWebSocketResponse,
) -> None:
    for number in range(80):
        await socket.send_json({"action": "ping", "request_id": str(number)})

    frames = [await socket.receive_json(timeout=5) for _ in range(80)]

    refused = [frame for frame in frames if frame["status"] == "error"]
    assert refused
    assert {frame["error_info"]["code"] for frame in refused} == {"overloaded"}


async def test_hello_lists_every_action_and_no_other(app: App, join: Join) -> None:
    client: Client = await join(app)

    assert client.hello is not None
    assert client.hello.capabilities == CAPABILITIES
    assert "conversations.burn" not in client.hello.capabilities
    assert client.hello.limits.frame_bytes == 4 * 1024 * 1024


async def test_a_list_that_fits_no_frame_is_an_error_and_not_a_frame(
    app: App, join: Join, upstream: FakeOpenAI
) -> None:
    from sidecar.protocol.providers import ModelsList

    upstream.models = [{"id": f"model-{n}-" + "x" * 200} for n in range(5000)]
    client = await join(app)

    with pytest.raises(ServerError) as caught:
        await client.request(ModelsList)

    assert caught.value.code == "overloaded"


async def test_half_a_character_disturbs_nobody(
    socket: aiohttp.ClientWebSocketResponse, upstream: FakeOpenAI
) -> None:
    await socket.send_str(
        '{"action": "chat", "request_id": "\\ud83d", "payload": {"text": "\\ud83d"}}'
    )
    frames = [await socket.receive_json(timeout=5)]
    while frames[-1]["status"] != "complete":
        frames.append(await socket.receive_json(timeout=5))

    assert upstream.bodies[0]["messages"][-1]["content"] == "\ufffd"
    assert (await answer(socket, '{"action": "ping", "request_id": "p"}'))["result"] == {}


async def test_hello_and_what_follows_it_may_be_sent_in_one_go(app: App) -> None:
    headers = {"Authorization": f"Bearer {app.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(app.url, headers=headers) as opened,
    ):
        await opened.send_json({"action": "hello", "request_id": "h", "payload": {"protocol": 1}})
        await opened.send_json({"action": "mcp.servers.list", "request_id": "m"})

        frames = [await opened.receive_json(timeout=5) for _ in range(2)]

    assert [(frame["request_id"], frame["status"]) for frame in frames] == [
        ("h", "complete"),
        ("m", "complete"),
    ]


async def test_what_an_error_repeats_is_bounded(socket: aiohttp.ClientWebSocketResponse) -> None:
    long = "x" * 3_000_000
    frames = [
        {"action": long, "request_id": "1"},
        {"action": "mcp.servers.restart", "request_id": "2", "payload": {"server": long}},
        {"action": "chat", "request_id": "3", "payload": {"text": "a", "model": long}},
    ]
    for frame in frames:
        assert len(json.dumps(await answer(socket, json.dumps(frame)))) < 10_000


async def test_a_long_message_is_answered_without_being_repeated_in_full(
    socket: aiohttp.ClientWebSocketResponse, upstream: FakeOpenAI
) -> None:
    chat = {"action": "chat", "request_id": "r", "payload": {"text": "x" * 600_000}}

    started = await answer(socket, json.dumps(chat))

    assert started["status"] == "processing"
    assert len(json.dumps(started)) < 512 * 1024
    async with asyncio.timeout(5):
        await upstream.arrived.wait()
    assert len(upstream.bodies[0]["messages"][-1]["content"]) == 600_000

"""`/v1` as OpenAI's own client sees it: models, answers, tools, refusals."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from sidecar.app import App
from sidecar.client import ServerError, ask_for_door_key
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.chat import Cancel, CancelPayload, RunsEnded, RunsStarted
from sidecar.protocol.providers import ModelsList
from tests.behaviour.conftest import PLAIN_SERVER, Join, Start
from tests.support.fake_openai import HANG, FakeOpenAI, status, text, tool_calls
from tests.support.fake_openai import unfinished_text as unfinished
from tests.support.world import running, world

Knock = Callable[[App], Awaitable[openai.AsyncOpenAI]]


@pytest.fixture
async def knock() -> AsyncIterator[Knock]:
    """OpenAI's client with the door key, as an app is set up with it."""
    opened: list[openai.AsyncOpenAI] = []

    async def knock(app: App) -> openai.AsyncOpenAI:
        key = await ask_for_door_key(app.http, app.token, renew=False)
        opened.append(openai.AsyncOpenAI(base_url=f"{app.http}/v1", api_key=key.value))
        return opened[-1]

    async with asyncio.timeout(60):
        yield knock
    for client in opened:
        await client.close()


@pytest.fixture
async def demo(tmp_path: Path, knock: Knock) -> AsyncIterator[openai.AsyncOpenAI]:
    async with running(world(tmp_path, demo=True)) as app:
        yield await knock(app)


# ---- models ---------------------------------------------------------------------------------


async def test_models_are_listed_without_asking_a_vendor(
    start: Start, join: Join, knock: Knock, upstream: FakeOpenAI
) -> None:
    app = await start()
    apps = await knock(app)

    before = [model.id async for model in apps.models.list()]
    asked = len(upstream.requests)
    await (await join(app)).request(ModelsList)
    after = [model.id async for model in apps.models.list()]

    assert (before, asked) == (["fake/test"], 0)
    assert after == ["fake/test", "fake/gpt-4o-mini"]


async def test_one_model_is_told_by_its_name(start: Start, join: Join, knock: Knock) -> None:
    app = await start()
    apps = await knock(app)

    unasked = await apps.models.retrieve("fake/anything")
    await (await join(app)).request(ModelsList)
    listed = await apps.models.retrieve("fake/gpt-4o-mini")

    assert (unasked.id, listed.id, listed.owned_by) == ("fake/anything", "fake/gpt-4o-mini", "fake")
    for unknown in ("fake/anything", "nobody/else", "gpt-4o"):
        with pytest.raises(openai.NotFoundError) as refusal:
            await apps.models.retrieve(unknown)
        assert refusal.value.code == "model_not_found"


# ---- answers --------------------------------------------------------------------------------


def said(content: str) -> list[Any]:
    return [{"role": "user", "content": content}]


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


async def test_an_answer_comes_whole(start: Start, knock: Knock, upstream: FakeOpenAI) -> None:
    upstream.will(text("Hel", "lo", prompt_tokens=7, completion_tokens=2))
    apps = await knock(await start())

    answer = await apps.chat.completions.create(model="fake/test", messages=said("Hi"))

    assert (answer.object, answer.model) == ("chat.completion", "fake/test")
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello")
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 9)


async def test_an_answer_is_streamed_as_it_comes(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    go_on = asyncio.Event()
    upstream.will(unfinished("Hel", then=go_on))
    apps = await knock(await start())

    stream = await apps.chat.completions.create(model="fake/test", messages=said("Hi"), stream=True)
    first, second = await anext(stream), await anext(stream)
    await stream.close()

    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert second.choices[0].delta.content == "Hel"  # while the model still talks
    assert first.object == "chat.completion.chunk"
    assert first.id == second.id


async def test_a_stream_ends_with_its_reason_its_usage_if_asked_for_and_done(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    app = await start()
    upstream.will(text("Hello", prompt_tokens=7, completion_tokens=2))
    plain = await lines_of(app, {"messages": said("Hi"), "stream": True})
    with_usage = [
        chunk
        async for chunk in await (await knock(app)).chat.completions.create(
            model="fake/test",
            messages=said("Hi"),
            stream=True,
            stream_options={"include_usage": True},
        )
    ]

    assert plain[-1] == "data: [DONE]"
    assert '"finish_reason": "stop"' in plain[-2]
    assert not any("usage" in line for line in plain)
    assert with_usage[-2].choices[0].finish_reason == "stop"
    assert with_usage[-1].choices == []
    assert with_usage[-1].usage is not None
    assert (with_usage[-1].usage.prompt_tokens, with_usage[-1].usage.completion_tokens) == (7, 2)


async def test_reasoning_has_a_field_of_its_own(demo: openai.AsyncOpenAI) -> None:
    whole = await demo.chat.completions.create(model="demo/scripted", messages=said("think"))
    stream = await demo.chat.completions.create(
        model="demo/scripted", messages=said("think"), stream=True
    )
    deltas = [chunk.choices[0].delta.to_dict() async for chunk in stream]

    thought = "".join(str(delta.get("reasoning_content", "")) for delta in deltas)
    assert thought.startswith("They asked me to think.")
    assert whole.choices[0].message.to_dict()["reasoning_content"] == thought
    assert "".join(str(delta.get("content", "")) for delta in deltas) == (
        whole.choices[0].message.content
    )


async def test_the_conversation_and_its_settings_reach_the_model(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    apps = await knock(await start())

    await apps.chat.completions.create(
        model="fake/test",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "One"}]},
            {"role": "assistant", "content": "Two"},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "Three"},
        ],
        temperature=0.5,
        max_completion_tokens=9,
        stop="END",
        seed=1,
        user="somebody",
        frequency_penalty=0,
        response_format={"type": "json_object"},
    )

    (body,) = upstream.bodies
    assert [(each["role"], each["content"]) for each in body["messages"]] == [
        ("system", "Be brief.\n\nBe kind."),
        ("user", "One"),
        ("assistant", "Two"),
        ("user", "Three"),
    ]
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.5, 9, ["END"])
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


async def test_an_app_without_a_system_message_gets_none_of_ours(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    apps = await knock(await start())

    await apps.chat.completions.create(model="fake/test", messages=said("Hi"))

    assert [each["role"] for each in upstream.bodies[0]["messages"]] == ["user"]


# ---- tools ----------------------------------------------------------------------------------


async def test_our_tools_are_offered_and_run_here(demo: openai.AsyncOpenAI) -> None:
    answer = await demo.chat.completions.create(model="demo/scripted", messages=said("add 2 and 3"))

    message = answer.choices[0].message
    assert (message.content, message.tool_calls) == ("The tool add returned: 5", None)
    assert answer.choices[0].finish_reason == "stop"


async def test_texts_before_and_after_a_tool_do_not_run_together(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    asks = tool_calls(("plain__echo", {"text": "x"}))
    looking = type(asks)([*text("I look.").steps[:1], *asks.steps])
    app = await start(PLAIN_SERVER)
    apps = await knock(app)

    upstream.will(looking, text("Done."))
    whole = await apps.chat.completions.create(model="fake/test", messages=said("Go"))
    upstream.will(looking, text("Done."))
    stream = await apps.chat.completions.create(model="fake/test", messages=said("Go"), stream=True)
    streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert whole.choices[0].message.content == streamed == "I look.\n\nDone."


async def test_a_tool_that_nobody_can_allow_is_denied_and_the_model_told(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls(("plain__echo", {"text": "x"})), text("Too bad."))
    apps = await knock(await start(PLAIN_SERVER))

    answer = await apps.chat.completions.create(model="fake/test", messages=said("Go"))

    assert answer.choices[0].message.content == "Too bad."
    assert "Nobody answered" in upstream.bodies[1]["messages"][-1]["content"]


async def test_a_person_in_another_window_can_allow_it(
    start: Start, join: Join, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls(("plain__echo", {"text": "from afar"})), text("Done."))
    app = await start(PLAIN_SERVER)
    window = await join(app, events=["approvals"], answers=["approvals"])
    apps = await knock(app)

    asking = asyncio.create_task(
        apps.chat.completions.create(model="fake/test", messages=said("Go"))
    )
    pending = await window.event(ApprovalsPending)
    allow = ApprovalsResolvePayload(approval_id=pending.data.approval_id, decision="allow")
    await window.request(ApprovalsResolve, allow)
    answer = await asking

    assert answer.choices[0].message.content == "Done."
    assert upstream.bodies[1]["messages"][-1]["content"] == "from afar"


async def test_an_app_s_own_tools_go_to_the_model_in_place_of_ours_and_its_calls_come_back(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    long = "x" * 100_000  # more than a frame of ours would show
    upstream.will(tool_calls(("get_weather", {"city": long}), ("get_weather", {"city": "Rome"})))
    apps = await knock(await start(PLAIN_SERVER))

    whole = await apps.chat.completions.create(
        model="fake/test", messages=said("Weather?"), tools=[WEATHER]
    )
    async with apps.chat.completions.stream(
        model="fake/test", messages=said("Weather?"), tools=[WEATHER]
    ) as stream:
        streamed = await stream.get_final_completion()

    (offered,) = upstream.bodies[0]["tools"]
    assert offered["function"] == WEATHER["function"]
    assert len(upstream.bodies) == 2  # nothing was run, and nobody asked again
    for choice in (whole.choices[0], streamed.choices[0]):
        assert choice.finish_reason == "tool_calls"
        assert not choice.message.content
        assert choice.message.tool_calls is not None
        functions: list[Any] = [call.to_dict()["function"] for call in choice.message.tool_calls]
        assert [each["name"] for each in functions] == ["get_weather", "get_weather"]
        assert [json.loads(each["arguments"])["city"] for each in functions] == [long, "Rome"]


async def test_an_app_gives_the_results_of_its_tools_and_the_model_reads_them(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(text("Sunny."))
    apps = await knock(await start())

    answer = await apps.chat.completions.create(
        model="fake/test",
        messages=[
            *said("Weather?"),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "22 degrees"},
        ],
        tools=[WEATHER],
    )

    assert answer.choices[0].message.content == "Sunny."
    assert [each["role"] for each in upstream.bodies[0]["messages"]] == [
        "user",
        "assistant",
        "tool",
    ]
    assert upstream.bodies[0]["messages"][1]["tool_calls"][0]["id"] == "call_1"
    assert upstream.bodies[0]["messages"][2]["content"] == "22 degrees"


async def test_with_tool_choice_none_nobody_s_tools_are_offered(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    apps = await knock(await start(PLAIN_SERVER))

    await apps.chat.completions.create(
        model="fake/test", messages=said("Hi"), tools=[WEATHER], tool_choice="none"
    )

    assert "tools" not in upstream.bodies[0]


# ---- what ends early ------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_the_answer(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished("Hel", then=HANG))
    apps = await knock(await start())

    stream = await apps.chat.completions.create(model="fake/test", messages=said("Hi"), stream=True)
    await anext(stream)
    await stream.close()

    await upstream.hung_up.wait()


async def test_a_client_that_leaves_before_anything_came_ends_it_too(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished(then=HANG))
    apps = await knock(await start())

    asking = asyncio.create_task(
        apps.chat.completions.create(model="fake/test", messages=said("Hi"))
    )
    await upstream.arrived.wait()
    asking.cancel()

    await upstream.hung_up.wait()


async def test_a_run_that_a_person_stops_is_an_error_that_is_not_tried_again(
    start: Start, join: Join, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished("Hel", then=HANG))
    app = await start()
    window = await join(app, events=["runs"])
    apps = await knock(app)

    asking = asyncio.create_task(
        apps.chat.completions.create(model="fake/test", messages=said("Hi"))
    )
    run = (await window.event(RunsStarted)).data
    await upstream.arrived.wait()
    await window.request(Cancel, CancelPayload(run_id=run.run_id))

    with pytest.raises(openai.APIStatusError) as stopped:
        await asking
    assert (stopped.value.status_code, stopped.value.code) == (499, "cancelled")
    assert len(upstream.bodies) == 1


async def test_a_limit_of_the_vendor_s_is_told_with_when_to_come_back(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(status(429, "slow down", {"retry-after": "21"}))
    apps = (await knock(await start("chat: {model: fake/test, max_retries: 0}"))).with_options(
        max_retries=0
    )

    for is_streamed in (False, True):
        with pytest.raises(openai.RateLimitError) as refusal:
            await apps.chat.completions.create(
                model="fake/test", messages=said("Hi"), stream=is_streamed
            )
        assert refusal.value.response.headers["retry-after"] == "21"
        assert refusal.value.response.headers["x-should-retry"] == "true"
        assert (refusal.value.type, refusal.value.code) == (
            "rate_limit_error",
            "rate_limit_exceeded",
        )


async def test_a_failure_in_the_middle_is_told_in_the_stream(demo: openai.AsyncOpenAI) -> None:
    stream = await demo.chat.completions.create(
        model="demo/scripted", messages=said("fail"), stream=True
    )

    with pytest.raises(openai.APIError, match="The demo was asked to fail, and did"):
        [chunk async for chunk in stream]


async def test_a_failure_after_a_tool_ran_is_not_tried_again_by_the_client(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls(("plain__echo", {"text": "x"})), status(503, "busy"))
    apps = await knock(await start(PLAIN_SERVER, "chat: {model: fake/test, max_retries: 0}"))

    with pytest.raises(openai.APIStatusError) as failure:
        await apps.chat.completions.create(model="fake/test", messages=said("Go"))

    assert failure.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.bodies) == 2


@pytest.mark.parametrize(
    "model, code", [("fake", "bad_request"), ("nobody/else", "model_not_found")]
)
async def test_a_model_that_is_none_is_refused(
    start: Start, knock: Knock, model: str, code: str
) -> None:
    apps = await knock(await start())

    with pytest.raises(openai.APIStatusError) as refusal:
        await apps.chat.completions.create(model=model, messages=said("Hi"))

    assert refusal.value.code == code


async def test_a_vendor_s_key_that_is_wrong_is_not_taken_for_the_door_s(
    start: Start, knock: Knock, upstream: FakeOpenAI
) -> None:
    upstream.will(status(401, "Incorrect API key"))
    apps = await knock(await start())

    with pytest.raises(openai.AuthenticationError) as refusal:
        await apps.chat.completions.create(model="fake/test", messages=said("Hi"))

    assert refusal.value.code == "key_rejected"


# ---- what cannot be served ------------------------------------------------------------------

IMAGE: Any = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "many answers": ({"n": 2}, "n"),
    "probabilities": ({"logprobs": True}, "logprobs"),
    "a penalty": ({"presence_penalty": 0.5}, "presence_penalty"),
    "sound": ({"modalities": ["text", "audio"]}, "modalities"),
    "old functions": ({"functions": [{"name": "f"}]}, "functions"),
    "a forced tool": ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
    "one tool at a time": (
        {"tools": [WEATHER], "parallel_tool_calls": False},
        "parallel_tool_calls",
    ),
    "two tools of a name": ({"tools": [WEATHER, WEATHER]}, "tools.1.function.name"),
    "a tool without a name": (
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        "tools.0.function.name",
    ),
    "a tool that is no function": ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    "a schema that is none": (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema.schema",
    ),
    "an image": ({"messages": [*said("Hi"), {"role": "user", "content": IMAGE}]},
                 "messages.1.content.0"),
    "no messages": ({"messages": []}, "messages"),
    "only a system message": ({"messages": [{"role": "system", "content": "Hi"}]}, "messages"),
    "an answer to go on with": (
        {"messages": [*said("Hi"), {"role": "assistant", "content": "Hel"}]},
        "messages",
    ),
    "a result of no call": (
        {"messages": [*said("Hi"), {"role": "tool", "tool_call_id": "x", "content": "y"}]},
        "messages.1.tool_call_id",
    ),
    "a hot temperature": ({"temperature": 3}, "temperature"),
    "a role that there is not": ({"messages": [{"role": "king", "content": "Hi"}]},
                                 "messages.0.role"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_what_would_change_the_answer_is_refused_by_its_name(
    start: Start, upstream: FakeOpenAI, name: str
) -> None:
    fields, param = REFUSED[name]

    code, body = await post(await start(), json.dumps({"messages": said("Hi"), **fields}).encode())

    assert (code, body["error"]["param"]) == (400, param)
    assert (body["error"]["type"], body["error"]["code"]) == (
        "invalid_request_error",
        "bad_request",
    )
    assert upstream.bodies == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"NaN", b"\xff", b"[" * 5000])
async def test_a_body_that_is_no_object_is_refused(start: Start, data: bytes) -> None:
    status, body = await post(await start(), data)

    assert (status, body["error"]["code"]) == (400, "invalid_json")


async def test_a_body_may_have_four_megabytes_and_no_more(
    start: Start, upstream: FakeOpenAI
) -> None:
    app = await start()
    largest = json.dumps({"messages": said("Hi")}).encode().ljust(4 * 1024 * 1024)

    taken, _ = await post(app, BytesIO(largest))
    refused, body = await post(app, BytesIO(largest + b" "))
    in_pieces, _ = await post(app, pieces(largest + b" "))

    assert (taken, refused, in_pieces) == (200, 413, 413)
    assert "4194304 bytes" in body["error"]["message"]
    assert len(upstream.bodies) == 1


# ---- what is left of it ---------------------------------------------------------------------


@pytest.mark.parametrize("store", [True, False])
async def test_nothing_is_left_of_it_unless_the_app_says_so(
    start: Start, join: Join, knock: Knock, store: bool
) -> None:
    app = await start()
    window = await join(app, events=["runs"])
    headers = {"X-Sidecar-Store": "true"} if store else {}

    await (await knock(app)).chat.completions.create(
        model="fake/test", messages=said("Hi"), extra_headers=headers
    )
    run = (await window.event(RunsEnded)).data

    if store:
        replayed = await window.resume(run.run_id)
        assert (await replayed.finished()).conversation_id == run.conversation_id
        follow_up = await window.chat("And?", conversation_id=run.conversation_id)
        assert (await follow_up.finished()).finish_reason == "stop"
        return
    with pytest.raises(ServerError, match="no such run"):
        await (await window.resume(run.run_id)).finished()
    with pytest.raises(ServerError, match="no conversation"):
        await (await window.chat("And?", conversation_id=run.conversation_id)).finished()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


async def post(app: App, data: Any) -> tuple[int, Any]:
    """Status and body of a question that is sent as it is."""
    bearer = {"Authorization": f"Bearer {app.token}"}
    async with (
        aiohttp.ClientSession(headers=bearer) as session,
        session.post(f"{app.http}/v1/chat/completions", data=data) as response,
    ):
        return response.status, await response.json()


async def lines_of(app: App, body: dict[str, Any]) -> list[str]:
    """The lines of a stream that have something on them."""
    bearer = {"Authorization": f"Bearer {app.token}"}
    async with (
        aiohttp.ClientSession(headers=bearer) as session,
        session.post(f"{app.http}/v1/chat/completions", json=body) as response,
    ):
        assert response.content_type == "text/event-stream"
        return [line for line in (await response.text()).splitlines() if line]

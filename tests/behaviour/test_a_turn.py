"""A person says something, a model answers."""

import asyncio
import json
from typing import Any

import pytest

from sidecar.client import Client, ServerError
from sidecar.messages import JsonObject
from sidecar.protocol.chunks import ReasoningChunk, RetryChunk, TextChunk, UsageChunk
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import (
    CUT,
    Answer,
    FakeOpenAI,
    chunk,
    ending,
    status,
    text,
    unfinished_text,
)


async def test_the_answer_is_shown_while_it_is_written(
    client: Client, upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(
        Answer([chunk(content="Once upon "), rest, chunk(content="a time"), ending("stop")])
    )
    run = await client.chat("Tell me a story")

    await run.text_so_far("Once upon ")
    rest.set()
    outcome = await run.finished()

    assert run.text == "Once upon a time"
    assert outcome.finish_reason == "stop"


async def test_a_second_message_is_sent_with_what_was_said_before(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("Hello Ada."), text("Your name is Ada."))
    first = await (await client.chat("I am Ada")).finished()

    await (await client.chat("Who am I?", conversation_id=first.conversation_id)).finished()

    said = [(message["role"], message["content"]) for message in upstream.bodies[1]["messages"]]
    assert said == [
        ("system", "You are a helpful assistant."),
        ("user", "I am Ada"),
        ("assistant", "Hello Ada."),
        ("user", "Who am I?"),
    ]


async def test_a_message_without_a_conversation_begins_a_new_one(
    client: Client, upstream: FakeOpenAI
) -> None:
    first = await (await client.chat("one")).finished()
    second = await (await client.chat("two")).finished()

    assert first.conversation_id != second.conversation_id
    assert [message["content"] for message in upstream.bodies[1]["messages"][1:]] == ["two"]


async def test_a_message_can_replace_an_earlier_one(client: Client, upstream: FakeOpenAI) -> None:
    first = await client.chat("a cat")
    conversation_id = (await first.finished()).conversation_id
    question_id = (await first.started()).user_message_id

    again = await client.chat("a dog", conversation_id=conversation_id, replaces=question_id)
    await again.finished()

    assert [message["content"] for message in upstream.bodies[1]["messages"][1:]] == ["a dog"]


async def test_a_message_can_branch_below_an_earlier_answer(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("A1"), text("A2"), text("A3"))
    first = await (await client.chat("Q1")).finished()
    same = {"conversation_id": first.conversation_id}
    await (await client.chat("Q2", **same)).finished()

    await (await client.chat("Q3", parent_id=first.message_id, **same)).finished()

    contents = [message["content"] for message in upstream.bodies[2]["messages"][1:]]
    assert contents == ["Q1", "A1", "Q3"]


async def test_reasoning_and_usage_are_chunks_of_their_own(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(
        Answer(
            [
                chunk(reasoning_content="Hm. "),
                chunk(content="4"),
                ending("stop", prompt_tokens=7, completion_tokens=3),
            ]
        )
    )
    run = await client.chat("2 + 2")
    outcome = await run.finished()

    chunks = [chunk async for chunk in run]
    assert [type(chunk) for chunk in chunks] == [ReasoningChunk, TextChunk, UsageChunk]
    assert chunks[0].data == "Hm. "
    assert (outcome.usage.input, outcome.usage.output) == (7, 3)


async def test_parameters_reach_the_vendor_and_only_those_that_were_set(
    client: Client, upstream: FakeOpenAI
) -> None:
    params: JsonObject = {"temperature": 0.5, "max_tokens": 7, "stop": ["END"]}
    await (await client.chat("Hi", params=params, system_prompt="Be brief.")).finished()

    body = upstream.bodies[0]
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.5, 7, ["END"])
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "top_p" not in body


async def test_every_frame_of_a_run_is_numbered_without_gaps(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    frames: list[Any] = []
    client = await join(await start(), on_frame=frames.append)
    frames.clear()
    upstream.will(text(*(f"word{n} " for n in range(200))))
    await (await client.chat("Talk")).finished()

    covered = [
        seq
        for frame in frames
        for seq in range(frame.get("seq_from", frame["seq"]), frame["seq"] + 1)
    ]
    assert covered == list(range(covered[-1] + 1))
    assert [frame["status"] for frame in frames if frame["status"] != "chunk"] == [
        "processing",
        "complete",
    ]


async def test_a_vendors_error_ends_the_run_with_its_code_and_what_to_do(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(status(401, "Incorrect API key provided"))
    run = await client.chat("Hi")

    with pytest.raises(ServerError) as caught:
        await run.finished()

    assert caught.value.code == "key_rejected"
    assert caught.value.error_info.provider == "fake"
    assert "sidecar keys set fake" in str(caught.value)


async def test_a_conversation_goes_on_after_an_error(client: Client, upstream: FakeOpenAI) -> None:
    upstream.will(status(400, "bad"), text("Here I am."))
    failed = await client.chat("Hi")
    conversation_id = (await failed.started()).conversation_id
    with pytest.raises(ServerError):
        await failed.finished()

    again = await client.chat("Are you there?", conversation_id=conversation_id)

    assert (await again.finished()).finish_reason == "stop"
    assert again.text == "Here I am."


async def test_a_stream_that_breaks_off_is_an_error_and_keeps_what_was_shown(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished_text("Half an ", then=CUT), text("Whole."))
    run = await client.chat("Hi")
    conversation_id = (await run.started()).conversation_id
    with pytest.raises(ServerError) as caught:
        await run.finished()
    assert caught.value.code in ("provider_bad_response", "network_unreachable")

    await (await client.chat("Go on", conversation_id=conversation_id)).finished()

    contents = [message["content"] for message in upstream.bodies[1]["messages"][1:]]
    assert contents == ["Hi", "Half an ", "Go on"]


async def test_a_retry_is_shown_and_then_forgotten(client: Client, upstream: FakeOpenAI) -> None:
    upstream.will(status(429, "slow down", {"retry-after-ms": "1"}), text("Now."))
    run = await client.chat("Hi")
    await run.finished()

    retries = [chunk async for chunk in run if isinstance(chunk, RetryChunk)]
    assert [retry.metadata.error_info.code for retry in retries] == ["rate_limited"]
    assert run.text == "Now."


async def test_a_refusal_ends_the_turn_as_one(client: Client, upstream: FakeOpenAI) -> None:
    upstream.will(Answer([chunk(refusal="I won't."), ending("stop")]))
    run = await client.chat("Do harm")

    assert (await run.finished()).finish_reason == "refusal"
    assert run.text == "I won't."


@pytest.mark.parametrize(
    ("fields", "code", "hint"),
    [
        ({"model": "nowhere/x"}, "model_not_found", "nowhere"),
        ({"model": "gpt-4o"}, "bad_request", "provider/model"),
        ({"conversation_id": "gone"}, "not_found", "gone"),
        ({"parent_id": "m"}, "bad_request", "conversation_id"),
        ({"text": "   "}, "bad_request", "empty"),
        ({"parts": [{"type": "text", "text": "both"}]}, "bad_request", "text or parts"),
    ],
)
async def test_a_chat_that_cannot_be_served_says_why(
    client: Client, fields: dict[str, object], code: str, hint: str
) -> None:
    run = await client.chat(**{"text": "Hi", **fields})  # type: ignore[arg-type]

    with pytest.raises(ServerError) as caught:
        await run.finished()

    assert caught.value.code == code
    assert hint in str(caught.value)


async def test_without_a_key_the_answer_names_the_ways_out(start: Start, join: Join) -> None:
    client = await join(await start("chat: {model: openai/gpt-4o-mini}"))
    run = await client.chat("Hi")

    with pytest.raises(ServerError) as caught:
        await run.finished()

    assert caught.value.code == "key_missing"
    assert "sidecar keys set openai" in str(caught.value)
    assert "--demo" in str(caught.value)


async def test_a_delta_too_long_for_a_frame_is_sent_in_pieces(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    sizes = []
    app = await start()
    client = await join(app, on_frame=lambda frame: sizes.append(len(json.dumps(frame))))
    upstream.will(text("\u0001" * 300_000))
    run = await client.chat("Talk")
    await run.finished()

    assert run.text == "\u0001" * 300_000
    assert max(sizes) < 512 * 1024

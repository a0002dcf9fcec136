"""A conversation may be longer than what its model reads."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sidecar.client import Client, Run, ServerError, connect
from sidecar.protocol.chunks import NoticeChunk, UsageChunk
from sidecar.protocol.conversations import (
    ConversationPayload,
    ConversationsCompact,
    ConversationsGet,
    ConversationsGetPayload,
    ConversationsUpdated,
)
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import Answer, FakeOpenAI, status, text
from tests.support.world import running, world

WINDOW = 4000
OVERFLOW = status(400, "This is too long.", code="context_length_exceeded")


def with_window(upstream: FakeOpenAI, window: int = WINDOW, chat: str = "") -> tuple[str, str]:
    provider = f"{{kind: openai_compatible, base_url: '{upstream.url}', context: {window}}}"
    return f"providers: {{fake: {provider}}}", f"chat: {{model: fake/test{chat}}}"


def notices(run: Run) -> list[str]:
    chunks = [frame.chunk for frame in run.frames]
    return [chunk.metadata.code for chunk in chunks if isinstance(chunk, NoticeChunk)]


def asked(upstream: FakeOpenAI, which: int = -1) -> list[str]:
    """What the person and the model said, as the vendor was told."""
    messages: list[dict[str, Any]] = upstream.bodies[which]["messages"]
    return [flat(message["content"]) for message in messages if message["role"] != "system"]


def flat(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


async def test_the_window_is_told_with_every_step(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start(*with_window(upstream)))
    upstream.will(text("Hi.", prompt_tokens=100, completion_tokens=20))

    run = await client.chat("hello")
    outcome = await run.finished()

    [usage] = [frame.chunk for frame in run.frames if isinstance(frame.chunk, UsageChunk)]
    assert usage.metadata.context is not None
    assert (usage.metadata.context.used, usage.metadata.context.limit) == (120, WINDOW)
    assert outcome.usage.context == usage.metadata.context


async def test_a_conversation_that_fills_its_window_is_summarised_before_the_next_question(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start(*with_window(upstream)))
    upstream.will(
        text("Long.", prompt_tokens=3000, completion_tokens=190),
        text("A summary of cats."),
        text("Short."),
    )
    first = await (await client.chat("tell me about cats")).finished()

    run = await client.chat("and dogs?" + "!" * 300, conversation_id=first.conversation_id)
    await run.finished()

    assert notices(run) == ["context_compacting", "context_compacted"]
    assert asked(upstream, 1)[:2] == ["tell me about cats", "Long."]
    [question] = asked(upstream)
    assert "A summary of cats." in question and "and dogs?" in question
    found = await client.request(
        ConversationsGet, ConversationsGetPayload(conversation_id=first.conversation_id)
    )
    kinds = [message.parts[0].type for message in found.messages]
    assert kinds == ["text", "text", "summary", "text", "text"]
    assert [each.parent_id for each in found.messages[1:]] == [
        each.message_id for each in found.messages[:-1]
    ]


async def test_a_summary_that_fails_does_not_fail_the_chat(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start(*with_window(upstream)))
    upstream.will(
        text("Long.", prompt_tokens=3300, completion_tokens=190),
        status(400, "no"),
        text("Short."),
    )
    first = await (await client.chat("tell me about cats")).finished()

    run = await client.chat("and dogs?", conversation_id=first.conversation_id)
    await run.finished()

    assert run.text == "Short."
    assert notices(run)[:2] == ["context_compacting", "context_not_compacted"]


async def test_without_summaries_the_oldest_exchanges_are_left_out(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start(*with_window(upstream, chat=", compact_at: null")))
    upstream.will(
        text("One.", prompt_tokens=2000, completion_tokens=10),
        text("Two.", prompt_tokens=3000, completion_tokens=10),
        text("Three."),
    )
    at = (await (await client.chat("1" * 6000)).finished()).conversation_id
    await (await client.chat("2" * 3000, conversation_id=at)).finished()

    run = await client.chat("3" * 3000, conversation_id=at)
    await run.finished()

    assert notices(run) == ["context_trimmed"]
    assert [said[0] for said in asked(upstream)] == ["2", "T", "3"]


async def test_what_the_vendor_says_is_too_long_is_asked_again_with_less(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("One."), text("Two."), OVERFLOW, text("Three."))
    at = (await (await client.chat("first")).finished()).conversation_id
    await (await client.chat("second", conversation_id=at)).finished()

    run = await client.chat("third", conversation_id=at)
    await run.finished()

    assert run.text == "Three."
    assert notices(run) == ["context_trimmed"]
    assert "first" not in asked(upstream)
    assert asked(upstream)[-1] == "third"


async def test_one_message_that_is_too_long_is_an_error_that_says_so(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(OVERFLOW)

    with pytest.raises(ServerError) as refused:
        await (await client.chat("a book")).finished()

    assert refused.value.code == "context_too_long"
    assert len(upstream.bodies) == 1


async def test_a_person_can_ask_for_a_summary(client: Client, upstream: FakeOpenAI) -> None:
    upstream.will(text("Purr."), text("About cats."), text("Woof."))
    at = (await (await client.chat("cats")).finished()).conversation_id

    made = await client.request(ConversationsCompact, ConversationPayload(conversation_id=at))

    found = await client.request(ConversationsGet, ConversationsGetPayload(conversation_id=at))
    assert found.head == made.message_id
    await (await client.chat("dogs", conversation_id=at)).finished()
    [question] = asked(upstream)
    assert "About cats." in question and question.endswith("dogs")


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        (text('"Cats and their  sounds."'), "Cats and their sounds"),
        (status(500, "no"), "tell me about cats"),
        (text(" "), "tell me about cats"),
    ],
)
async def test_a_model_that_costs_nothing_gives_the_conversation_a_title(
    tmp_path: Path, upstream: FakeOpenAI, answer: Answer, title: str
) -> None:
    settings = "\n".join(with_window(upstream, chat=", max_retries: 0"))
    place = world(tmp_path, settings, environ={"SIDECAR_CHAT__TITLES": "model"})
    upstream.will(text("Purr."), answer)
    async with running(place) as app, connect(app.url, app.token, events=["*"]) as client:
        at = (await (await client.chat("tell me about cats")).finished()).conversation_id
        async with asyncio.timeout(10):
            while len(upstream.bodies) < 2:
                upstream.arrived.clear()
                await upstream.arrived.wait()
            if title.startswith("Cats"):
                while (await client.event(ConversationsUpdated)).data.title != title:
                    pass

        found = await client.request(ConversationsGet, ConversationsGetPayload(conversation_id=at))
        assert found.conversation.title == title

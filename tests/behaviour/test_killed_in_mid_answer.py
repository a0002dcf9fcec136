"""A sidecar that is killed loses nothing that was complete, and half a second of the rest."""

import asyncio
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from sidecar.client import Client, ConnectionLost, ServerError
from sidecar.messages import Message
from sidecar.protocol.chunks import SnapshotChunk
from sidecar.protocol.conversations import (
    Conversation,
    ConversationsGet,
    ConversationsGetPayload,
    ConversationsList,
    ConversationsListPayload,
)
from tests.behaviour.conftest import PLAIN
from tests.support.fake_openai import (
    HANG,
    Answer,
    FakeOpenAI,
    Step,
    chunk,
    ending,
    text,
    tool_calls,
    unfinished_text,
)
from tests.support.processes import PATIENCE_S, Sidecar, spawned

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")

LIVES = 10
TURNS = 5  # of each life, all cut at once, each at another moment of its own
SAVED_WITHIN_S = 0.5
WORDS = 400
TICK_S = 0.005
SHORT = "a short one"


class Pace:
    """Words that come one after the other while the clock ticks; `lag_s` is how late it was."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        self._ticks = [asyncio.Event() for _ in range(WORDS)]

    def story(self, name: str, skip: int) -> Answer:
        steps: list[Step] = []
        for number, tick in enumerate(self._ticks[skip:]):
            steps += [tick, chunk(content=f"{name}.{number} ")]
        return Answer([*steps, ending("stop")])

    async def run(self) -> None:
        for tick in self._ticks:
            due = monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.lag_s = max(self.lag_s, monotonic() - due)
            tick.set()


class Seen:
    """What a window has shown of one answer, and when."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, str]] = []
        self.has_result = False
        self.conversation_id = ""
        self.is_complete = False

    async def watch(self, client: Client, question: str) -> None:
        run = await client.chat(question)
        self.conversation_id = (await run.started()).conversation_id
        with suppress(ConnectionLost):
            async for piece in run:
                if piece.type == "text":
                    self.pieces.append((monotonic(), piece.data))
                self.has_result |= piece.type == "tool_result"
            await run.finished()
            self.is_complete = True

    def text_before(self, moment: float) -> str:
        return "".join(piece for at, piece in self.pieces if at < moment)


@asynccontextmanager
async def alive(home: Path, settings: str) -> AsyncIterator[tuple[Sidecar, Client]]:
    async with spawned(home, "--managed", settings=settings) as sidecar:
        await sidecar.first_line()
        async with sidecar.client() as client:
            yield sidecar, client


async def listed(client: Client) -> dict[str, Conversation]:
    page = await client.request(ConversationsList, ConversationsListPayload(limit=100))
    return {item.conversation_id: item for item in page.items}


async def messages_of(client: Client, conversation_id: str) -> tuple[Message, ...]:
    asked = ConversationsGetPayload(conversation_id=conversation_id)
    return (await client.request(ConversationsGet, asked)).messages


def answers(pace: Pace) -> Callable[[dict[str, Any]], Answer]:
    """A tool call, then a story at the clock's pace; or everything at once."""

    def choose(body: dict[str, Any]) -> Answer:
        question = next(each["content"] for each in body["messages"] if each["role"] == "user")
        if question == SHORT:
            return text("All of it.")
        if body["messages"][-1]["role"] == "user":
            return tool_calls(("plain__echo", {"text": question}))
        return pace.story(
            question.replace(" ", "."), skip=int(question.removeprefix("story ")) * 40
        )

    return choose


@dataclass
class Life:
    """What a person has seen of one, up to its end."""

    before: dict[str, Conversation]
    whole: Seen
    cut: list[Seen]
    saved_until: float

    async def judge(self, client: Client) -> None:
        now = await listed(client)
        assert {each: now[each] for each in self.before} == self.before
        assert all(conversation.run_id is None for conversation in now.values())
        [_, answer] = await messages_of(client, self.whole.conversation_id)
        assert (answer.text, answer.status) == ("All of it.", "complete")
        for turn in self.cut:
            is_there = turn.conversation_id in now
            messages = await messages_of(client, turn.conversation_id) if is_there else ()
            judge(turn, messages, self.saved_until)


async def cut_short(
    sidecar: Sidecar, client: Client, upstream: FakeOpenAI, chance: random.Random
) -> Life:
    """A turn is answered, then several more are cut at once."""
    pace, whole, cut = Pace(), Seen(), [Seen() for _ in range(TURNS)]
    upstream.will_choose(answers(pace))
    before = await listed(client)
    await whole.watch(client, SHORT)
    async with asyncio.TaskGroup() as group:
        for number, turn in enumerate(cut):
            group.create_task(turn.watch(client, f"story {number}"))
        ticking = group.create_task(pace.run())
        await asyncio.sleep(chance.uniform(0, WORDS * TICK_S))  # the moment is the point
        sidecar.send(signal.SIGKILL)
        killed_at = monotonic()
        await sidecar.process.wait()
        ticking.cancel()
    return Life(before, whole, cut, killed_at - SAVED_WITHIN_S - pace.lag_s)


def judge(seen: Seen, messages: tuple[Message, ...], saved_until: float) -> None:
    shown, everything = seen.text_before(saved_until), seen.text_before(float("inf"))
    assert [message.role for message in messages] in ([], ["user"], ["user", "assistant"])
    if len(messages) < 2:
        assert not shown
        return
    answer = messages[1]
    assert answer.text.startswith(shown), f"{len(shown)} were shown, {len(answer.text)} are kept"
    if seen.is_complete:
        assert (answer.text, answer.status) == (everything, "complete")
    assert answer.status in ("complete", "interrupted")
    calls = [part.tool_call_id for part in answer.parts if part.type == "tool_call"]
    results = [part.tool_call_id for part in answer.parts if part.type == "tool_result"]
    assert calls == results
    words = answer.text.split()
    assert len(set(words)) == len(words)  # nothing is there twice


async def test_fifty_turns_cut_at_random_moments(tmp_path: Path, upstream: FakeOpenAI) -> None:
    chance = random.Random(20)  # another seed is as good
    last: Life | None = None
    for _ in range(LIVES):
        async with alive(tmp_path, settings(upstream)) as (sidecar, client):
            if last is not None:
                await last.judge(client)
            last = await cut_short(sidecar, client, upstream, chance)
        with closing(sqlite3.connect(tmp_path / "data/sidecar/conversations.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    async with alive(tmp_path, settings(upstream)) as (_, client):
        assert last is not None
        await last.judge(client)


async def test_a_retry_of_a_cut_turn_is_answered_with_what_is_left_of_it(
    tmp_path: Path, upstream: FakeOpenAI
) -> None:
    """It never starts again by itself: what its tools did may have taken effect."""
    key = str(uuid4())
    upstream.will(unfinished_text("Once ", "upon", then=HANG))
    async with alive(tmp_path, settings(upstream)) as (sidecar, client):
        run = await client.chat("a story", retry_key=key)
        await run.text_so_far("Once upon")
        conversation_id = (await run.started()).conversation_id
        async with asyncio.timeout(PATIENCE_S):
            while (await messages_of(client, conversation_id))[-1].text != "Once upon":  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a write to the disk is no event
        sidecar.send(signal.SIGKILL)
        await sidecar.process.wait()

    async with alive(tmp_path, settings(upstream)) as (_, client):
        retried = await client.chat("a story", retry_key=key)
        with pytest.raises(ServerError) as cut:
            await retried.finished()

    assert cut.value.code == "interrupted"
    [_, shown] = retried.frames
    assert isinstance(shown.chunk, SnapshotChunk)
    assert shown.chunk.metadata.message.text == "Once upon"
    assert len(upstream.bodies) == 1


def settings(upstream: FakeOpenAI) -> str:
    server = f"{{command: '{sys.executable}', args: ['{PLAIN}'], allow: [echo]}}"
    return (
        f"providers: {{fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}}}\n"
        f"chat: {{model: fake/test}}\nmcp: {{servers: {{plain: {server}}}}}"
    )

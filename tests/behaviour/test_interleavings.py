"""However windows come, go and come back, they show one text and one end."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from sidecar.app import App
from sidecar.client import Client, Run, connect
from sidecar.protocol.conversations import ConversationsGet, ConversationsGetPayload
from tests.behaviour.conftest import Start
from tests.support.fake_openai import Answer, FakeOpenAI, Step, chunk, ending

WORDS = 60
STEPS = 40


class Window:
    """A window that keeps what it shows over its reconnects, as a page does."""

    def __init__(self, app: App, run_id: str) -> None:
        self.text = ""
        self.ends = 0
        self._app = app
        self._run_id = run_id
        self._seq = -1
        self._stack = AsyncExitStack()
        self._run: Run | None = None
        self._taken = 0

    async def come(self) -> None:
        if self._run is None:
            client = await self._stack.enter_async_context(connect(self._app.url, self._app.token))
            self._run, self._taken = await client.resume(self._run_id, self._seq), 0

    async def go(self) -> None:
        self._take()
        self._run = None
        await self._stack.aclose()

    async def end(self) -> str:
        """Stay until the run is over; its finish_reason."""
        await self.come()
        assert self._run is not None
        outcome = await self._run.finished()
        self._take()
        self.ends += 1
        await self._stack.aclose()
        return outcome.finish_reason

    def _take(self) -> None:
        assert self._run is not None
        for frame in self._run.frames[self._taken :]:
            first = getattr(frame, "seq_from", None) or frame.seq
            assert first == self._seq + 1  # nothing twice, nothing left out
            self._seq = frame.seq
            if frame.chunk.type == "text":
                self.text += frame.chunk.data


@pytest.mark.parametrize("seed", range(20))
async def test_any_interleaving_shows_one_text_and_one_end(
    start: Start, upstream: FakeOpenAI, seed: int
) -> None:
    chance = random.Random(seed)
    app = await start()
    words = [asyncio.Event() for _ in range(WORDS)]
    steps: list[Step] = []
    for number, word in enumerate(words):
        steps += [word, chunk(content=f"{number} ")]
    upstream.will(Answer([*steps, ending("stop")]))
    said = iter(words)
    is_cancelled = False

    async with connect(app.url, app.token) as first:
        run = await first.chat("count")
        started = await run.started()
        windows = [Window(app, started.run_id) for _ in range(3)]
        for _ in range(STEPS):
            match chance.choice(("word", "word", "word", "come", "go", "cancel", "breathe")):
                case "word":
                    if (said_next := next(said, None)) is not None:
                        said_next.set()
                case "come":
                    await chance.choice(windows).come()
                case "go":
                    window = chance.choice(windows)
                    await window.come()
                    await window.go()
                case "cancel" if seed % 2 and not is_cancelled and chance.random() < 0.2:
                    is_cancelled = await first.cancel(run)
                case _:
                    await asyncio.sleep(0)
    for word in words:
        word.set()

    reasons = {await window.end() for window in windows}

    async with connect(app.url, app.token) as last:
        answer = await kept(last, started.conversation_id)
    assert {window.text for window in windows} == {answer}
    assert reasons == {"cancelled" if is_cancelled else "stop"}
    assert [window.ends for window in windows] == [1, 1, 1]
    if not is_cancelled:
        assert answer == "".join(f"{number} " for number in range(WORDS))


async def kept(client: Client, conversation_id: str) -> str:
    asked = ConversationsGetPayload(conversation_id=conversation_id)
    found = await client.request(ConversationsGet, asked)
    return found.messages[-1].text if found.messages[-1].role == "assistant" else ""

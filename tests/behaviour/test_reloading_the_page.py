"""A run belongs to the sidecar: windows come, go and come back."""

import asyncio
import json
from uuid import uuid4

import pytest

from sidecar.app import App
from sidecar.client import Client, Run, ServerError, connect
from sidecar.protocol.chunks import SnapshotChunk
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import HANG, Answer, FakeOpenAI, chunk, ending, text, unfinished_text


@pytest.fixture
async def app(start: Start) -> App:
    return await start()


@pytest.fixture
async def client(app: App, join: Join) -> Client:
    return await join(app, events=["runs"])


def seqs(run: Run) -> list[int]:
    return [
        seq
        for frame in run.frames
        for seq in range(getattr(frame, "seq_from", None) or frame.seq, frame.seq + 1)
    ]


async def test_a_run_goes_on_without_its_window_and_is_found_by_the_next(
    app: App, client: Client, upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(Answer([chunk(content="Once "), rest, chunk(content="upon"), ending("stop")]))
    async with connect(app.url, app.token) as window:
        run = await window.chat("tell me a story")
        await run.text_so_far("Once ")
        seen = run.seq

    async with connect(app.url, app.token) as window:
        assert window.hello is not None
        [known] = window.hello.runs
        assert known.run_id == run.run_id
        resumed = await window.resume(known.run_id, seen)
        rest.set()
        await resumed.finished()

        assert resumed.text == "upon"
        assert seqs(resumed)[0] == seen + 1


async def test_several_windows_see_the_same_run(
    client: Client, app: App, join: Join, upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(Answer([chunk(content="Once "), rest, chunk(content="upon"), ending("stop")]))
    run = await client.chat("tell me a story")
    await run.text_so_far("Once ")
    other = await (await join(app)).resume((await run.started()).run_id)
    await other.text_so_far("Once ")

    rest.set()

    assert await run.finished() == await other.finished()
    assert run.text == other.text == "Once upon"
    assert seqs(other) == list(range(run.seq))


async def test_an_ended_run_can_be_replayed(client: Client, upstream: FakeOpenAI) -> None:
    upstream.will(text("Once ", "upon"))
    run = await client.chat("tell me a story")
    outcome = await run.finished()

    replayed = await client.resume(outcome.run_id)

    assert await replayed.finished() == outcome
    assert replayed.text == "Once upon"


async def test_what_the_log_no_longer_has_comes_as_a_snapshot_that_fits_a_frame(
    client: Client, app: App, join: Join, upstream: FakeOpenAI
) -> None:
    pieces = [f"{n:06d}" + "x" * 50_000 for n in range(120)]
    upstream.will(text(*pieces))
    run = await client.chat("write a lot")
    outcome = await run.finished()
    sizes: list[int] = []
    other = await join(app, on_frame=lambda frame: sizes.append(len(json.dumps(frame))))

    late = await other.resume(outcome.run_id)

    assert await late.finished() == outcome
    first = late.frames[0].chunk
    assert isinstance(first, SnapshotChunk)
    assert first.metadata.truncated
    assert run.text.endswith(late.text)
    assert max(sizes) < 512 * 1024


async def test_a_run_of_another_sidecar_is_not_found(client: Client) -> None:
    lost = await client.resume(uuid4().hex)

    with pytest.raises(ServerError) as caught:
        await lost.finished()

    assert caught.value.code == "not_found"


async def test_the_same_message_sent_again_attaches_to_its_run(
    client: Client, app: App, join: Join, upstream: FakeOpenAI
) -> None:
    retry_key = str(uuid4())
    first = await client.chat("pay the bill", retry_key=retry_key)
    outcome = await first.finished()

    again = await (await join(app)).chat("pay the bill", retry_key=retry_key)

    assert await again.finished() == outcome
    assert len(upstream.requests) == 1


async def test_a_retry_key_is_for_one_message_only(client: Client, upstream: FakeOpenAI) -> None:
    retry_key = str(uuid4())
    await (await client.chat("one", retry_key=retry_key)).finished()

    with pytest.raises(ServerError) as caught:
        await (await client.chat("two", retry_key=retry_key)).finished()

    assert caught.value.code == "duplicate_request"


async def test_a_run_may_end_with_its_last_window(app: App, upstream: FakeOpenAI) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))
    async with connect(app.url, app.token) as window:
        run = await window.chat("tell me a story", on_disconnect="cancel")
        await run.text_so_far("Once ")

    async with asyncio.timeout(5):
        await upstream.hung_up.wait()

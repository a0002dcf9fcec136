"""Many turns on one socket, and what each of them leaves alone."""

import asyncio

import pytest

from sidecar.client import ServerError
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import HANG, FakeOpenAI, status, text, unfinished_text


async def test_ten_turns_on_one_socket_one_fails_one_is_cancelled_the_rest_complete(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    frames: list[dict[str, object]] = []
    client = await join(await start(), on_frame=frames.append)
    frames.clear()
    upstream.will(
        status(401, "no"),
        unfinished_text("Once ", then=HANG),
        *(text(*(f"{n} " for n in range(50))) for _ in range(8)),
    )
    failing = await client.chat("fails")
    with pytest.raises(ServerError):
        await failing.finished()
    cancelled = await client.chat("is cancelled")
    await cancelled.text_so_far("Once ")
    rest = [await client.chat(f"completes {n}") for n in range(8)]
    await client.cancel(cancelled)
    async with asyncio.timeout(10):
        outcomes = [await run.finished() for run in (cancelled, *rest)]

    assert [outcome.finish_reason for outcome in outcomes] == ["cancelled", *["stop"] * 8]
    for run in (failing, cancelled, *rest):
        own = [frame for frame in frames if frame["request_id"] == run.request_id]
        ends = [frame for frame in own if frame["status"] in ("complete", "error")]
        assert ends == [own[-1]]
        numbers = [
            seq
            for frame in own
            for seq in range(
                int(str(frame.get("seq_from", frame["seq"]))), int(str(frame["seq"])) + 1
            )
        ]
        assert numbers == list(range(len(numbers)))


async def test_the_thirty_third_run_is_refused_and_the_others_go_on(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    app = await start()
    client, other = await join(app), await join(app)
    upstream.will(unfinished_text("Once ", then=HANG))
    runs = [await client.chat(f"story {n}") for n in range(32)]
    for run in runs:
        await run.started()

    with pytest.raises(ServerError) as caught:
        await (await client.chat("one more")).finished()

    assert caught.value.code == "overloaded"
    assert caught.value.error_info.retryable
    for run in runs:
        assert await other.cancel(run)

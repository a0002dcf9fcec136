"""What real vendors have said, through the whole sidecar, to the origin project's own loop.

The recordings lie beside the repository and not in it; `tests/providers/streams` has a few of our
own, which stand in for them. Refusal, rate limit and quota are written by hand.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.conftest import Start
from tests.behaviour.test_the_base_protocol import connected
from tests.support.fake_openai import (
    Answer,
    FakeOpenAI,
    chunk,
    ending,
    event,
    random_cuts,
    status,
    stream,
    text,
)

RECORDED = Path(__file__).parents[3] / "shared" / "captures" / "dev"
OWN = Path(__file__).parents[1] / "providers" / "streams"
KINDS = ("openai_compatible", "openai, api: chat")
SPOKEN = {"openai-chat": KINDS, "openai-responses": ("openai",)}
NAMES = [
    (path.name, kind)
    for format, kinds in SPOKEN.items()
    for path in sorted(RECORDED.glob(f"{format}--*.json"))
    for kind in kinds
]

Frames = list[dict[str, Any]]


async def say(start: Start, upstream: FakeOpenAI, kind: str, retries: int = 0) -> Frames:
    """One message in basic mode; the frames that answer it. `kind` may have more settings."""
    provider = f"{{kind: {kind}, base_url: '{upstream.url}', api_key: '${{KEY}}'}}"
    chat = f"{{model: fake/m, max_retries: {retries}}}"
    app = await start(f"providers: {{fake: {provider}}}", f"chat: {chat}")
    async with connected(app) as origin:
        return await origin.chat("Hi")


def said(frames: Frames) -> str:
    return "".join(each["data"] for each in chunks(frames, "text"))


def chunks(frames: Frames, kind: str) -> list[dict[str, Any]]:
    shown = [frame["chunk"] for frame in frames if frame["status"] == "chunk"]
    return [each for each in shown if each["type"] == kind]


@pytest.mark.skipif(not NAMES, reason="the recorded streams are not beside the repository")
@pytest.mark.parametrize(("name", "kind"), NAMES or [("none", "demo")])
async def test_a_recorded_answer_arrives_as_its_vendor_meant_it(
    start: Start, upstream: FakeOpenAI, name: str, kind: str
) -> None:
    recording = json.loads((RECORDED / name).read_text("utf-8"))
    index = json.loads((RECORDED / "index.json").read_text("utf-8"))
    expected = next(entry["expect"] for entry in index if entry["file"] == name)
    response = recording["response"]
    body = response["body"].encode()
    if response["status"] == 200:
        recorded = stream(body, cut_at=random_cuts(body, seed=len(body)))
    else:
        recorded = Answer([body], response["status"], {}, "application/json")
    after_the_calls = (
        Answer([event({"type": "response.completed"})]) if kind == "openai" else text("")
    )
    upstream.will(recorded, after_the_calls)

    frames = await say(start, upstream, kind)

    assert [frame["status"] for frame in frames][:: len(frames) - 1] == [
        "processing",
        "error" if expected["error"] else "complete",
    ]
    calls = [
        (call["name"], call.get("invalid_arguments") or call["arguments"])
        for call in (each["metadata"] for each in chunks(frames, "tool_call"))
    ]
    assert calls == [(call["name"], call["arguments"]) for call in expected["tool_calls"]]
    assert len(said(frames)) == expected["text_len"]
    if expected.get("text"):
        assert said(frames) == expected["text"]
    if expected["error"]:
        assert expected["error"]["message"].split(".")[0] in frames[-1]["error"]


@pytest.mark.parametrize("kind", KINDS)
async def test_our_own_streams_arrive_too(start: Start, upstream: FakeOpenAI, kind: str) -> None:
    upstream.will(stream((OWN / "text.sse").read_bytes()))

    frames = await say(start, upstream, kind)

    assert said(frames)
    assert frames[-1]["status"] == "complete"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_is_shown_and_named(start: Start, upstream: FakeOpenAI, kind: str) -> None:
    upstream.will(Answer([chunk(refusal="I can't help with that."), ending("stop")]))

    frames = await say(start, upstream, kind)

    assert said(frames) == "I can't help with that."
    assert frames[-1]["result"]["finish_reason"] == "refusal"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rate_limit_is_waited_for_when_it_is_short(
    start: Start, upstream: FakeOpenAI, kind: str
) -> None:
    upstream.will(status(429, "Rate limit reached", {"retry-after": "0"}), text("Now."))

    assert said(await say(start, upstream, kind, retries=1)) == "Now."


@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_rate_limit_is_told_at_once_with_its_wait(
    start: Start, upstream: FakeOpenAI, kind: str
) -> None:
    upstream.will(status(429, "Rate limit reached", {"retry-after": "90"}))

    last = (await say(start, upstream, kind, retries=3))[-1]

    assert last["error_info"]["code"] == "rate_limited"
    assert last["error_info"]["retry_after_ms"] == 90_000
    assert "90 s" in last["error"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_exhausted_quota_is_never_tried_again(
    start: Start, upstream: FakeOpenAI, kind: str
) -> None:
    upstream.will(status(429, "You exceeded your current quota", code="insufficient_quota"))

    last = (await say(start, upstream, kind, retries=3))[-1]

    assert last["error_info"]["code"] == "quota_exhausted"
    assert not last["error_info"]["retryable"]
    assert len(upstream.requests) == 1

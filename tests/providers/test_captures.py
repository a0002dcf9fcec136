"""Recorded answers of many vendors are read as an independent parser reads them."""

import hashlib
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ProviderError
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    UsageReport,
)
from sidecar.providers.dialects.chat_completions import ChatCompletionsStream
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseDecoder
from tests.providers.conftest import Open, asking
from tests.support.fake_openai import Answer, FakeOpenAI, random_cuts, stream

CAPTURES = Path(__file__).parents[3] / "shared" / "captures" / "dev"


Row = dict[str, Any]


def recorded(of_status_200: bool) -> list[Any]:
    index = CAPTURES / "index.json"
    if not index.exists():
        reason = "the recorded streams are not part of the repository and are not beside it"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    rows = [row for row in json.loads(index.read_text()) if row["api"] == "openai-chat"]
    wanted = [row for row in rows if (row["status"] == 200) == of_status_200]
    return [pytest.param(row, id=row["file"].split("--", 1)[1]) for row in wanted]


@dataclass
class Seen:
    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    finished: list[Finished] = field(default_factory=list)
    error: ProviderError | None = None

    def take(self, event: ModelEvent) -> None:
        assert not self.finished, "nothing may follow Finished"
        match event:
            case TextDelta(text):
                self.text += text
            case ReasoningDelta(text):
                self.reasoning += text
            case ToolCall():
                self.calls.append(event)
            case UsageReport(usage):
                self.usage = usage.model_dump()
            case Finished():
                self.finished.append(event)


def purely(pieces: Iterable[bytes]) -> Seen:
    seen = Seen()
    decoder, machine = SseDecoder(), ChatCompletionsStream(Vendor("acme", "http://acme/v1"))
    try:
        for data in pieces:
            for sent in decoder.feed(data):
                for event in machine.feed(sent):
                    seen.take(event)
        for sent in decoder.end():
            for event in machine.feed(sent):
                seen.take(event)
        for event in machine.end():
            seen.take(event)
    except ProviderError as error:
        seen.error = error
    return seen


async def over_http(events: AsyncGenerator[ModelEvent, None]) -> Seen:
    seen = Seen()
    try:
        async with aclosing(events):
            async for event in events:
                seen.take(event)
    except ProviderError as error:
        seen.error = error
    return seen


def check(seen: Seen, row: Row) -> None:
    expect = row["expect"]
    if expect["error"]:
        assert seen.error is not None
        assert expect["error"]["message"] in str(seen.error)
        assert not seen.finished
    else:
        assert seen.error is None
        (finished,) = seen.finished
        assert finished.raw == expect["finish"]
        assert (finished.reason == "tool_calls") == bool(expect["tool_calls"])
    assert digest(seen.text) == expect["text_sha256"]
    if expect["reasoning_sha256"]:
        assert digest(seen.reasoning) == expect["reasoning_sha256"]
    else:
        assert seen.reasoning == ""
    assert [
        {"id": call.call_id, "name": call.name, "arguments": call.arguments} for call in seen.calls
    ] == expect["tool_calls"]
    usage = dict(expect["usage"] or {})
    if row["vendor"] == "xai":
        usage["output"] += usage["reasoning"]  # xAI counts them apart
    assert usage.items() <= seen.usage.items()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def body_of(row: Row) -> bytes:
    capture = json.loads((CAPTURES / row["file"]).read_text())
    body: str = capture["response"]["body"]
    return body.encode()


@pytest.mark.parametrize("row", recorded(of_status_200=True))
def test_a_recorded_stream_means_the_same_however_it_is_cut(row: Row) -> None:
    body = body_of(row)

    check(purely([body]), row)
    check(purely(body[i : i + 1] for i in range(len(body))), row)
    for seed in range(5):
        cuts = [0, *random_cuts(body, seed), len(body)]
        check(purely(body[a:b] for a, b in pairwise(cuts)), row)


@pytest.mark.parametrize("row", recorded(of_status_200=True))
async def test_a_recorded_stream_means_the_same_through_every_kind_of_provider(
    row: Row, upstream: FakeOpenAI, open_it: Open
) -> None:
    body = body_of(row)
    provider = open_it()
    upstream.will(stream(body), stream(body, cut_at=random_cuts(body, seed=1)))

    check(await over_http(provider.stream(asking())), row)
    check(await over_http(provider.stream(asking())), row)


@pytest.mark.parametrize("row", recorded(of_status_200=False))
async def test_a_recorded_refusal_keeps_its_status_and_its_words(
    row: Row, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(Answer([body_of(row)], row["status"], {}, "application/json"))

    seen = await over_http(open_it().stream(asking()))

    assert seen.error is not None
    assert seen.error.http_status == row["status"]
    assert row["expect"]["error"]["message"] in str(seen.error)

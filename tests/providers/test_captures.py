"""Recorded answers of many vendors are read as an independent parser reads them."""

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import ProviderKind
from sidecar.errors import ProviderError
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ProviderItem,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    UsageReport,
)
from sidecar.providers.dialects.base import Dialect
from sidecar.providers.dialects.chat_completions import ChatCompletions
from sidecar.providers.dialects.generate_content import GenerateContent
from sidecar.providers.dialects.messages import Messages
from sidecar.providers.dialects.responses import Responses
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseDecoder
from tests.providers.conftest import Open, asking
from tests.support.fake_openai import Answer, FakeOpenAI, random_cuts, stream

CAPTURES = Path(__file__).parents[3] / "shared" / "captures" / "dev"


Row = dict[str, Any]

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "openai-chat": lambda: ChatCompletions("acme", "max_tokens"),
    "openai-responses": lambda: Responses("acme"),
    "anthropic-messages": lambda: Messages("acme"),
    "gemini-generate": lambda: GenerateContent("acme"),
}
# The kinds of provider that speak a format, with what else their settings must say.
KINDS: dict[str, tuple[dict[str, Any], ...]] = {
    "openai-chat": ({"kind": "openai", "api": "chat"}, {"kind": "openai_compatible"}),
    "openai-responses": ({"kind": "openai", "api": "responses"},),
    "anthropic-messages": ({"kind": "anthropic"},),
    "gemini-generate": ({"kind": "gemini"},),
}


def recorded(of_status_200: bool) -> list[Any]:
    index = CAPTURES / "index.json"
    if not index.exists():
        reason = "the recorded streams are not part of the repository and are not beside it"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    rows = [row for row in json.loads(index.read_text()) if row["api"] in DIALECTS]
    wanted = [row for row in rows if (row["status"] == 200) == of_status_200]
    return [pytest.param(row, id=row["file"].removesuffix(".json")) for row in wanted]


@pytest.fixture
def kind() -> ProviderKind:
    """Each recording names the kinds that it is read through."""
    return "demo"


@dataclass
class Seen:
    text: str = ""
    reasoning: str = ""
    hidden: int = 0
    calls: list[ToolCall] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
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
                self.hidden += not text
            case ProviderItem(kind):
                self.items.append(kind)
            case ToolCall():
                self.calls.append(event)
            case UsageReport(usage):
                self.usage = usage.model_dump()
            case Finished():
                self.finished.append(event)


def purely(row: Row, pieces: Iterable[bytes]) -> Seen:
    seen = Seen()
    dialect = DIALECTS[row["api"]]()
    body = dialect.encode(asking(), {}).body
    decoder, machine = SseDecoder(), dialect.stream(Vendor("acme", "http://acme/v1"), body)
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
    assert [_call(call) for call in seen.calls] == [
        (wanted["name"], wanted["arguments"]) for wanted in expect["tool_calls"]
    ]
    for call, wanted in zip(seen.calls, expect["tool_calls"], strict=True):
        assert call.call_id == (wanted["id"] or call.call_id) != ""
    assert len({call.call_id for call in seen.calls}) == len(seen.calls)
    hidden = [kind for kind in expect["provider_items"] if kind == "redacted_thinking"]
    assert seen.items == [kind for kind in expect["provider_items"] if kind not in hidden]
    assert seen.hidden >= len(hidden)
    check_usage(seen.usage, expect["usage"] or {}, row)


def check_usage(usage: dict[str, int], expected: dict[str, int], row: Row) -> None:
    """The index counts as each vendor does; we count alike for all."""
    expected = dict(expected)
    if total := expected.pop("total", 0):  # Gemini: thoughts apart, its own tools' input too
        expected["output"] += expected.get("reasoning", 0)
        expected["input"] = total - expected["output"]
    if row["vendor"] == "xai":
        expected["output"] += expected["reasoning"]  # it counts them apart
    if row["api"] == "anthropic-messages":
        expected["input"] += expected.get("cached", 0) + expected.get("cache_write", 0)
    if "cache_write" in expected:
        expected["cache_written"] = expected.pop("cache_write")
    assert expected.items() <= usage.items()


def _call(call: ToolCall) -> tuple[str, Any]:
    return call.name, call.raw if call.arguments is None else call.arguments


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def body_of(row: Row) -> bytes:
    capture = json.loads((CAPTURES / row["file"]).read_text())
    body: str = capture["response"]["body"]
    return body.encode()


@pytest.mark.parametrize("row", recorded(of_status_200=True))
def test_a_recorded_stream_means_the_same_however_it_is_cut(row: Row) -> None:
    body = body_of(row)

    check(purely(row, [body]), row)
    check(purely(row, (body[i : i + 1] for i in range(len(body)))), row)
    for seed in range(5):
        cuts = [0, *random_cuts(body, seed), len(body)]
        check(purely(row, (body[a:b] for a, b in pairwise(cuts))), row)


def test_every_recorded_format_is_read() -> None:
    if not (CAPTURES / "index.json").exists():
        pytest.skip("the recorded streams are not part of the repository and are not beside it")
    rows = json.loads((CAPTURES / "index.json").read_text())

    assert {row["api"] for row in rows} == set(DIALECTS)


@pytest.mark.parametrize("row", recorded(of_status_200=True))
async def test_a_recorded_stream_means_the_same_through_every_kind_of_provider(
    row: Row, upstream: FakeOpenAI, open_it: Open
) -> None:
    body = body_of(row)
    for section in KINDS[row["api"]]:
        upstream.will(stream(body), stream(body, cut_at=random_cuts(body, seed=1)))
        provider = open_it(**section)

        check(await over_http(provider.stream(asking())), row)
        check(await over_http(provider.stream(asking())), row)


@pytest.mark.parametrize("row", recorded(of_status_200=False))
async def test_a_recorded_refusal_keeps_its_status_and_its_words(
    row: Row, upstream: FakeOpenAI, open_it: Open
) -> None:
    for section in KINDS[row["api"]]:
        upstream.will(Answer([body_of(row)], row["status"], {}, "application/json"))

        seen = await over_http(open_it(**section).stream(asking()))

        assert seen.error is not None
        assert seen.error.http_status == row["status"]
        assert row["expect"]["error"]["message"] in str(seen.error)

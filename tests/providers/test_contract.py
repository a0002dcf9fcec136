"""What every provider keeps to, whatever its vendor's format, over a real HTTP server."""

import asyncio
import json
from base64 import b64decode, b64encode
from contextlib import aclosing
from typing import Any

import pytest

from sidecar.config import ProviderKind
from sidecar.errors import (
    ContextTooLong,
    NetworkError,
    ProviderBadResponse,
    ProviderError,
    ProviderOverloaded,
)
from sidecar.messages import (
    Attachment,
    MediaContent,
    Message,
    ToolCallPart,
    ToolResultPart,
    VendorContent,
)
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelRequest,
    Provider,
    ReasoningDelta,
    Retrying,
    TextDelta,
    ToolArguments,
    ToolCall,
    UsageReport,
    Verbatim,
)
from tests.providers.conftest import Open, asking, message, user
from tests.support.fake_openai import CUT, HANG, Answer, FakeOpenAI
from tests.support.wire_formats import FORMATS, USAGE, Format

WEATHER = ("call_1", "weather", {"city": "Kraków", "days": 3})
TIME = ("call_2", "time", {"zone": "Europe/Warsaw"})
PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
MODELS = {"responses": "gpt-5", "messages": "claude-sonnet-4-5", "generate_content": "gemini-3-pro"}


@pytest.fixture
def kind() -> ProviderKind:
    """Each format names its own."""
    return "demo"


@pytest.fixture(params=FORMATS, ids=lambda wire: wire.name)
def wire(request: pytest.FixtureRequest) -> Format:
    format: Format = request.param
    return format


@pytest.fixture
def provider(open_it: Open, wire: Format) -> Provider:
    return open_it(**wire.section)


async def heard(provider: Provider, request: ModelRequest | None = None) -> list[ModelEvent]:
    async with asyncio.timeout(10), aclosing(provider.stream(request or asking())) as events:
        return [event async for event in events]


def of(kind: type[Any], events: list[ModelEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def said(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in of(TextDelta, events))


def thought(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in of(ReasoningDelta, events))


async def test_deltas_come_in_order_and_nothing_after_finished(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    upstream.will(Answer(wire.text("One, ", "two, ", "drei ✓")))

    events = await heard(provider)

    assert [event.text for event in of(TextDelta, events)] == ["One, ", "two, ", "drei ✓"]
    assert of(Finished, events) == events[-1:]
    assert events[-1].reason == "stop"  # type: ignore[union-attr]


async def test_a_delta_is_told_before_the_next_one_was_sent(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    first, *rest = wire.text("first", "second")
    while b"first" not in first:
        first += rest.pop(0)
    seen = asyncio.Event()
    upstream.will(Answer([first, seen, *rest]))

    async with asyncio.timeout(10), aclosing(provider.stream(asking())) as events:
        async for event in events:
            if event == TextDelta("first"):
                seen.set()

    assert seen.is_set()


async def test_parallel_calls_are_told_once_each_with_their_arguments_parsed(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    upstream.will(Answer(wire.calls(WEATHER, TIME)))

    events = await heard(provider)

    calls = of(ToolCall, events)
    assert [(call.name, call.arguments) for call in calls] == [WEATHER[1:], TIME[1:]]
    assert len({call.call_id for call in calls}) == 2
    assert events[-1].reason == "tool_calls"  # type: ignore[union-attr]
    shown = of(ToolArguments, events)
    assert {piece.call_id for piece in shown} <= {call.call_id for call in calls}


async def test_tokens_are_counted_alike(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    upstream.will(Answer(wire.text("Hi")))

    usage = of(UsageReport, await heard(provider))[-1].usage

    assert {name: getattr(usage, name) for name in USAGE} == USAGE


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
async def test_why_it_stopped_is_told(
    upstream: FakeOpenAI, wire: Format, provider: Provider, reason: str
) -> None:
    upstream.will(Answer(wire.text("Hi", stop=reason)))

    finished = (await heard(provider))[-1]

    assert isinstance(finished, Finished)
    allowed = {"content_filter": ("content_filter", "refusal")}.get(reason, (reason,))
    assert finished.reason in allowed
    assert finished.raw


async def test_reasoning_is_told_apart_and_comes_back_in_a_tool_loop(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    model = MODELS.get(wire.name, "m")
    upstream.will(Answer(wire.calls(WEATHER, TIME, reasoning="Hmm.")), Answer(wire.text("Sunny.")))

    first = await heard(provider, asking(model=model))
    history = [user("Weather?"), answered(first, model)]
    second = await heard(provider, ModelRequest(model=model, history=history))

    assert thought(first) == "Hmm."
    assert said(second) == "Sunny."
    body = upstream.bodies[1]
    assert len(wire.sent_back(body)) == 1
    assert wire.sent_back(body)[0]
    assert wire.results(body) == ["weather is done", "time is done"]


async def test_the_reasoning_of_another_model_is_left_out(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    model = MODELS.get(wire.name, "m")
    upstream.will(Answer(wire.calls(WEATHER, reasoning="Hmm.")), Answer(wire.text("Sunny.")))
    first = await heard(provider, asking(model=model))
    history = [user("Weather?"), answered(first, "another"), user("And now?")]

    await heard(provider, ModelRequest(model=model, history=history))

    written = json.dumps(upstream.bodies[1])
    assert "Hmm." not in written
    assert not any(sign in written for sign in ('"sig"', '"c2ln"', '"secret"'))
    assert wire.results(upstream.bodies[1]) == ["weather is done"]


async def test_closing_the_stream_closes_the_connection(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    pieces = wire.text("Hel", "lo")
    upstream.will(Answer([*pieces[:-2], HANG]))

    async with asyncio.timeout(10):
        async with aclosing(provider.stream(asking())) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        await upstream.hung_up.wait()


@pytest.mark.parametrize("end", [[], [CUT]], ids=["ends", "breaks"])
async def test_an_answer_without_its_end_is_no_success(
    upstream: FakeOpenAI, wire: Format, provider: Provider, end: list[Any]
) -> None:
    pieces = [piece for piece in wire.text("Hel", "##") if b"Hel" in piece and b"##" not in piece]
    upstream.will(Answer([pieces[0], *end]))

    with pytest.raises(ProviderError) as caught:
        await heard(provider)

    assert isinstance(caught.value, ProviderBadResponse | NetworkError)


async def test_an_error_in_the_middle_keeps_what_was_said_and_its_words(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    told = [piece for piece in wire.text("Hel", "lo") if b"Hel" in piece][:1]
    upstream.will(Answer([*told, wire.error("Too many people at once")]))
    seen: list[ModelEvent] = []

    with pytest.raises(ProviderOverloaded, match="Too many people at once"):
        async with asyncio.timeout(10), aclosing(provider.stream(asking())) as events:
            async for event in events:
                seen.append(event)

    assert of(TextDelta, seen) == [TextDelta("Hel")]


async def test_an_error_that_comes_first_is_tried_again(
    upstream: FakeOpenAI, wire: Format, open_it: Open
) -> None:
    upstream.will(Answer([wire.error("Too many people at once")]), Answer(wire.text("Now.")))

    events = await heard(open_it(**wire.section, max_retries=1))

    assert isinstance(events[0], Retrying)
    assert TextDelta("Now.") in events


async def test_a_conversation_that_is_too_long_is_named_so(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    status, body = wire.overflow()
    upstream.will(Answer([json.dumps(body).encode()], status, {}, "application/json"))

    with pytest.raises(ContextTooLong) as caught:
        await heard(provider)

    assert not caught.value.can_retry


@pytest.mark.parametrize("said_by", FORMATS, ids=lambda wire: wire.name)
async def test_a_conversation_goes_on_with_any_other_vendor(
    upstream: FakeOpenAI, wire: Format, provider: Provider, open_it: Open, said_by: Format
) -> None:
    upstream.will(
        Answer(said_by.calls(WEATHER, TIME, reasoning="Hmm.")), Answer(wire.text("Sunny."))
    )
    model = MODELS.get(said_by.name, "m")
    first = await heard(open_it(**said_by.section), asking(model=model))
    before = answered(first, model).model_copy(
        update={"model": f"other/{model}", "vendor_content": ()}
    )

    request = ModelRequest(model=MODELS.get(wire.name, "m"), history=[user("?"), before])
    events = await heard(provider, request)

    assert TextDelta("Sunny.") in events
    assert wire.results(upstream.bodies[1]) == ["weather is done", "time is done"]
    assert "Hmm." not in json.dumps(upstream.bodies[1])


def answered(events: list[ModelEvent], model: str) -> Message:
    """The assistant's message of one step, as a turn keeps it, with a result for each call."""
    calls = [
        ToolCallPart(
            tool_call_id=call.call_id,
            server="s",
            name=call.name,
            offered_as=call.name,
            arguments=call.arguments,
        )
        for call in of(ToolCall, events)
    ]
    results = [
        ToolResultPart(
            tool_call_id=call.tool_call_id,
            status="ok",
            text=f"{call.name} is done",
            duration_ms=1,
        )
        for call in calls
    ]
    content = tuple(
        VendorContent("acme", model, said.format, 0, len(calls), said.content)
        for said in of(Verbatim, events)
    )
    said = message("assistant", *calls, *results)
    return said.model_copy(update={"model": f"acme/{model}", "vendor_content": content})


async def test_an_image_that_a_tool_gave_is_shown_to_the_model(
    upstream: FakeOpenAI, wire: Format, provider: Provider
) -> None:
    picture = MediaContent(type="image", mime="image/png", bytes=len(PIXEL), attachment_id="a")
    call = ToolCallPart(
        tool_call_id="call_1", server="s", name="look", offered_as="look", arguments={}
    )
    given = ToolResultPart(
        tool_call_id="call_1", status="ok", text="A view.", duration_ms=1, content=(picture,)
    )
    upstream.will(Answer(wire.text("Nice.")))

    await heard(
        provider,
        ModelRequest(
            model=MODELS.get(wire.name, "m"),
            history=[user("Look"), message("assistant", call, given)],
            attachments={"a": Attachment("image/png", PIXEL)},
        ),
    )

    [body] = upstream.bodies
    assert b64encode(PIXEL).decode() in json.dumps(body)

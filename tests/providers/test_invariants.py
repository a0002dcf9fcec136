"""What every dialect promises of any stream at all, however broken, and of what it makes of it."""

import json
import random
from typing import Any

import pytest

from sidecar.errors import ProviderError
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelRequest,
    ToolArguments,
    ToolCall,
    Verbatim,
)
from sidecar.providers.dialects.base import Dialect
from sidecar.providers.dialects.chat_completions import ChatCompletions
from sidecar.providers.dialects.generate_content import GenerateContent
from sidecar.providers.dialects.messages import Messages
from sidecar.providers.dialects.responses import Responses
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseDecoder, SseEvent
from tests.providers.conftest import asking, user
from tests.providers.test_contract import MODELS, TIME, WEATHER, answered, of
from tests.support.wire_formats import FORMATS, Format

DIALECTS: dict[str, Dialect] = {
    "chat_completions": ChatCompletions("acme", "max_tokens"),
    "responses": Responses("acme"),
    "messages": Messages("acme"),
    "generate_content": GenerateContent("acme"),
}


@pytest.fixture(params=FORMATS, ids=lambda wire: wire.name)
def wire(request: pytest.FixtureRequest) -> Format:
    format: Format = request.param
    return format


@pytest.fixture
def dialect(wire: Format) -> Dialect:
    return DIALECTS[wire.name]


def sent(*pieces: bytes) -> list[SseEvent]:
    decoder = SseDecoder()
    return [*decoder.feed(b"".join(pieces)), *decoder.end()]


def read(dialect: Dialect, events: list[SseEvent]) -> list[ModelEvent]:
    """Raises ProviderError, which ends an answer as Finished does."""
    stream = dialect.stream(Vendor("acme", "http://acme/v1"), dialect.encode(asking(), {}).body)
    told = [one for event in events for one in stream.feed(event)]
    return told + list(stream.end())


def broken(value: Any, chance: random.Random) -> Any:
    """The same with one thing in it missing or of another type."""
    if isinstance(value, list) and value and chance.random() < 0.9:
        index = chance.randrange(len(value))
        return [*value[:index], broken(value[index], chance), *value[index + 1 :]]
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        rest = {key: inner for key, inner in value.items() if key != name}
        return rest if chance.random() < 0.3 else rest | {name: broken(value[name], chance)}
    return chance.choice([None, 0, -1, 1.5, True, "", "text", [], [1], {}, {"a": None}])


def whole(wire: Format) -> list[SseEvent]:
    return sent(*wire.text("One, ", "two.")[:-1], *wire.calls(WEATHER, TIME, reasoning="Hm."))


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_broken_in_a_stream_it_is_an_answer_or_an_error_of_ours(
    wire: Format, dialect: Dialect, seed: int
) -> None:
    chance = random.Random(seed)
    events = [event for event in whole(wire) if event.data != "[DONE]"]
    for _ in range(3):
        index = chance.randrange(len(events))
        data = json.dumps(broken(json.loads(events[index].data), chance))
        events[index] = SseEvent(events[index].event, data)
        events.insert(chance.randrange(len(events)), chance.choice(events))

    try:
        told = read(dialect, events)
    except ProviderError:
        return

    calls, kept = of(ToolCall, told), of(Verbatim, told)
    assert of(Finished, told) == [told[-1]]
    assert kept in ([], told[-2:-1])
    assert (told[-1].reason == "tool_calls") == bool(calls)  # type: ignore[union-attr]
    assert len({call.call_id for call in calls}) == len(calls)
    assert {piece.call_id for piece in of(ToolArguments, told)} <= {call.call_id for call in calls}
    model = MODELS.get(wire.name, "m")
    runnable = [call for call in calls if call.arguments is not None]
    if runnable == calls:
        history = [user("?"), answered(told, model)]
        body = dialect.encode(ModelRequest(model, history), {}).body
        assert wire.results(body) == [f"{call.name} is done" for call in calls]


def test_no_piece_of_a_call_comes_after_it(wire: Format, dialect: Dialect) -> None:
    told = read(dialect, whole(wire))

    for call in of(ToolCall, told):
        rest = told[told.index(call) + 1 :]
        assert call.call_id not in {piece.call_id for piece in of(ToolArguments, rest)}


@pytest.mark.parametrize("event", ["", "of_next_year"])
def test_an_event_that_nobody_knows_changes_nothing(
    wire: Format, dialect: Dialect, event: str
) -> None:
    unknown = SseEvent(event, json.dumps({"type": "of.next.year", "said": {"a": [1, None]}}))
    events = sent(*wire.text("One, ", "two."))

    for index in range(len(events) + 1):
        assert read(dialect, [*events[:index], unknown, *events[index:]]) == read(dialect, events)


def test_an_answer_ends_only_with_its_formats_own_last_word(wire: Format, dialect: Dialect) -> None:
    events = sent(*wire.text("One, ", "two."))
    ended = [read_or_none(dialect, events[:size]) is not None for size in range(len(events) + 1)]

    assert ended == sorted(ended)
    assert not ended[next(i for i, each in enumerate(events) if "two." in each.data) + 1]


def read_or_none(dialect: Dialect, events: list[SseEvent]) -> list[ModelEvent] | None:
    try:
        return read(dialect, events)
    except ProviderError:
        return None

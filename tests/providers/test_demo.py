"""The demo provider: a script that says so, and that really calls tools."""

import json
from contextlib import aclosing
from typing import Any

import pytest

from sidecar.errors import ModelNotFound, ProviderError
from sidecar.messages import Message, TextPart, Tool, ToolCallPart, ToolResultPart, ToolStatus
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    Retrying,
    TextDelta,
    ToolArguments,
    ToolCall,
    UsageReport,
)
from sidecar.providers.demo import DemoProvider
from tests.providers.conftest import message, user


def tool(server_name: str, **properties: str) -> Tool:
    schema: dict[str, Any] = {"type": "object", "required": list(properties)}
    schema["properties"] = {name: {"type": kind} for name, kind in properties.items()}
    return Tool(
        name=f"demo_{server_name}",
        server="demo",
        server_name=server_name,
        description="",
        input_schema=schema,
        fingerprint="",
        digest="",
    )


TOOLS = (
    tool("add", a="number", b="number"),
    tool("current_time"),
    tool("list_files"),
    tool("write_note", text="string"),
)


async def no_pause(seconds: float) -> None:
    assert seconds > 0


async def events(*history: Message, tools: tuple[Tool, ...] = TOOLS) -> list[ModelEvent]:
    request = ModelRequest(model="scripted", history=history, tools=tools)
    async with aclosing(DemoProvider(no_pause).stream(request)) as stream:
        return [event async for event in stream]


async def calls(text: str) -> list[tuple[str, Any]]:
    told = await events(user(text))
    assert isinstance(told[-1], Finished)
    assert told[-1].reason == "tool_calls"
    return [(event.name, event.arguments) for event in told if isinstance(event, ToolCall)]


def words(told: list[ModelEvent]) -> str:
    return "".join(event.text for event in told if isinstance(event, TextDelta))


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("what time is it?", ("demo_current_time", {})),
        ("List my files", ("demo_list_files", {})),
        ("add 2 and 3", ("demo_add", {"a": 2, "b": 3})),
        ("Add -2.5 to 4, please", ("demo_add", {"a": -2.5, "b": 4})),
        ("add 05 and 3", ("demo_add", {"a": 5, "b": 3})),
        ("add ٣ and 4", ("demo_add", {"a": 4, "b": 0})),
        ('call add {"a": ' + "[" * 200_000, ("demo_add", None)),
        ("note buy milk", ("demo_write_note", {"text": "buy milk"})),
        ("call demo_add", ("demo_add", {})),
        ('call add {"a": 1}', ("demo_add", {"a": 1})),
        ('call add {"a":', ("demo_add", None)),
    ],
)
async def test_a_word_calls_its_tool(text: str, call: tuple[str, Any]) -> None:
    assert await calls(text) == [call]


async def test_several_words_call_several_tools_at_once() -> None:
    assert [name for name, _ in await calls("the time and the files")] == [
        "demo_current_time",
        "demo_list_files",
    ]


async def test_the_arguments_are_shown_as_they_are_written() -> None:
    told = await events(user("note buy milk"))

    pieces = [event.text for event in told if isinstance(event, ToolArguments)]
    assert len(pieces) > 1
    assert json.loads("".join(pieces)) == {"text": "buy milk"}


@pytest.mark.parametrize("text", ["what time is it?", "call nothing {}"])
async def test_it_says_so_when_no_tool_that_fits_is_offered(text: str) -> None:
    assert "none that fits is offered" in words(await events(user(text), tools=()))


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("ok", "The tool current_time returned: 12:00"),
        ("denied", "I was not allowed to call current_time"),
        ("cancelled", "was cancelled"),
        ("timeout", "did not answer in time"),
        ("error", "failed: 12:00"),
    ],
)
async def test_the_next_step_says_what_became_of_the_call(status: ToolStatus, answer: str) -> None:
    called = ToolCallPart(
        tool_call_id="1",
        server="demo",
        name="current_time",
        offered_as="demo_current_time",
        arguments={},
    )
    result = ToolResultPart(tool_call_id="1", status=status, text="12:00", duration_ms=1)

    told = await events(user("time?"), message("assistant", called, result))

    assert answer in words(told)
    assert told[-1] == Finished("stop")


async def test_it_says_that_it_is_a_script() -> None:
    assert "not a language model" in words(await events(user("Hello")))
    assert "not a language model" in words(await events(user("help")))


async def test_it_streams_word_by_word_and_counts_its_words() -> None:
    told = await events(user("Hello there"))

    deltas = [event for event in told if isinstance(event, TextDelta)]
    assert len(deltas) > 10
    assert isinstance(told[-2], UsageReport)
    assert (told[-2].usage.input, told[-2].usage.output) == (2, len(deltas))


async def test_thinking_comes_before_the_answer() -> None:
    told = await events(user("think about it"))

    assert isinstance(told[0], ReasoningDelta)
    assert words(told)


async def test_a_retry_is_announced_before_the_answer() -> None:
    told = await events(user("retry"))

    assert isinstance(told[0], Retrying)
    assert isinstance(told[1], TextDelta)


async def test_it_fails_in_the_middle_when_asked_to() -> None:
    shown = []
    request = ModelRequest(model="scripted", history=[user("fail")])

    with pytest.raises(ProviderError, match="asked to fail"):
        async for event in DemoProvider(no_pause).stream(request):
            shown.append(event)

    assert shown
    assert all(isinstance(event, TextDelta) for event in shown)


async def test_every_word_in_the_help_is_understood() -> None:
    greeting = words(await events(user("Hello")))
    for word in ("time", "files", "add 2 and 3", "note buy milk", "think", "long", "retry"):
        assert f"“{word}”" in words(await events(user("help")))
        assert words(await events(user(word))) != greeting


async def test_another_model_than_the_script_is_not_found() -> None:
    request = ModelRequest(model="gpt-5", history=[message("user", TextPart(text="Hi"))])

    with pytest.raises(ModelNotFound, match="its only one is scripted"):
        await anext(DemoProvider(no_pause).stream(request))


async def test_it_lists_its_one_model() -> None:
    (info,) = await DemoProvider().models()

    assert (info.model, info.tools) == ("scripted", True)

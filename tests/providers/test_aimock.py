"""All formats against a mock that strangers wrote: what it says, and how it fails.

It is npm's `@copilotkit/aimock`; SIDECAR_TEST_NODE_SERVERS names the `node_modules` it is in.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import ProviderKind
from sidecar.errors import (
    NetworkError,
    ProviderBadResponse,
    ProviderError,
    ProviderFailed,
    ProviderOverloaded,
    RateLimited,
)
from sidecar.providers.base import Finished, ModelEvent, ModelRequest, Provider, TextDelta, ToolCall
from tests.providers.conftest import Open, tool, user
from tests.providers.test_contract import answered, said, thought

WEATHER = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
TIME = {"name": "get_time", "arguments": "{}"}
FIXTURES = [
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {"toolCalls": [WEATHER, TIME]},
    },
    {
        "match": {"userMessage": "weather", "hasToolResult": True},
        "response": {"content": "It is sunny."},
    },
    {"match": {"userMessage": "think"}, "response": {"content": "Done.", "reasoning": "Let me."}},
    {
        "match": {"userMessage": "boom"},
        "response": {"error": {"message": "Too many", "type": "overloaded_error"}, "status": 529},
    },
    {"match": {"userMessage": "hello"}, "response": {"content": "Hello there, how are you?"}},
]
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {  # model, below the address, settings
    "chat_completions": ("gpt-4o", "/v1", {"kind": "openai_compatible"}),
    "chat_completions_sdk": ("gpt-4o", "/v1", {"kind": "openai", "api": "chat"}),
    "responses": ("gpt-5", "/v1", {"kind": "openai"}),
    "messages": ("claude-sonnet-4-5", "", {"kind": "anthropic"}),
    "generate_content": ("gemini-2.5-flash", "", {"kind": "gemini"}),
}

Mock = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def kind() -> ProviderKind:
    """Each way names its own."""
    return "demo"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[str, str, dict[str, Any]]:
    return WAYS[request.param]


@pytest.fixture
def mock(tmp_path: Path) -> Mock:
    folder, node = os.environ.get("SIDECAR_TEST_NODE_SERVERS"), shutil.which("node")
    if folder is None or node is None:
        pytest.skip("SIDECAR_TEST_NODE_SERVERS names no node_modules, or there is no node")
    script = Path(folder, "@copilotkit", "aimock", "dist", "cli.js")
    assert script.is_file()
    fixtures = tmp_path / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))

    @asynccontextmanager
    async def mock(*flags: str) -> AsyncIterator[str]:
        """Its address, while it runs."""
        command = [node, str(script), "--port", "0", "--fixtures", str(fixtures)]
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--chunk-size", "4", *flags),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(20):
                while not (found := re.search(rb"listening on (\S+)", await _line(process.stdout))):
                    pass
            yield found[1].decode()
        finally:
            process.kill()
            await process.communicate()

    return mock


async def _line(output: asyncio.StreamReader) -> bytes:
    line = await output.readline()
    assert line, "the mock has ended"
    return line


async def heard(provider: Provider, request: ModelRequest) -> list[ModelEvent]:
    async with asyncio.timeout(10), aclosing(provider.stream(request)) as events:
        return [event async for event in events]


async def failure(provider: Provider, request: ModelRequest) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await heard(provider, request)
    return caught.value


async def test_text_reasoning_and_a_loop_of_parallel_calls(
    mock: Mock, open_it: Open, way: tuple[str, str, dict[str, Any]]
) -> None:
    model, path, section = way
    tools: Sequence[Any] = (tool("get_weather"), tool("get_time"))
    async with mock() as address:
        provider = open_it(base_url=address + path, **section)

        hello = await heard(provider, ModelRequest(model, [user("hello")]))
        thinking = await heard(provider, ModelRequest(model, [user("think")]))
        first = await heard(provider, ModelRequest(model, [user("weather")], tools=tools))
        history = [user("weather"), answered(first, model)]
        second = await heard(provider, ModelRequest(model, history, tools=tools))

    assert said(hello) == "Hello there, how are you?"
    assert len([event for event in hello if isinstance(event, TextDelta)]) > 1
    assert (thought(thinking), said(thinking)) == ("Let me.", "Done.")
    calls = [(event.name, event.arguments) for event in first if isinstance(event, ToolCall)]
    assert calls == [("get_weather", {"city": "Paris"}), ("get_time", {})]
    assert isinstance(first[-1], Finished) and first[-1].reason == "tool_calls"
    assert said(second) == "It is sunny."
    assert isinstance(second[-1], Finished) and second[-1].reason == "stop"


async def test_a_vendor_that_is_overloaded_says_so(
    mock: Mock, open_it: Open, way: tuple[str, str, dict[str, Any]]
) -> None:
    model, path, section = way
    async with mock() as address:
        provider = open_it(base_url=address + path, **section)

        error = await failure(provider, ModelRequest(model, [user("boom")]))

    assert isinstance(error, ProviderOverloaded)
    assert "Too many" in str(error)


@pytest.mark.parametrize(
    ("fault", "meant"),
    [
        ("drop", (ProviderFailed,)),
        ("malformed", (ProviderBadResponse,)),
        ("disconnect", (NetworkError,)),
        ("ratelimit", (RateLimited,)),
    ],
)
async def test_every_fault_that_it_can_make_is_named(
    mock: Mock,
    open_it: Open,
    way: tuple[str, str, dict[str, Any]],
    fault: str,
    meant: tuple[type[ProviderError], ...],
) -> None:
    model, path, section = way
    async with mock(f"--chaos-{fault}", "1") as address:
        provider = open_it(base_url=address + path, **section)

        error = await failure(provider, ModelRequest(model, [user("hello")]))

    assert isinstance(error, meant)

"""A real model on this machine, by llama.cpp's server. Only where it is asked for:

SIDECAR_TEST_LLAMA_SERVER names the `llama-server`, SIDECAR_TEST_GGUF a small model for it.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from sidecar.config import ProviderKind
from sidecar.errors import ContextTooLong
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelRequest,
    Params,
    Provider,
    TextDelta,
    UsageReport,
)
from tests.providers.conftest import Open, user

SERVER, MODEL = os.environ.get("SIDECAR_TEST_LLAMA_SERVER"), os.environ.get("SIDECAR_TEST_GGUF")
WINDOW = 2048  # tokens
WAIT_S = 60.0  # a model of this size, on a machine that does other things as well
SECTIONS: dict[str, dict[str, Any]] = {
    "chat_completions": {"kind": "openai_compatible"},
    "chat_completions_sdk": {"kind": "openai", "api": "chat"},
    "responses": {"kind": "openai"},
    "messages": {"kind": "anthropic"},
}

pytestmark = pytest.mark.skipif(
    SERVER is None or MODEL is None,
    reason="SIDECAR_TEST_LLAMA_SERVER and SIDECAR_TEST_GGUF name no model to run",
)


@pytest.fixture
def kind() -> ProviderKind:
    """Each format names its own."""
    return "demo"


@pytest.fixture(params=SECTIONS)
def section(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SECTIONS[request.param]


@pytest.fixture
async def llama() -> AsyncIterator[str]:
    """The base_url of a server that is ready; one at a time, since it takes all processors."""
    assert SERVER is not None and MODEL is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [SERVER, "-m", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("-c", str(WINDOW), "-np", "1", "--jinja"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    is_ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_read(process.stderr, is_ready))
        try:
            async with asyncio.timeout(WAIT_S):
                await is_ready.wait()
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            await process.wait()


async def _read(log: asyncio.StreamReader, is_ready: asyncio.Event) -> None:
    """To its end, or the server would wait for somebody to read."""
    async for line in log:
        if b"listening on http" in line:
            is_ready.set()
    assert is_ready.is_set(), "the server has ended"


async def heard(provider: Provider, request: ModelRequest) -> list[ModelEvent]:
    async with asyncio.timeout(WAIT_S), aclosing(provider.stream(request)) as events:
        return [event async for event in events]


async def test_it_answers_and_counts_its_tokens(
    llama: str, open_it: Open, section: dict[str, Any]
) -> None:
    provider = open_it(base_url=llama, **section)
    params = Params(temperature=0.0, max_tokens=24)

    events = await heard(provider, ModelRequest("smol", [user("Say hello.")], params=params))

    assert sum(isinstance(event, TextDelta) for event in events) > 1
    [report] = [event for event in events if isinstance(event, UsageReport)]
    assert report.usage.input > 0
    assert 0 < report.usage.output <= 24
    assert isinstance(events[-1], Finished)
    assert events[-1].reason in ("stop", "length")


async def test_an_answer_that_is_left_does_not_keep_the_next_one_waiting(
    llama: str, open_it: Open, section: dict[str, Any]
) -> None:
    provider = open_it(base_url=llama, **section)
    endless = ModelRequest("smol", [user("Count to ten thousand.")])

    async with asyncio.timeout(WAIT_S), aclosing(provider.stream(endless)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    short = ModelRequest("smol", [user("Say hello.")], params=Params(max_tokens=4))

    assert isinstance((await heard(provider, short))[-1], Finished)


async def test_a_conversation_that_does_not_fit_is_named_so(
    llama: str, open_it: Open, section: dict[str, Any]
) -> None:
    provider = open_it(base_url=llama, **section)

    with pytest.raises(ContextTooLong):
        await heard(provider, ModelRequest("smol", [user("word " * 2 * WINDOW)]))

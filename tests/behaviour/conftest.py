"""A sidecar with a fake vendor and a small MCP server, and clients of it."""

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import App
from sidecar.client import Client, connect
from tests.support.fake_openai import FakeOpenAI
from tests.support.world import running, world

PLAIN = Path(__file__).parents[1] / "support" / "servers" / "plain.py"
PLAIN_SERVER = f"mcp: {{servers: {{plain: {{command: '{sys.executable}', args: ['{PLAIN}']}}}}}}"

Start = Callable[..., Awaitable[App]]
Join = Callable[..., Awaitable[Client]]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def opened() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(tmp_path: Path, upstream: FakeOpenAI, opened: contextlib.AsyncExitStack) -> Start:
    """Start a sidecar whose model is `fake/test`; `more` are lines of its settings file."""

    async def start(*more: str) -> App:
        own = [
            f"providers: {{fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}}}",
            "chat: {model: fake/test}",
        ]
        given = {line.partition(":")[0] for line in more}
        lines = [*(line for line in own if line.partition(":")[0] not in given), *more]
        return await opened.enter_async_context(
            running(world(tmp_path, "\n".join(lines), environ={"KEY": "sk-test"}))
        )

    return start


@pytest.fixture
def join(opened: contextlib.AsyncExitStack) -> Join:
    """Connect to a sidecar, by default as an extended client that cannot answer anything."""

    async def join(app: App, **fields: Any) -> Client:
        return await opened.enter_async_context(connect(app.url, app.token, **fields))

    return join


@pytest.fixture
async def client(start: Start, join: Join) -> Client:
    return await join(await start())

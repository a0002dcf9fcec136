"""`/v1` as OpenAI's own client sees it: models, answers, tools, refusals."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import openai
import pytest

from sidecar.app import App
from sidecar.client import ask_for_door_key
from sidecar.protocol import ModelsList
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import FakeOpenAI
from tests.support.world import running, world

Knock = Callable[[App], Awaitable[openai.AsyncOpenAI]]


@pytest.fixture
async def knock() -> AsyncIterator[Knock]:
    """OpenAI's client with the door key, as an app is set up with it."""
    opened: list[openai.AsyncOpenAI] = []

    async def knock(app: App) -> openai.AsyncOpenAI:
        key = await ask_for_door_key(app.http, app.token, renew=False)
        opened.append(openai.AsyncOpenAI(base_url=f"{app.http}/v1", api_key=key.value))
        return opened[-1]

    async with asyncio.timeout(60):
        yield knock
    for client in opened:
        await client.close()


@pytest.fixture
async def demo(tmp_path: Path, knock: Knock) -> AsyncIterator[openai.AsyncOpenAI]:
    async with running(world(tmp_path, demo=True)) as app:
        yield await knock(app)


# ---- models ---------------------------------------------------------------------------------


async def test_models_are_listed_without_asking_a_vendor(
    start: Start, join: Join, knock: Knock, upstream: FakeOpenAI
) -> None:
    app = await start()
    apps = await knock(app)

    before = [model.id async for model in apps.models.list()]
    asked = len(upstream.requests)
    await (await join(app)).request(ModelsList)
    after = [model.id async for model in apps.models.list()]

    assert (before, asked) == (["fake/test"], 0)
    assert after == ["fake/test", "fake/gpt-4o-mini"]


async def test_one_model_is_told_by_its_name(start: Start, join: Join, knock: Knock) -> None:
    app = await start()
    apps = await knock(app)

    unasked = await apps.models.retrieve("fake/anything")
    await (await join(app)).request(ModelsList)
    listed = await apps.models.retrieve("fake/gpt-4o-mini")

    assert (unasked.id, listed.id, listed.owned_by) == ("fake/anything", "fake/gpt-4o-mini", "fake")
    for unknown in ("fake/anything", "nobody/else", "gpt-4o"):
        with pytest.raises(openai.NotFoundError) as refusal:
            await apps.models.retrieve(unknown)
        assert refusal.value.code == "model_not_found"

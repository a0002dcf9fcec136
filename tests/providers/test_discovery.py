"""What answers on this machine, found quickly or not at all."""

import asyncio
from collections.abc import Sequence
from time import monotonic

import pytest

from sidecar.config import ProviderConfig
from sidecar.errors import KeyMissing
from sidecar.providers.discovery import USUAL, WITHIN_S, Found, Place, find, places
from tests.providers.conftest import Open, asking
from tests.support.fake_openai import HANG, Answer, FakeOpenAI, status


async def test_a_server_that_lists_models_is_found_by_its_name(upstream: FakeOpenAI) -> None:
    upstream.models = [{"id": "llama3.2"}, {"id": "qwen3"}]

    ollama = Place("Ollama", upstream.url)

    found = await find([ollama, Place("Nobody", "http://127.0.0.1:1/v1")])

    assert found == [Found(ollama, ("llama3.2", "qwen3"))]


async def test_whoever_answers_otherwise_is_not_found(upstream: FakeOpenAI) -> None:
    for answer in (status(401, "no"), Answer([b"<html>"]), Answer([b'{"data": []}'])):
        upstream.will_list(answer)

        assert await find([Place("Ollama", upstream.url)]) == []


async def test_a_server_that_hangs_delays_nobody_for_long(upstream: FakeOpenAI) -> None:
    upstream.will_list(Answer([b'{"data"', HANG]))
    started = monotonic()

    async with asyncio.timeout(5):
        found = await find([Place(f"Server {number}", upstream.url) for number in range(5)])

    assert found == []
    assert monotonic() - started < 4 * WITHIN_S  # at once, not one after the other


async def test_who_has_no_key_is_told_what_answers_here(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    ollama = Place("Ollama", upstream.url)
    provider = open_it(kind="openai", key=None, find_local=lambda: find([ollama]))

    with pytest.raises(KeyMissing, match=f"Ollama answers at {upstream.url} and has gpt-4o-mini"):
        await anext(provider.stream(asking()))


async def test_a_list_of_models_without_a_key_looks_for_nothing(open_it: Open) -> None:
    async def find_local() -> Sequence[Found]:
        raise AssertionError("nobody asked")

    with pytest.raises(KeyMissing):
        await open_it(kind="openai", key=None, find_local=find_local).models()


def test_our_own_port_is_not_asked() -> None:
    assert any(place.base_url == "http://127.0.0.1:8000/v1" for place in USUAL)

    asked = places({}, own_port=8000)

    assert asked == tuple(place for place in USUAL if ":8000/" not in place.base_url)


def test_a_server_of_the_settings_is_looked_for_once_and_under_its_usual_name() -> None:
    sections = {
        "mine": ProviderConfig(kind="openai_compatible", base_url="http://localhost:11434/v1/"),
        "odd": ProviderConfig(kind="openai_compatible", base_url="http://127.0.0.1:7777/v1"),
        "far": ProviderConfig(kind="openai_compatible", base_url="https://llm.example.com/v1"),
        "openai": ProviderConfig(kind="openai"),
    }

    asked = places(sections, own_port=1)

    assert asked[0] == Place("Ollama", "http://localhost:11434/v1", "mine")
    assert asked[len(USUAL) :] == (Place("odd", "http://127.0.0.1:7777/v1", "odd"),)

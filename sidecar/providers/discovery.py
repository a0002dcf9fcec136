"""Local model servers that answer, where the settings have them or where they usually listen.

Asked only when a person would like to know what there is beside the vendors: all at once, within
`WITHIN_S`, on this machine alone, without a key, and never at our own port. Whoever does not
answer with a list of models was not found.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import aiohttp
from yarl import URL

from sidecar.config import ProviderConfig, is_loopback

WITHIN_S = 0.25
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server may be; `provider` is the entry of the settings that has it."""

    name: str
    base_url: str
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answers; `models` are the ids by which it knows them, one at least."""

    place: Place
    models: tuple[str, ...]


USUAL = (
    Place("Ollama", "http://127.0.0.1:11434/v1"),
    Place("LM Studio", "http://127.0.0.1:1234/v1"),
    Place("llama.cpp", "http://127.0.0.1:8080/v1"),
    Place("vLLM", "http://127.0.0.1:8000/v1"),
    Place("Jan", "http://127.0.0.1:1337/v1"),
)


Find: TypeAlias = Callable[[], Awaitable[Sequence[Found]]]


def places(sections: Mapping[str, ProviderConfig], own_port: int) -> Sequence[Place]:
    """The usual ones and those of the settings that are on this machine: one for each port."""
    by_port = {_port(place): place for place in USUAL}
    for provider, section in sections.items():
        base_url = section.base_url
        if section.kind == "openai_compatible" and base_url and is_loopback(URL(base_url).host):
            place = Place(provider, base_url.rstrip("/"), provider)
            usual = by_port.get(_port(place), place)
            by_port[_port(place)] = replace(place, name=usual.name)
    by_port.pop(own_port, None)
    return tuple(by_port.values())


async def find(places: Sequence[Place]) -> Sequence[Found]:
    """Those of the places where a server answers and has a model, in their order."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN_S)) as session:
        answers = await asyncio.gather(*(_ask(session, place) for place in places))
    return [found for found in answers if found is not None]


def _port(place: Place) -> int | None:
    return URL(place.base_url).port


async def _ask(session: aiohttp.ClientSession, place: Place) -> Found | None:
    from sidecar.providers.dialects.openai_models import parse_models

    try:
        async with session.get(place.base_url + "/models", allow_redirects=False) as response:
            if response.status != 200:
                return None
            body = await response.content.read(MAX_BYTES)
        models = parse_models(body)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return Found(place, tuple(info.model for info in models)) if models else None

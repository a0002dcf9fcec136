"""Local model servers that answer, on the ports where they usually listen.

Asked only when a person has no key and would like to know what else there is: all at once, within
`WITHIN_S`, on this machine alone. Whoever does not answer with a list of models was not found.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp

from sidecar.providers.dialects.chat_completions import ChatCompletions

WITHIN_S = 0.25
MAX_BYTES = 256 * 1024
USUAL: Mapping[str, str] = {
    "Ollama": "http://127.0.0.1:11434/v1",
    "LM Studio": "http://127.0.0.1:1234/v1",
    "llama.cpp": "http://127.0.0.1:8080/v1",
    "vLLM": "http://127.0.0.1:8000/v1",
    "Jan": "http://127.0.0.1:1337/v1",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answers; `models` are the ids by which it knows them, one at least."""

    name: str
    base_url: str
    models: tuple[str, ...]


Find: TypeAlias = Callable[[], Awaitable[Sequence[Found]]]


async def find(servers: Mapping[str, str] = USUAL) -> Sequence[Found]:
    """Those of `servers`, names by base_url, that have a model, in their order."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN_S)) as session:
        asked = [_ask(session, name, base_url) for name, base_url in servers.items()]
        answers = await asyncio.gather(*asked)
    return [found for found in answers if found is not None]


async def _ask(session: aiohttp.ClientSession, name: str, base_url: str) -> Found | None:
    try:
        async with session.get(base_url + "/models", allow_redirects=False) as response:
            if response.status != 200:
                return None
            body = await response.content.read(MAX_BYTES)
        models = ChatCompletions(name, "max_tokens").parse_models(body)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return Found(name, base_url, tuple(info.model for info in models)) if models else None

"""What a chunk of a stream costs, for every format, beside the least that it could cost.

    uv run python -m tests.bench.chunk_cost

The least is a bare aiohttp client that reads the same stream and parses each event's JSON. Both run
in this process and in turns; the server has one of its own. Printed is the processor time for a
chunk in the middle one of all rounds, and the middle one of the rounds' ratios: machines change
their pace, and the two of a round were measured one after the other.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable
from statistics import median
from time import process_time

import aiohttp

from sidecar.config import NetworkConfig, ProviderConfig, TimeoutsConfig
from sidecar.messages import Message, TextPart
from sidecar.providers import open_provider
from sidecar.providers.base import ModelRequest, Provider, TextDelta
from sidecar.providers.http import Http
from tests.providers.conftest import nothing
from tests.support.fake_openai import Answer, FakeOpenAI
from tests.support.wire_formats import FORMATS, Format

CHUNKS = 3000
ROUNDS = 15
TIMEOUTS = TimeoutsConfig(connect_s=5, first_byte_s=30, silence_s=30, total_s=None)


async def serve() -> None:
    """Serve every format's stream at its own base_url, until stdin closes."""
    async with FakeOpenAI() as upstream:
        answers = {wire.name: Answer(stream(wire)) for wire in FORMATS}
        print(upstream.port, flush=True)
        loop = asyncio.get_running_loop()
        while name := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            upstream.will(answers[name])
            print("ready", flush=True)


def stream(wire: Format) -> list[bytes]:
    return wire.text(*(f"token{number} " for number in range(CHUNKS)))


async def bare(session: aiohttp.ClientSession, url: str) -> None:
    """Read a stream and parse it, and nothing else."""
    seen = 0
    async with session.post(url, json={}) as response:
        pending = b""
        async for data in response.content.iter_any():
            *events, pending = (pending + data).split(b"\n\n")
            for event in events:
                _, _, value = event.rpartition(b"data: ")
                if value != b"[DONE]":
                    json.loads(value)
                    seen += 1
    assert seen >= CHUNKS


async def through(provider: Provider) -> None:
    question = Message(
        message_id="q", parent_id=None, role="user", parts=(TextPart(text="Hi"),), created_at=""
    )
    seen = 0
    async for event in provider.stream(ModelRequest(model="m", history=[question])):
        seen += isinstance(event, TextDelta)
    assert seen == CHUNKS


async def cost(work: Awaitable[None]) -> float:
    """Microseconds of processor time for a chunk."""
    started = process_time()
    await work
    return (process_time() - started) / CHUNKS * 1e6


async def measure() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, "serve", stdin=-1, stdout=-1
    )
    assert server.stdin is not None and server.stdout is not None
    url = f"http://127.0.0.1:{(await server.stdout.readline()).decode().strip()}"
    http = Http(NetworkConfig(proxy=None, ca_bundle=None, trust_os_store=False))
    print(f"{'format':<18} {'least':>9} {'ours':>9} {'ratio':>7}")
    async with aiohttp.ClientSession() as session:
        for wire in FORMATS:
            server.stdin.write(f"{wire.name}\n".encode())
            await server.stdout.readline()
            provider = open_at(url, wire, http)
            await through(provider)  # what is loaded at first use is not a chunk's
            pairs = [
                (await cost(bare(session, url)), await cost(through(provider)))
                for _ in range(ROUNDS)
            ]
            least, ours = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
            ratio = median(pair[1] / pair[0] for pair in pairs)
            print(f"{wire.name:<18} {least:>6.1f} µs {ours:>6.1f} µs {ratio:>7.2f}")
    await http.close()
    server.stdin.close()
    await server.wait()


def open_at(url: str, wire: Format, http: Http) -> Provider:
    async def key() -> str:
        return "sk-benchmark"

    section = ProviderConfig(base_url=url, **wire.section)
    return open_provider(
        "bench", section, http=http, key=key, timeouts=TIMEOUTS, max_retries=0, find_local=nothing
    )


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else measure())

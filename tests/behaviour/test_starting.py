"""Starting: the ready line waits for nothing heavy, and what is imported after it stalls nobody."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sidecar.client import Client
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.program import Ping
from tests.support.fake_openai import FakeOpenAI, text, tool_calls
from tests.support.processes import PROJECT, Sidecar, environment, server, spawned

HEAVY = {"openai", "mcp", "keyring", "cryptography", "jsonschema", "httpx2"}
STALL_S = 0.1
PING_S = 0.025  # for each of them: a connection may ask fifty times a second
PINGERS = 4

# Runs the sidecar and, when a line is written to stdout, first tells there what is imported.
TELLING = """
import sys
from sidecar.cli import main

class Telling:
    def __init__(self, stdout):
        self.stdout = stdout
    def write(self, text):
        names = sorted({name.partition(".")[0] for name in sys.modules})
        sys.stderr.write(" ".join(names) + "\\n")
        sys.stderr.flush()
        return self.stdout.write(text)
    def __getattr__(self, name):
        return getattr(self.stdout, name)

sys.stdout = Telling(sys.stdout)
sys.exit(main(sys.argv[1:]))
"""


async def test_nothing_heavy_is_imported_when_the_ready_line_is_written(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed", "--demo", python=("-c", TELLING)) as sidecar:
        ready = await sidecar.first_line()
        at_the_line = set(sidecar.stderr.splitlines()[0].split())

    assert ready["event"] == "ready"
    assert "aiohttp" in at_the_line  # the list is one
    assert at_the_line.isdisjoint(HEAVY)


async def test_importing_the_sdks_after_the_ready_line_stalls_nobody(tmp_path: Path) -> None:
    """A busy machine may stall us itself, so that a second try is allowed."""
    worst_s = await longest_ping(tmp_path)
    if worst_s >= STALL_S:
        worst_s = min(worst_s, await longest_ping(tmp_path))

    assert worst_s < STALL_S, f"a ping took {worst_s * 1000:.0f} ms"


async def longest_ping(home: Path) -> float:
    """Of those that are sent until both SDKs have served a chat with a tool, in seconds."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeOpenAI())
        upstream.will(tool_calls(("plain__echo", {"text": "hello"})), text("Done."))
        openai = f"{{kind: openai, api: chat, base_url: '{upstream.url}', api_key: sk-test}}"
        settings = (
            f"chat: {{model: openai/gpt-4o-mini}}\nproviders: {{openai: {openai}}}\n"
            f"mcp: {{servers: {{plain: {server('plain')}}}}}\n"
        )
        sidecar = await stack.enter_async_context(spawned(home, "--managed", settings=settings))
        await sidecar.first_line()
        watches = [
            await stack.enter_async_context(pinging(sidecar, number * PING_S / PINGERS))
            for number in range(PINGERS)
        ]
        client = await stack.enter_async_context(sidecar.client(answers=["approvals"]))
        run = await client.chat("hello")
        approval = (await client.event(ApprovalsPending)).data
        answer = ApprovalsResolvePayload(approval_id=approval.approval_id, decision="allow")
        await client.request(ApprovalsResolve, answer)
        await run.finished()
        assert run.text == "Done."
        return max(longest_s() for longest_s in watches)


@asynccontextmanager
async def pinging(sidecar: Sidecar, after_s: float) -> AsyncIterator[Callable[[], float]]:
    """Yields how to ask for the longest time that an answer took."""
    longest_s = 0.0

    async def ping(client: Client) -> None:
        nonlocal longest_s
        await asyncio.sleep(after_s)
        while True:
            sent_at = time.perf_counter()
            await client.request(Ping)
            longest_s = max(longest_s, time.perf_counter() - sent_at)
            await asyncio.sleep(PING_S)

    async with sidecar.client() as client:
        task = asyncio.create_task(ping(client))
        yield lambda: longest_s
        task.cancel()


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("serve", "--help")])
def test_help_and_version_import_nothing_that_takes_time(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sidecar", *arguments],
        cwd=PROJECT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in said.stderr.splitlines()
    }
    assert "argparse" in imported  # the list is one
    assert imported.isdisjoint(HEAVY | {"aiohttp", "pydantic", "structlog", "yaml", "platformdirs"})

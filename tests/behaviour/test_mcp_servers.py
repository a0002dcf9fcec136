"""The person's MCP servers as a client sees them; how they are run is tested in tests/mcp_host."""

import os
import signal

import pytest

from sidecar.client import Client
from sidecar.protocol.mcp import (
    McpServersList,
    McpServersLogs,
    McpServersRestart,
    McpServerStateChanged,
    McpServerStatus,
    ServerLogsPayload,
    ServerPayload,
)
from tests.behaviour.conftest import PLAIN_SERVER, Join, Start
from tests.behaviour.test_tools_and_approval import answer, asked, results
from tests.support.fake_openai import FakeOpenAI, text, tool_calls


async def until(client: Client, *states: str, server: str = "plain") -> McpServerStatus:
    """Wait until the server is in one of the states."""
    while True:
        listing = await client.request(McpServersList)
        status = next(item for item in listing.items if item.server == server)
        if status.state in states:
            return status
        await client.event(McpServerStateChanged)


@pytest.fixture
async def client(start: Start, join: Join) -> Client:
    return await join(await start(PLAIN_SERVER), events=["mcp"], answers=["approvals"])


async def test_a_server_that_runs_says_what_it_is(client: Client) -> None:
    status = await until(client, "ready")

    assert status.transport == "stdio"
    assert status.era == "2025-11-25"
    assert status.tools > 5
    assert status.pid is not None


async def test_a_killed_server_is_noticed_and_comes_back(client: Client) -> None:
    before = await until(client, "ready")
    assert before.pid is not None

    os.kill(before.pid, signal.SIGKILL)

    down = await until(client, "backoff", "starting")
    assert down.error_info is None or down.error_info.code == "mcp_crashed"
    after = await until(client, "ready")
    assert after.pid != before.pid


async def test_a_server_can_be_restarted(client: Client) -> None:
    before = await until(client, "ready")

    await client.request(McpServersRestart, ServerPayload(server="plain"))

    after = await until(client, "ready")
    assert after.pid != before.pid


async def test_a_server_that_cannot_start_says_why_and_disturbs_no_chat(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    broken = "mcp: {servers: {broken: {command: no-such-command-anywhere}}}"
    client = await join(await start(broken), events=["mcp"])
    status = await until(client, "failed", "backoff", server="broken")

    assert status.error_info is not None
    assert status.error_info.code == "mcp_start_failed"
    assert "no-such-command-anywhere" in (status.error or "")
    run = await client.chat("Hi")
    assert (await run.finished()).finish_reason == "stop"


async def test_a_servers_last_words_can_be_read(client: Client, upstream: FakeOpenAI) -> None:
    upstream.will(tool_calls(("plain__echo", {"text": "to stderr too"})), text("."))
    run = await client.chat("Say it")
    await answer(client, await asked(client), "allow")
    await run.finished()

    logs = await client.request(McpServersLogs, ServerLogsPayload(server="plain"))

    assert logs.items[-1] == "echo to stderr too"


async def test_a_server_that_dies_in_a_call_leaves_the_turn_alive(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls(("plain__die", {})), text("It died."))
    run = await client.chat("Kill it")
    await answer(client, await asked(client), "allow")

    [(status, _)] = await results(run)
    assert status == "unknown"
    assert run.text == "It died."

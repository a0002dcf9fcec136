"""`sidecar --managed`: what the program that spawns it sees, and that nothing outlives it."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar import __version__
from sidecar.client import CannotConnect, Client, ConnectionLost
from sidecar.lifetime import SECOND_SIGNAL_S, SHUTDOWN_S
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.mcp import (
    McpServersList,
    McpServerStateChanged,
    McpToolsCall,
    ToolsCallPayload,
    ToolsCallResult,
)
from sidecar.protocol.program import ServerShutdown, Shutdown
from tests.support.processes import Sidecar, run, server, spawned

TOKEN = "t0ken-" + "x" * 40
DEMO_MODEL = "chat: {model: demo/scripted}\nproviders: {demo: {kind: demo}}\n"
READY_FIELDS = {
    "event",
    "protocol",
    "version",
    "pid",
    "host",
    "port",
    "url",
    "http",
    "token",
    "log_file",
}
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def with_server(name: str, *arguments: str) -> str:
    return f"{DEMO_MODEL}mcp: {{servers: {{child: {server(name, *arguments)}}}}}\n"


def logged(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


async def until_ready(client: Client) -> None:
    """Wait for the server `child`."""
    while (await client.request(McpServersList)).items[0].state != "ready":
        await client.event(McpServerStateChanged)


async def call(client: Client, tool: str) -> ToolsCallResult:
    """Call a tool of `child` and allow it."""
    payload = ToolsCallPayload(server="child", name=tool, arguments={})
    async with asyncio.TaskGroup() as group:
        calling = group.create_task(client.request(McpToolsCall, payload))
        approval = (await client.event(ApprovalsPending)).data
        answer = ApprovalsResolvePayload(approval_id=approval.approval_id, decision="allow")
        await client.request(ApprovalsResolve, answer)
    return calling.result()


async def test_the_ready_line_is_the_only_line_and_says_how_to_connect(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed", "--demo") as sidecar:
        ready = await sidecar.first_line()
        async with sidecar.client() as client:
            run = await client.chat("hello")
            await run.finished()
        sidecar.close_stdin()
        code, rest = await sidecar.ended()

    assert ready.keys() == READY_FIELDS
    assert (ready["event"], ready["protocol"], ready["version"]) == ("ready", 1, __version__)
    assert (ready["pid"], ready["host"]) == (sidecar.process.pid, "127.0.0.1")
    assert ready["http"] == f"http://127.0.0.1:{ready['port']}"
    assert ready["url"] == f"ws://127.0.0.1:{ready['port']}/ws/chat"
    assert "demo script" in run.text
    assert (code, rest, sidecar.stderr) == (0, "", "")
    log = logged(ready["log_file"])
    assert log[0]["event"] == "listening"
    assert "stopping" in [line["event"] for line in log[-2:]]
    assert ready["token"] not in str(log)


async def test_only_the_port_flag_sets_the_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = f"server: {{port: {port}}}"

        async with spawned(tmp_path, "--managed", settings=settings) as sidecar:
            ready = await sidecar.first_line()
        async with spawned(tmp_path, "--managed", "--port", str(port)) as second:
            error = await second.first_line()
            code, rest = await second.ended()

    assert ready["event"] == "ready"
    assert ready["port"] != port
    assert (error["event"], error["code"], code, rest) == ("error", "port_in_use", 3, "")
    assert str(port) in error["message"]


async def test_a_token_of_the_parent_is_the_one_that_works_and_no_child_sees_it(
    tmp_path: Path,
) -> None:
    secrets = {"SIDECAR_TOKEN": TOKEN, "OPENAI_API_KEY": "sk-secret"}
    settings = with_server("plain")
    async with spawned(tmp_path, "--managed", settings=settings, environ=secrets) as sidecar:
        ready = await sidecar.first_line()
        async with sidecar.client(TOKEN, events=["mcp"], answers=["approvals"]) as client:
            await until_ready(client)
            environ = json.loads((await call(client, "environment")).text)
        with pytest.raises(CannotConnect) as refusal:
            async with sidecar.client(TOKEN[::-1]):
                pass

    assert ready.keys() == READY_FIELDS - {"token"}
    assert refusal.value.status == 401
    assert environ["HOME"] == str(tmp_path)
    assert not [name for name in environ if name.startswith("SIDECAR_") or "KEY" in name]


@pytest.mark.parametrize("token", ["", TOKEN + " and more"])
async def test_a_token_of_another_shape_is_an_error_that_does_not_repeat_it(
    tmp_path: Path, token: str
) -> None:
    finished = await run(tmp_path, "--managed", environ={"SIDECAR_TOKEN": token})

    error = json.loads(finished.stdout)
    assert (finished.code, finished.stderr) == (2, "")
    assert (error["event"], error["code"]) == ("error", "config_invalid")
    assert "SIDECAR_TOKEN" in error["message"]
    assert not token or token not in error["message"]


@pytest.mark.parametrize(
    "end",
    [
        "stdin",
        "request",
        pytest.param("SIGTERM", marks=posix),
        pytest.param("SIGINT", marks=posix),
        pytest.param("SIGHUP", marks=posix),
    ],
)
async def test_whatever_ends_it_ends_it_cleanly(tmp_path: Path, end: str) -> None:
    """Clients are told, turns are cancelled and kept, servers and what they started are gone."""
    async with spawned(tmp_path, "--managed", settings=with_server("plain")) as sidecar:
        await sidecar.first_line()
        async with sidecar.client(events=["mcp"], answers=["approvals"]) as client:
            await until_ready(client)
            grandchild = int((await call(client, "child")).text)
            run = await client.chat("long")
            await run.text_so_far("word 0")
            family = {process.pid for process in sidecar.family()}

            await ask_to_end(sidecar, client, end)

            notice = (await client.event(ServerShutdown)).data
            outcome = await run.finished()
            with pytest.raises(ConnectionLost) as lost:
                await client.event(McpServerStateChanged)
                while True:
                    await client.event(McpServerStateChanged)
        code, rest = await sidecar.ended()
        left = sidecar.family()

    assert family > {sidecar.process.pid, grandchild}
    assert notice.reason == {"stdin": "stdin_closed", "request": "request"}.get(end, end.lower())
    assert notice.deadline_ms == SHUTDOWN_S * 1000
    assert outcome.finish_reason == "cancelled"
    assert lost.value.close_code == 1001
    assert (code, rest, sidecar.stderr, left) == (0, "", "", [])


async def ask_to_end(sidecar: Sidecar, client: Client, end: str) -> None:
    if end == "stdin":
        sidecar.close_stdin()
    elif end == "request":
        await client.request(Shutdown)
    else:
        sidecar.send(signal.Signals[end])


@posix
async def test_two_signals_at_once_are_one_and_a_stubborn_server_delays_at_most_six_seconds(
    tmp_path: Path,
) -> None:
    async with spawned(tmp_path, "--managed", settings=with_server("faulty", "Deaf")) as sidecar:
        await sidecar.first_line()
        async with sidecar.client(events=["mcp"]) as client:
            await until_ready(client)
            asked_at = time.monotonic()
            sidecar.send(signal.SIGTERM)
            sidecar.send(signal.SIGTERM)
            await client.event(ServerShutdown)
        code, _ = await sidecar.ended()
        took_s = time.monotonic() - asked_at
        left = sidecar.family()

    assert (code, left, sidecar.stderr) == (0, [], "")
    assert took_s < SHUTDOWN_S


@posix
async def test_a_second_signal_ends_it_at_once_and_its_servers_too(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed", settings=with_server("faulty", "Deaf")) as sidecar:
        await sidecar.first_line()
        async with sidecar.client(events=["mcp"]) as client:
            await until_ready(client)
            sidecar.send(signal.SIGTERM)
            await client.event(ServerShutdown)
            await asyncio.sleep(SECOND_SIGNAL_S + 0.1)  # what tells it from the first one's echo
            asked_at = time.monotonic()
            sidecar.send(signal.SIGTERM)
            code, _ = await sidecar.ended()
            took_s = time.monotonic() - asked_at
        await sidecar.until_alone()

    assert code == 128 + signal.SIGTERM
    assert took_s < 1
    assert sidecar.stderr == ""


@posix
async def test_a_killed_sidecar_leaves_no_server_that_notices_its_closed_input(
    tmp_path: Path,
) -> None:
    async with spawned(tmp_path, "--managed", settings=with_server("plain")) as sidecar:
        await sidecar.first_line()
        async with sidecar.client(events=["mcp"]) as client:
            await until_ready(client)
            sidecar.send(signal.SIGKILL)
            await sidecar.ended()

        await sidecar.until_alone()


@pytest.mark.parametrize("how", ["/dev/null", pytest.param("closed", marks=posix)])
async def test_without_a_pipe_on_stdin_it_says_so_and_does_not_start(
    tmp_path: Path, how: str
) -> None:
    devnull = asyncio.subprocess.DEVNULL
    close = "import os, sys; os.close(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    python = ("-m", "sidecar") if how == "/dev/null" else ("-c", close, "-m", "sidecar")
    async with spawned(tmp_path, "--managed", stdin=devnull, python=python) as sidecar:
        error = await sidecar.first_line()
        code, rest = await sidecar.ended()

    assert (error["event"], error["code"], code, rest) == ("error", "config_invalid", 2, "")
    assert "pipe on stdin" in error["message"]
    assert sidecar.stderr == ""


async def test_settings_that_are_wrong_are_told_with_file_and_line(tmp_path: Path) -> None:
    settings = "chat:\n  max_step: 3\n"
    async with spawned(tmp_path, "--managed", settings=settings) as sidecar:
        error = await sidecar.first_line()
        code, rest = await sidecar.ended()

    assert (error["event"], error["code"], code, rest) == ("error", "config_invalid", 2, "")
    assert f"{tmp_path / 'settings.yaml'}, line 2" in error["message"]
    assert "max_steps" in error["message"]


@pytest.mark.parametrize("arguments", [["--port", "many"], ["--profile", "../up"]])
async def test_a_wrong_command_line_is_an_error_line_too(
    tmp_path: Path, arguments: list[str]
) -> None:
    finished = await run(tmp_path, "--managed", *arguments)

    error = json.loads(finished.stdout)
    assert (finished.code, finished.stderr) == (2, "")
    assert (error["event"], error["code"]) == ("error", "config_invalid")
    assert arguments[-1] in error["message"]


async def test_folders_that_cannot_be_made_are_an_error_line_too(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")

    finished = await run(tmp_path, "--managed")

    error = json.loads(finished.stdout)
    assert (finished.code, finished.stderr) == (2, "")
    assert error["code"] == "config_invalid"
    assert str(tmp_path / "data") in error["message"]
    assert os.listdir(tmp_path / "config")

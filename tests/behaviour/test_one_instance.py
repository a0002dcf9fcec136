"""One sidecar per profile: who comes second, who finds the first, and two that never meet."""

import asyncio
import json
import sys
from asyncio import gather
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar import __version__
from sidecar.instance import DISCOVERY
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.mcp import McpToolsCall, ToolsCallPayload
from sidecar.protocol.providers import KeysStatus
from tests.support.keyrings import FILE_VARIABLE
from tests.support.processes import (
    PATIENCE_S,
    Sidecar,
    on_terminal,
    run,
    server,
    spawned,
)

KEY = "sk-test-0123456789abcdefghijklmnop"
SCRIPT = "chat: {model: demo/scripted}\nproviders: {demo: {kind: demo}}\n"
TOOLS = f"{SCRIPT}mcp: {{servers: {{plain: {server('plain')}}}}}\n"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


def keyring(home: Path) -> dict[str, str]:
    return {
        "PYTHON_KEYRING_BACKEND": "tests.support.keyrings.FileKeyring",
        FILE_VARIABLE: str(home / "keyring.json"),
    }


def discovery(home: Path) -> Path:
    return home / "data" / "sidecar" / DISCOVERY


def found(home: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(discovery(home).read_text())
    return content


@asynccontextmanager
async def standalone(home: Path, *arguments: str, **options: Any) -> AsyncIterator[Sidecar]:
    """`sidecar` as a person starts it, once it says where it is; any free port."""
    async with spawned(home, "--port", "0", *arguments, **options) as sidecar:
        assert sidecar.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            shown = [(await sidecar.process.stdout.readline()).decode() for _ in range(4)]
        assert shown[-1].startswith("  token"), sidecar.stderr
        sidecar.line = found(home)
        yield sidecar


# ---- standalone -----------------------------------------------------------------------------


async def test_a_person_s_sidecar_can_be_found_until_it_ends(tmp_path: Path) -> None:
    async with standalone(tmp_path) as sidecar:
        line = sidecar.line
        async with sidecar.client():
            pass
        sidecar.process.terminate()
        code, _ = await sidecar.ended()

    assert line.keys() == {"url", "http", "token", "pid", "started_at", "version"}
    assert (line["pid"], line["version"]) == (sidecar.process.pid, __version__)
    assert line["url"] == line["http"].replace("http", "ws") + "/ws/chat"
    assert code == 0
    assert not discovery(tmp_path).exists()


async def test_a_second_start_says_where_the_first_one_is(tmp_path: Path) -> None:
    async with standalone(tmp_path) as first:
        http, token = first.line["http"], first.line["token"]

        second = await run(tmp_path, "--port", "0")
        script = await run(tmp_path, "--port", "0", "--no-browser")

        assert found(tmp_path) == first.line

    assert (second.code, second.stderr) == (0, "")
    assert f"{http}/\n" in second.stdout
    assert (script.code, script.stdout) == (4, "")
    (line,) = script.stderr.splitlines()
    assert f"{http}/" in line
    assert token not in second.stdout + script.stderr


async def test_two_starts_at_once_are_one_sidecar(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--port", "0") as one, spawned(tmp_path, "--port", "0") as other:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait(
                [asyncio.create_task(each.process.wait()) for each in (one, other)],
                return_when=asyncio.FIRST_COMPLETED,
            )
        [second] = [each for each in (one, other) if each.process.returncode is not None]
        [first] = [each for each in (one, other) if each is not second]
        code, said = await second.ended()
        first.process.terminate()
        await first.ended()

    assert code == 0
    assert "is running already" in said


async def test_a_killed_sidecar_is_no_hindrance(tmp_path: Path) -> None:
    async with standalone(tmp_path) as first:
        first.process.kill()
        await first.ended()
    assert found(tmp_path) == first.line

    chat = await run(tmp_path, "chat", *configured(tmp_path, SCRIPT), "hello")
    listed = await run(tmp_path, "mcp", "list")
    async with standalone(tmp_path) as second:
        assert second.line["pid"] == second.process.pid

    assert chat.code == 0
    assert (listed.code, "asking" in listed.stderr) == (0, False)


async def test_a_managed_start_clears_what_a_killed_sidecar_left(tmp_path: Path) -> None:
    async with standalone(tmp_path) as first:
        first.process.kill()
        await first.ended()

    async with spawned(tmp_path, "--managed") as managed:
        await managed.first_line()

        assert not discovery(tmp_path).exists()


@posix
async def test_a_discovery_file_of_somebody_else_is_ignored_and_that_is_said(
    tmp_path: Path,
) -> None:
    discovery(tmp_path).parent.mkdir(parents=True)
    discovery(tmp_path).symlink_to(tmp_path / "theirs")

    listed = await run(tmp_path, "mcp", "list")
    async with standalone(tmp_path) as sidecar:
        assert sidecar.line["pid"] == sidecar.process.pid
        assert not discovery(tmp_path).is_symlink()

    assert listed.code == 0
    assert "is ignored: it is a symbolic link" in listed.stderr
    assert not (tmp_path / "theirs").exists()


# ---- managed --------------------------------------------------------------------------------


async def test_a_second_managed_start_takes_over_when_the_first_one_ends(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed") as first:
        await first.first_line()
        async with spawned(tmp_path, "--managed") as second:
            waiting = asyncio.create_task(second.first_line())
            first.close_stdin()
            await first.ended()

            ready = await waiting

    assert (ready["event"], ready["pid"]) == ("ready", second.process.pid)
    assert not discovery(tmp_path).exists()


async def test_a_second_managed_start_gives_up_after_eight_seconds(tmp_path: Path) -> None:
    async with standalone(tmp_path) as first, spawned(tmp_path, "--managed") as second:
        error = await second.first_line()
        code, rest = await second.ended()

        assert found(tmp_path) == first.line  # and the first one is as it was

    assert (error["event"], error["code"], code, rest) == ("error", "already_running", 4, "")
    assert "--profile" in error["message"]


async def test_a_managed_start_that_waits_ends_with_its_parent(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed") as first:
        await first.first_line()
        async with spawned(tmp_path, "--managed") as second:
            second.close_stdin()

            code, _ = await second.ended()

    assert code == 4


async def test_two_profiles_never_meet(tmp_path: Path) -> None:
    async with (
        standalone(tmp_path) as usual,
        spawned(tmp_path, "--managed", "--profile", "one") as one,
        spawned(tmp_path, "--managed", "--profile", "two") as two,
    ):
        ready = [await one.first_line(), await two.first_line()]
        listed = await run(tmp_path, "mcp", "list", "--profile", "one")

    assert [line["event"] for line in ready] == ["ready", "ready"]
    assert len({line["http"] for line in (usual.line, *ready)}) == 3
    assert "asking" not in listed.stderr  # a managed one lets nobody find it


# ---- the commands ---------------------------------------------------------------------------


def configured(home: Path, settings: str) -> tuple[str, str]:
    file = home / "other.yaml"
    file.write_text(settings)
    return "--config", str(file)


async def test_chat_and_mcp_ask_the_running_sidecar_and_say_which(tmp_path: Path) -> None:
    async with standalone(tmp_path, settings=TOOLS) as sidecar:
        chat = await run(tmp_path, "chat", "--yes", 'call echo {"text": "hello"}')
        called = await run(tmp_path, "mcp", "call", "plain/echo", '{"text": "hello"}')
        own = await run(tmp_path, "chat", *configured(tmp_path, SCRIPT), "hello")

    asking = f"sidecar: asking the one at {sidecar.line['http']}\n"
    assert (chat.code, chat.stdout) == (0, "The tool echo returned: hello\n")
    assert (called.code, called.stdout) == (0, "hello\n")
    assert chat.stderr.startswith(asking)
    assert called.stderr == asking
    assert own.code == 0
    assert asking not in own.stderr  # it has settings of its own


async def test_yes_allows_what_this_chat_calls_and_nothing_that_another_window_does(
    tmp_path: Path,
) -> None:
    async with (
        standalone(tmp_path, settings=TOOLS) as sidecar,
        sidecar.client(answers=["approvals"]) as window,
    ):
        payload = ToolsCallPayload(server="plain", name="echo", arguments={"text": "window"})
        async with asyncio.timeout(PATIENCE_S):
            waiting = await window.chat('call echo {"text": "window"}')
            theirs = [(await window.event(ApprovalsPending)).data.approval_id]
            calling = asyncio.create_task(window.request(McpToolsCall, payload))
            theirs.append((await window.event(ApprovalsPending)).data.approval_id)

        chat = await run(tmp_path, "chat", "--yes", 'call echo {"text": "terminal"}')
        called = await run(tmp_path, "mcp", "call", "plain/echo", '{"text": "typed"}')
        answers = [ApprovalsResolvePayload(approval_id=each, decision="deny") for each in theirs]
        resolved = [await window.request(ApprovalsResolve, answer) for answer in answers]
        await gather(waiting.finished(), calling)

    assert chat.stdout == "The tool echo returned: terminal\n"
    assert called.stdout == "typed\n"
    assert all(each.applied for each in resolved)  # so nobody had answered them


async def test_a_running_sidecar_knows_a_new_key_at_once(tmp_path: Path) -> None:
    environ = keyring(tmp_path)
    async with standalone(tmp_path, environ=environ) as sidecar, sidecar.client() as client:
        stored = await run(tmp_path, "keys", "set", "openai", stdin=f"{KEY}\n", environ=environ)
        known = {item.provider: item.set for item in (await client.request(KeysStatus)).items}
        status = await run(tmp_path, "keys", "status", environ=environ)
        deleted = await run(tmp_path, "keys", "delete", "openai", environ=environ)
        left = {item.provider: item.set for item in (await client.request(KeysStatus)).items}

    assert (stored.code, stored.stdout) == (0, "The key for openai is in the keyring.\n")
    assert (known["openai"], left["openai"]) == (True, False)
    assert "openai       keyring\n" in status.stdout
    assert (deleted.code, deleted.stdout) == (0, "The keyring has no key for openai now.\n")
    for finished in (stored, status, deleted):
        assert finished.stderr.startswith("sidecar: asking the one at ")
        assert KEY not in finished.stdout + finished.stderr


async def test_a_key_that_a_running_sidecar_refuses_is_one_line_and_its_exit_code(
    tmp_path: Path,
) -> None:
    async with standalone(tmp_path):
        empty = await run(tmp_path, "keys", "set", "openai", stdin="\n")
        long = await run(tmp_path, "keys", "set", "openai", stdin="k" * 5000)
        nowhere = await run(tmp_path, "keys", "set", "openai", stdin=KEY)

    assert [empty.code, long.code, nowhere.code] == [2, 2, 5]
    assert "kkk" not in long.stderr
    assert "no keyring that keeps secrets" in nowhere.stderr


@posix
async def test_an_answer_given_beside_a_managed_sidecar_is_remembered(tmp_path: Path) -> None:
    rules = tmp_path / "data" / "sidecar" / "rules.json"
    config = configured(tmp_path, TOOLS)
    async with spawned(tmp_path, "--managed") as managed:
        await managed.first_line()
        async with on_terminal(tmp_path, "chat", *config, 'call echo {"text": "a"}') as screen:
            await screen.until("[n]o: ")
            screen.type("a\n")
            await screen.until("The tool echo returned: a")
            assert await screen.ended() == 0
        managed.close_stdin()
        await managed.ended()

    assert "echo" in rules.read_text()
    async with on_terminal(tmp_path, "chat", *config, 'call echo {"text": "b"}') as screen:
        await screen.until("The tool echo returned: b")
        assert await screen.ended() == 0

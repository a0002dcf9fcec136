"""A server's life: how it starts, what goes wrong, and that it comes back."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from sidecar.config import McpServerConfig
from sidecar.errors import Conflict, NotFound
from sidecar.mcp_host import server, session
from tests.support.bridge import TRANSPORTS, modern_over_http, served
from tests.support.hosts import faulty, is_alive, loop_watch, modern, plain, running, until_dead


async def test_a_server_becomes_ready_with_its_tools() -> None:
    async with running(s=plain()) as host:
        await host.host.settled()

        assert host.states() == ["starting", "ready"]
        assert host.status().era == "2025-11-25"
        assert host.status().pid in host.pids
        assert host.status().since.endswith("Z")
        assert host.tool("echo").name == "s__echo"
        assert (await host.call("echo", text="hello")).text == "hello"


async def test_a_disabled_server_is_not_started() -> None:
    async with running(s=plain(enabled=False)) as host:
        await host.host.settled()

        assert host.status().state == "disabled"
        assert not host.pids
        with pytest.raises(Conflict, match="enabled"):
            await host.host.restart("s")


async def test_an_unknown_server_is_answered_with_the_known_ones() -> None:
    async with running(files=plain(enabled=False)) as host:
        with pytest.raises(NotFound, match="files"):
            await host.host.restart("fils")
        with pytest.raises(NotFound, match="files"):
            host.host.logs("fils", 10)


# ---- it cannot start ------------------------------------------------------------------------


async def test_a_missing_command_is_named_with_the_path_that_was_searched() -> None:
    config = McpServerConfig(command="no-such-command-here", env={"PATH": "/nowhere"})

    async with running(s=config) as host:
        status = await host.state("failed")

    assert status.error is not None
    assert "no-such-command-here" in status.error
    assert "/nowhere" in status.error
    assert status.error_info is not None
    assert status.error_info.code == "mcp_start_failed"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission to execute")
async def test_a_file_that_is_not_executable_is_told_from_a_missing_one(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text("#!/bin/sh\n")

    async with running(s=McpServerConfig(command=str(script))) as host:
        status = await host.state("failed")

    assert "not executable" in (status.error or "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interpreter lines")
async def test_a_missing_interpreter_is_told_from_a_missing_script(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)

    async with running(s=McpServerConfig(command=str(script))) as host:
        status = await host.state("failed")

    assert "interpreter" in (status.error or "")


async def test_a_missing_working_folder_is_not_mistaken_for_a_missing_command() -> None:
    async with running(s=plain(cwd="/no/such/folder")) as host:
        status = await host.state("failed")

    assert "/no/such/folder" in (status.error or "")


async def test_an_exit_at_once_is_told_with_its_code_and_its_last_words() -> None:
    async with running(s=faulty("ExitsAtOnce")) as host:
        status = await host.state("backoff")

    assert "exited with code 3" in (status.error or "")
    assert "the settings file is missing" in (status.error or "")
    assert status.error_info is not None
    assert "the settings file is missing" in (status.error_info.detail or "")


async def test_a_servers_secrets_stay_here_when_it_tells_them() -> None:
    async with running(s=faulty("Leaky", env={"SERVICE_KEY": "open sesame"})) as host:
        status = await host.state("backoff")

        told = [status.model_dump_json(), *host.host.logs("s", 10)]

    assert "cannot log in with [redacted]" in (status.error or "")
    assert "on stdout: my key is [redacted]" in told[0].replace("\\n", "\n")
    assert "sesame" not in "\n".join(told)


async def test_a_mute_server_is_given_up_at_its_own_deadline() -> None:
    async with running(s=faulty("Mute", connect_timeout_s=0.5)) as host:
        await host.state("starting")
        began = time.monotonic()
        status = await host.state("backoff")

    assert time.monotonic() - began < 4  # of which the child's start and end are most
    assert status.error_info is not None
    assert status.error_info.code == "mcp_timeout"
    assert "0.5 s" in (status.error or "")
    assert "ignored server/discover" in (status.error_info.detail or "")


async def test_a_server_that_ends_on_the_modern_probe_is_started_again_without_it() -> None:
    async with running(s=faulty("DiesOnProbe")) as host:
        await host.state("ready")

        assert host.states() == ["starting", "ready"]
        assert "unknown method server/discover" in host.host.logs("s", 10)
        assert (await host.call("echo", text="hi")).text == "hi"


async def test_a_server_that_comes_back_is_not_probed_again() -> None:
    async with running(s=faulty("DiesOnProbe")) as host:
        await host.state("ready")
        started = len(host.pids)

        await host.call("die")
        await host.state("backoff")
        await host.state("ready")

        assert started == 2
        assert len(host.pids) == 3


async def test_after_five_failures_it_is_left_alone_until_somebody_restarts_it() -> None:
    async with running(s=faulty("ExitsAtOnce")) as host:
        await host.until(lambda: host.status().state == "failed" or len(host.events) > 200)

        assert host.status().state == "failed"
        assert host.states().count("backoff") == 4

        status = await host.host.restart("s")

        assert status.state == "starting"
        await host.state("backoff")


# ---- it talks nonsense ----------------------------------------------------------------------


async def test_a_banner_on_stdout_does_not_disturb() -> None:
    async with running(s=faulty("Banner")) as host:
        await host.state("ready")

        assert (await host.call("echo", text="hi")).text == "hi"


@pytest.mark.parametrize(("fault", "shown"), [("BadUtf8", "caf\ufffd"), ("HalfSurrogate", "cut ?")])
async def test_text_that_is_not_unicode_costs_a_character_not_the_call(
    fault: str, shown: str
) -> None:
    async with running(s=faulty(fault)) as host:
        await host.state("ready")

        assert (await host.call("echo")).text == shown


async def test_a_malformed_tool_costs_only_itself() -> None:
    async with running(s=faulty("MalformedTools")) as host:
        await host.state("ready")

        assert [tool.server_name for tool in host.host.tools()] == ["echo", "refuse"]
        notes = "\n".join(host.host.logs("s", 20))
        for name in ("no_schema", "bad_annotations", "bad_type", "array_arguments", "too_large"):
            assert name in notes
        assert f"{'n' * 128!r} is left out: its name has more than 128" in notes


@pytest.mark.parametrize(("fault", "tools"), [("EndlessCursor", 100), ("SameCursor", 2)])
async def test_a_list_without_an_end_is_cut(fault: str, tools: int) -> None:
    async with running(s=faulty(fault)) as host:
        await host.state("ready")

        assert len(host.host.tools()) == tools


async def test_more_tools_than_a_server_may_have_are_left_out() -> None:
    async with running(s=faulty("ManyTools")) as host:
        await host.state("ready")

        assert len(host.host.tools()) == 512


async def test_a_server_whose_list_fails_is_degraded_and_says_why() -> None:
    async with running(s=faulty("ListFails")) as host:
        status = await host.state("degraded")

    assert status.error_info is not None
    assert status.error_info.code == "mcp_invalid_result"
    assert "tools" in (status.error or "")


# ---- its tools change -----------------------------------------------------------------------


async def test_changed_tools_are_listed_again_once_and_told_by_their_difference() -> None:
    async with running(s=faulty("Changing")) as host:
        await host.state("ready")
        before = host.tool("echo").digest

        await host.call("grow")
        await host.until(lambda: len(host.tool_changes()) > 1)

        first, second = host.tool_changes()
        assert first.added == ("echo", "grow")
        assert (second.added, second.removed, second.changed) == (("new",), (), ("echo",))
        assert host.tool("echo").digest != before


async def test_changed_tools_of_a_modern_server_are_listed_again_too() -> None:
    async with running(s=modern()) as host:
        assert (await host.state("ready")).era == "2026-07-28"

        await host.call("grow")
        await host.until(lambda: len(host.tool_changes()) > 1)

        assert [change.added for change in host.tool_changes()] == [("grow",), ("new",)]


async def test_changed_tools_of_a_modern_server_are_told_over_http_too() -> None:
    async with modern_over_http() as config, running(s=config) as host:
        assert (await host.state("ready")).era == "2026-07-28"

        await host.call("grow")
        await host.until(lambda: len(host.tool_changes()) > 1)

        assert [change.added for change in host.tool_changes()] == [("grow",), ("new",)]


@pytest.mark.parametrize("transport", TRANSPORTS[1:])
async def test_changed_tools_are_listed_again_over_http_too(transport: str) -> None:
    async with served(transport, "Changing") as config, running(s=config) as host:
        await host.state("ready")

        await host.call("grow")
        await host.until(lambda: len(host.tool_changes()) > 1)

        assert host.tool_changes()[1].added == ("new",)


async def test_a_server_that_announces_changes_on_and_on_is_asked_less_and_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "REFRESH_S", (0.05, 0.4))
    async with running(s=faulty("Stormy")) as host:
        await host.said("listed", times=6)

        listed_at = [float(line.split()[1]) for line in host.host.logs("s", 10)[-6:]]
        gaps_s = [after - before for before, after in pairwise(listed_at)]
        assert gaps_s[-2] > 0.35 and gaps_s[-1] > 0.35
        assert host.status().state == "ready"


async def test_a_subscription_that_always_ends_is_opened_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.mcp_host.session.RELISTEN_S", (0.05, 0.4))
    async with running(s=faulty("Inattentive")) as host:
        await host.said("listen ", times=6)

        told = [line.split(maxsplit=2) for line in host.host.logs("s", 50) if " [" in line][:6]
        gaps_s = [float(after[1]) - float(before[1]) for before, after in pairwise(told)]
        assert gaps_s[-1] > 0.35 and gaps_s[0] < gaps_s[-1]
        assert {line[2] for line in told} == {"['promptsListChanged', 'toolsListChanged']"}
        # while it does not listen, it asks
        assert host.host.logs("s", 50).count("listed") > 1


async def test_a_list_that_failed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RELIST_S", 0.1)
    async with running(s=faulty("ListsLater")) as host:
        await host.state("degraded")

        status = await host.state("ready")

        assert (status.error, status.tools > 5) == (None, True)


async def test_denied_tools_are_not_offered_and_allowed_ones_are_marked() -> None:
    async with running(s=plain(allow=("echo", "die"), deny=("die",))) as host:
        await host.state("ready")

        tools = {tool.server_name: tool.allowed for tool in host.host.tools()}
        assert "die" not in tools
        assert [name for name, is_allowed in tools.items() if is_allowed] == ["echo"]


# ---- it dies --------------------------------------------------------------------------------


async def test_a_killed_idle_server_is_noticed_at_once_and_comes_back() -> None:
    async with running(s=plain()) as host:
        pid = (await host.state("ready")).pid
        assert pid is not None

        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        await host.state("backoff")
        noticed_after_s = time.monotonic() - killed_at
        status = await host.state("ready")

        assert noticed_after_s < 0.5
        assert status.pid != pid
        assert (await host.call("echo", text="again")).text == "again"


async def test_the_cause_of_a_death_is_told() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")

        await host.call("die")
        await host.until(lambda: "SIGKILL" in (host.status().error or ""))

        assert "about to die" in (host.status().error or "")


async def test_tools_stay_known_while_their_server_comes_back() -> None:
    async with running(s=plain()) as host:
        pid = (await host.state("ready")).pid
        names = [tool.name for tool in host.host.tools()]
        assert pid is not None

        os.kill(pid, signal.SIGKILL)
        await host.state("backoff")

        assert [tool.name for tool in host.host.tools()] == names


async def test_a_server_that_closes_its_output_is_started_again() -> None:
    async with running(s=faulty("ClosesOutput")) as host:
        pid = (await host.state("ready")).pid

        result = await host.call("die")
        await host.state("backoff")
        status = await host.state("ready")

        assert result.status == "unknown"
        assert status.pid != pid


async def test_an_endless_message_ends_the_server_not_the_memory() -> None:
    async with running(s=faulty("EndlessLine")) as host:
        await host.state("ready")

        async with loop_watch() as longest_pause_s:
            result = await host.call("big")
        await host.until(lambda: "64 MiB" in (host.status().error or ""))

        assert result.status == "unknown"
        assert longest_pause_s() < 0.5


# ---- it is restarted or stopped -------------------------------------------------------------


async def test_a_restart_waits_until_the_old_process_is_gone() -> None:
    async with running(s=plain()) as host:
        old = (await host.state("ready")).pid
        assert old is not None

        status = await host.host.restart("s")

        assert status.state == "starting"
        assert not is_alive(old)
        assert (await host.state("ready")).pid != old


async def test_a_restart_interrupts_a_connect_that_hangs() -> None:
    async with running(s=faulty("Mute", connect_timeout_s=60)) as host:
        await host.said("ignored")
        began = time.monotonic()

        await host.host.restart("s")

        assert time.monotonic() - began < 5
        assert len(host.pids) >= 1


async def test_servers_that_hang_do_not_keep_others_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "SLOT_S", 0.3)
    mute = faulty("Mute", connect_timeout_s=60)

    async with running(a=mute, b=mute, c=mute, d=mute, s=plain()) as host:
        await host.state("ready")

        assert [host.status(name).state for name in "abcd"] == ["starting"] * 4


async def test_a_restart_of_a_server_that_has_not_begun_has_nothing_to_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "SLOT_S", 60)
    mute = faulty("Mute", connect_timeout_s=60)

    async with running(a=mute, b=mute, c=mute, d=mute, s=plain()) as host:
        await host.until(lambda: len(host.pids) == 4)

        async with asyncio.timeout(1):
            status = await host.host.restart("s")

        assert (status.state, status.pid) == ("starting", None)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_a_server_that_ignores_its_end_is_killed_within_the_bound() -> None:
    async with running(s=faulty("Deaf")) as host:
        pid = (await host.state("ready")).pid
        began = time.monotonic()
    took_s = time.monotonic() - began

    assert pid is not None
    assert not is_alive(pid)
    assert 3.5 < took_s < 6


@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
@pytest.mark.parametrize("end", ["clean", "crash"])
async def test_no_grandchild_survives_its_server(end: str) -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        grandchild = int((await host.call("child")).text)
        assert is_alive(grandchild)
        if end == "crash":
            await host.call("die")

    until_dead(grandchild)


async def test_servers_are_stopped_together() -> None:
    async with running(a=faulty("Deaf"), b=faulty("Deaf"), c=faulty("Deaf")) as host:
        for name in "abc":
            await host.state("ready", server=name)
        began = time.monotonic()

    assert time.monotonic() - began < 6
    assert host.status("a").state == "stopped"
    with pytest.raises(Conflict, match="ending"):
        await host.host.restart("a")


async def test_a_second_signal_kills_at_once() -> None:
    async with running(s=faulty("Deaf")) as host:
        await host.state("ready")
        began = time.monotonic()

        host.host.kill_now()

    assert time.monotonic() - began < 2


async def test_a_host_cancelled_while_servers_start_leaves_nothing() -> None:
    async with running(a=faulty("Mute"), b=plain()) as host:
        await host.until(lambda: len(host.pids) == 2)

    assert not any(is_alive(pid) for pid in host.pids)


async def test_stderr_is_kept_in_memory_and_in_a_file(tmp_path: Path) -> None:
    async with running(log_dir=tmp_path, s=faulty("Mute", connect_timeout_s=5)) as host:
        await host.said("ignored server/discover")

    assert host.host.logs("s", 200)[0] == "ignored server/discover"
    assert host.host.logs("s", 1) == host.host.logs("s", 200)[-1:]
    assert b"ignored server/discover\n" in (tmp_path / "mcp-s.log").read_bytes()


async def test_a_call_right_after_a_crash_waits_for_the_restart() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        echo, die = host.tool("echo"), host.tool("die")

        async with asyncio.timeout(20):
            first = await host.host.call(die, {}, "1", lambda *progress: None)
            second = await host.host.call(echo, {"text": "x"}, "2", lambda *progress: None)

        assert (first.status, second.status) == ("unknown", "ok")


async def test_an_end_that_a_transport_takes_for_its_own_is_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connecting = asyncio.Event()

    @contextlib.asynccontextmanager
    async def connect(*args: object) -> AsyncIterator[None]:
        """As a scope of anyio that is closing at that moment."""
        try:
            connecting.set()
            await asyncio.Event().wait()
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            raise

    monkeypatch.setattr(session, "connect", connect)
    async with asyncio.timeout(10), running(s=plain()) as host:
        await connecting.wait()

    assert host.states()[-1] == "stopped"

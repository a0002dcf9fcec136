"""However it ends, nothing of ours is left: parents, launchers, terminals, and what hangs.

`test_managed_mode.py` shows a clean end from the inside; here are ends that come from outside, and
three servers at once: one that behaves, one with a process of its own, one that is deaf to EOF and
SIGTERM with a child in another session, which is too.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from sidecar.lifetime import HUNG_S, SECOND_SIGNAL_S, SHUTDOWN_S
from sidecar.protocol.mcp import McpServersList, McpServerStateChanged
from sidecar.protocol.program import ServerShutdown, Shutdown
from tests.support.processes import PATIENCE_S, THREE_SERVERS, Sidecar, on_terminal, spawned

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

THREE = f"mcp: {{servers: {json.dumps(THREE_SERVERS)}}}\n"
DEAF = f"mcp: {{servers: {{deaf: {json.dumps(THREE_SERVERS['deaf'])}}}}}\n"
PROCESSES = 7  # the sidecar, its guardian, three servers, and a child of two of them

# A frontend: starts the sidecar with a pipe for its input, which it never closes.
FRONTEND = """
import subprocess, sys
command = [sys.executable, "-m", "sidecar", *sys.argv[1:]]
subprocess.Popen(command, stdin=subprocess.PIPE).wait()
"""
# What the one-file binary is: a launcher that hands signals on, and a sidecar that was unpacked.
UNPACKED = """
import sys
sys._MEIPASS = "/nowhere/_MEIabcdef"
from sidecar.cli import main
sys.exit(main(sys.argv[1:]))
"""
LAUNCHER = f"""
import signal, subprocess, sys
signal.signal(signal.SIGINT, lambda number, _: child.send_signal(number))
child = subprocess.Popen([sys.executable, "-c", {UNPACKED!r}, *sys.argv[1:]])
sys.exit(child.wait())
"""
# An event loop that gets stuck in the first step of an end.
STUCK = """
import asyncio.base_events, sys, time
asyncio.base_events.Server.close = lambda server: time.sleep(60)
from sidecar.cli import main
sys.exit(main(sys.argv[1:]))
"""


async def all_ready(sidecar: Sidecar) -> None:
    await sidecar.first_line()
    async with sidecar.client(events=["mcp"]) as client, asyncio.timeout(PATIENCE_S):
        while {each.state for each in (await client.request(McpServersList)).items} != {"ready"}:
            await client.event(McpServerStateChanged)


async def took_until_alone(sidecar: Sidecar, since: float) -> float:
    await sidecar.until_alone()
    return time.monotonic() - since


@pytest.mark.parametrize("end", ["frontend killed", "SIGTERM", "request"])
async def test_three_servers_and_what_they_started_are_gone_within_six_seconds(
    tmp_path: Path, end: str
) -> None:
    python = ("-c", FRONTEND) if end == "frontend killed" else ("-m", "sidecar")
    async with spawned(tmp_path, "--managed", settings=THREE, python=python) as sidecar:
        await all_ready(sidecar)
        processes = len(sidecar.family())

        since = time.monotonic()
        if end == "frontend killed":
            sidecar.send(signal.SIGKILL)
        elif end == "SIGTERM":
            sidecar.send(signal.SIGTERM)
        else:
            async with sidecar.client() as client:
                await client.request(Shutdown)
        took_s = await took_until_alone(sidecar, since)

    assert processes == PROCESSES + (end == "frontend killed")
    assert took_s < SHUTDOWN_S
    assert sidecar.stderr == ""


async def test_a_second_sigterm_takes_all_three_servers_at_once(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed", settings=THREE) as sidecar:
        await all_ready(sidecar)
        async with sidecar.client() as client:
            sidecar.send(signal.SIGTERM)
            await client.event(ServerShutdown)
            await asyncio.sleep(SECOND_SIGNAL_S + 0.1)  # what tells it from the first one's echo

            since = time.monotonic()
            sidecar.send(signal.SIGTERM)
            took_s = await took_until_alone(sidecar, since)
        code, _ = await sidecar.ended()

    assert code == 128 + signal.SIGTERM
    assert took_s < 1


async def test_a_killed_sidecar_leaves_nothing_that_it_had_started(tmp_path: Path) -> None:
    """Not even what ignores the end of its input and SIGTERM."""
    async with spawned(tmp_path, "--managed", settings=THREE) as sidecar:
        await all_ready(sidecar)
        processes = len(sidecar.family())

        since = time.monotonic()
        sidecar.send(signal.SIGKILL)
        took_s = await took_until_alone(sidecar, since)

    assert processes == PROCESSES
    assert took_s < SHUTDOWN_S


async def test_what_a_killed_guardian_could_not_end_the_next_start_does(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed", settings=DEAF) as sidecar:
        await all_ready(sidecar)
        guardian = next(one for one in sidecar.family() if "sidecar-guardian" in one.cmdline())

        sidecar.process.send_signal(signal.SIGSTOP)  # so that it cannot start another one
        guardian.kill()
        sidecar.send(signal.SIGKILL)
        await sidecar.ended()
        left = len(sidecar.family())
        async with spawned(tmp_path, "--managed") as second:  # with no servers of its own
            await second.first_line()
            async with asyncio.timeout(PATIENCE_S):
                while len(second.family()) > 1:  # noqa: ASYNC110  # as in `until_alone`
                    await asyncio.sleep(0.01)
            log = Path(second.line["log_file"]).read_text()

    assert left == 2
    assert "leftover_server_ended" in log


# ---- the parent's process -------------------------------------------------------------------


async def test_it_ends_with_the_process_that_it_was_told_to_end_with(tmp_path: Path) -> None:
    """Whose pipe may be held open by somebody else."""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    environ = {"SIDECAR_PARENT_PID": str(parent.pid)}
    async with spawned(tmp_path, "--managed", environ=environ) as sidecar:
        await sidecar.first_line()
        async with sidecar.client() as client:
            parent.kill()
            await parent.communicate()

            notice = (await client.event(ServerShutdown)).data
        code, _ = await sidecar.ended()

    assert (notice.reason, code) == ("parent_ended", 0)


@pytest.mark.parametrize("pid", ["", "parent", "0", "-1", str(2**22 + 1), "9" * 30])
async def test_a_parent_that_is_not_there_is_an_error(tmp_path: Path, pid: str) -> None:
    environ = {"SIDECAR_PARENT_PID": pid}
    async with spawned(tmp_path, "--managed", environ=environ) as sidecar:
        error = await sidecar.first_line()
        code, rest = await sidecar.ended()

    assert (error["event"], error["code"], code, rest) == ("error", "config_invalid", 2, "")
    assert "SIDECAR_PARENT_PID" in error["message"]
    assert sidecar.stderr == ""


async def test_on_its_own_it_has_no_parent_to_watch(tmp_path: Path) -> None:
    environ = {"SIDECAR_PARENT_PID": "parent"}
    async with spawned(tmp_path, "--port", "0", environ=environ) as sidecar:
        assert sidecar.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            said = await sidecar.process.stdout.readline()

    assert b"is listening" in said


# ---- the binary's two processes -------------------------------------------------------------


async def test_a_killed_launcher_takes_the_sidecar_with_it(tmp_path: Path) -> None:
    """Its stdin is open as before, since the frontend lives."""
    async with spawned(tmp_path, "--managed", python=("-c", LAUNCHER)) as sidecar:
        ready = await sidecar.first_line()
        async with sidecar.client() as client:
            sidecar.send(signal.SIGKILL)

            notice = (await client.event(ServerShutdown)).data
        await sidecar.until_alone()

    assert ready["pid"] != sidecar.process.pid
    assert notice.reason == "launcher_ended"


async def test_one_ctrl_c_on_a_terminal_is_one_although_it_comes_twice(tmp_path: Path) -> None:
    async with on_terminal(tmp_path, "--port", "0", python=("-c", LAUNCHER)) as screen:
        await screen.until("token")

        screen.type("\x03")

        code = await screen.ended()

    assert code == 0
    assert "reason" in screen.text
    assert "Traceback" not in screen.text


# ---- what hangs -----------------------------------------------------------------------------


async def test_what_hangs_holds_up_no_end_for_longer_than_six_seconds(tmp_path: Path) -> None:
    """And leaves nobody behind, although nobody was asked to end."""
    async with spawned(tmp_path, "--managed", settings=THREE, python=("-c", STUCK)) as sidecar:
        await all_ready(sidecar)

        since = time.monotonic()
        sidecar.close_stdin()
        took_s = await took_until_alone(sidecar, since)
        code, _ = await sidecar.ended()

    assert HUNG_S <= took_s < SHUTDOWN_S
    assert (code, sidecar.stderr) == (0, "")
    assert "shutdown_hung" in Path(sidecar.line["log_file"]).read_text()


# ---- homes ----------------------------------------------------------------------------------


async def test_a_home_with_spaces_and_other_letters_is_a_home(tmp_path: Path) -> None:
    home = tmp_path / "Zoë's  наш 家"
    home.mkdir()
    async with spawned(home, "--managed", "--demo") as sidecar:
        ready = await sidecar.first_line()
        async with sidecar.client() as client:
            run = await client.chat("add 2 and 3")
            await run.finished()
        sidecar.close_stdin()
        code, _ = await sidecar.ended()

    assert "5" in run.text
    assert Path(ready["log_file"]).is_relative_to(home)
    assert (code, sidecar.stderr) == (0, "")


async def test_without_a_home_the_platform_s_folders_are_enough(tmp_path: Path) -> None:
    async with spawned(tmp_path, "--managed", environ={"HOME": ""}) as sidecar:
        ready = await sidecar.first_line()
        sidecar.close_stdin()
        code, _ = await sidecar.ended()

    assert (ready["event"], code, sidecar.stderr) == ("ready", 0, "")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that is read-only")
async def test_a_home_that_cannot_be_written_is_said_in_the_line(tmp_path: Path) -> None:
    environ = {"XDG_DATA_HOME": "/proc/self"}  # where not even root can make a folder
    async with spawned(tmp_path, "--managed", environ=environ) as sidecar:
        error = await sidecar.first_line()
        code, rest = await sidecar.ended()

    assert (error["event"], error["code"], code, rest) == ("error", "config_invalid", 2, "")
    assert "/proc/self" in error["message"]

"""Nothing is left of a server, wherever its processes have gone and whoever was killed first."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar import processes
from sidecar.mcp_host.guardian import Guardian
from sidecar.mcp_host.run_notes import RunNotes, sweep
from sidecar.mcp_host.tree import Tree
from tests.support.hosts import PATIENCE_S, faulty, is_alive, plain, running, until_dead

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="groups and sessions of POSIX")

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
STRAY = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a script in a group of its own; returns when it has written a line."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(script: str = "print(flush=True)") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-uc", f"{script}; import time; time.sleep(60)"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        process.said = process.stdout.readline()  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
async def guardian() -> AsyncIterator[Guardian]:
    guardian = Guardian(None)
    guardian.be_ready()
    yield guardian
    guardian.close()


def ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(PATIENCE_S)


def shell() -> psutil.Process:
    """The guardian's, which is our child."""
    return next(one for one in psutil.Process().children() if "sidecar-guardian" in one.cmdline())


def opened(folder: Path, spawn: Spawn) -> psutil.Process:
    """A program that was opened for the person, below a process that was started by a server."""
    opener = folder / "xdg-open"
    opener.write_text("#!/bin/sh\nsleep 60 &\necho $!\nwait\n")
    opener.chmod(0o755)
    process = spawn(f"import subprocess; subprocess.Popen(['{opener}'], start_new_session=True)")
    return psutil.Process(int(process.said))  # type: ignore[attr-defined]


# ---- the guardian ---------------------------------------------------------------------------


async def test_when_its_pipe_ends_it_ends_who_is_listed_and_nobody_else(
    guardian: Guardian, spawn: Spawn
) -> None:
    polite, deaf, released, stranger = spawn(), spawn(DEAF), spawn(), spawn()
    for process in (polite, deaf, released):
        guardian.watch("s", process.pid)
    guardian.release(released.pid)

    guardian.close()

    assert ended(polite) == -signal.SIGTERM
    assert ended(deaf) == -signal.SIGKILL
    assert (released.poll(), stranger.poll()) == (None, None)


async def test_it_ends_descendants_in_other_sessions_too(guardian: Guardian, spawn: Spawn) -> None:
    process = spawn(STRAY)
    stray = int(process.said)  # type: ignore[attr-defined]
    guardian.watch("s", process.pid)

    guardian.close()

    ended(process)
    until_dead(stray)


async def test_it_spares_what_was_opened_for_the_person(
    guardian: Guardian, tmp_path: Path, spawn: Spawn
) -> None:
    browser = opened(tmp_path, spawn)
    server = browser.parents()[1]
    guardian.watch("s", server.pid)

    guardian.close()

    until_dead(server.pid)
    assert browser.is_running()
    browser.kill()


async def test_it_goes_at_once_when_nobody_is_listed(guardian: Guardian, spawn: Spawn) -> None:
    process = spawn()
    guardian.watch("s", process.pid)
    guardian.release(process.pid)
    pid = shell().pid

    guardian.close()

    assert not is_alive(pid)  # and reaped


async def test_it_is_deaf_to_what_ends_others(guardian: Guardian, spawn: Spawn) -> None:
    process = spawn()
    guardian.watch("s", process.pid)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        shell().send_signal(number)

    guardian.close()

    assert ended(process) == -signal.SIGTERM


async def test_a_killed_one_is_followed_by_another_that_knows_as_much(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.mcp_host.guardian.RESTART_S", 0)
    guardian = Guardian(None)
    guardian.be_ready()
    process = spawn()
    guardian.watch("s", process.pid)
    first = shell().pid

    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while first in [one.pid for one in psutil.Process().children()]:  # noqa: ASYNC110
            await asyncio.sleep(0)  # until the loop has heard of it
    second = shell().pid
    guardian.close()

    assert second != first
    assert ended(process) == -signal.SIGTERM


async def test_one_that_does_not_read_stops_nobody_and_is_replaced(
    guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.mcp_host.guardian.RESTART_S", 0)
    stopped = shell()
    stopped.send_signal(signal.SIGSTOP)

    for _ in range(10_000):  # more than a pipe holds
        guardian.watch("s", 2**22 + 1)  # whose number is nobody's
        guardian.release(2**22 + 1)
    guardian.watch("s", 2**22 + 1)
    async with asyncio.timeout(PATIENCE_S):
        while stopped.is_running():  # noqa: ASYNC110
            await asyncio.sleep(0)  # until the loop has heard of it

    assert shell().pid != stopped.pid
    guardian.release(2**22 + 1)


async def test_it_is_given_no_secret_and_no_file_of_ours(
    guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = shell()

    assert set(its.environ()) <= {"HOME", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    assert its.cwd() == "/"
    assert its.num_fds() == 3


async def test_no_server_inherits_the_end_of_the_pipe_that_keeps_it_waiting() -> None:
    async with running(s=plain()) as host:
        status = await host.state("ready")
        assert status.pid is not None
        descriptors = psutil.Process(status.pid).num_fds()

    assert descriptors == 3


# ---- the end of a server --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["clean", "kill", "restart"])
async def test_a_grandchild_in_another_session_ends_with_its_server(end: str) -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        grandchild = int((await host.call("child", away=True)).text)
        assert is_alive(grandchild)
        if end == "kill":
            host.host.kill_now()
        elif end == "restart":
            await host.host.restart("s")
            until_dead(grandchild)

    until_dead(grandchild)


async def test_a_deaf_server_takes_its_deaf_child_along() -> None:
    async with running(s=faulty("DeafParent")) as host:
        status = await host.state("ready")
        assert status.pid is not None
        [child] = psutil.Process(status.pid).children()
        assert os.getsid(child.pid) != status.pid

    until_dead(child.pid)


async def test_a_daemon_that_gave_up_its_parent_stays(spawn: Spawn) -> None:
    """It may be the person's browser."""
    daemon = "import os; pid = os.fork(); pid or os.setsid(); pid or os.fork() and os._exit(0)"
    process = spawn(f"{daemon}; pid and os.wait(); pid or print(os.getpid())")
    pid = int(process.said)  # type: ignore[attr-defined]
    try:
        assert pid not in processes.family(process.pid, ())
    finally:
        os.kill(pid, signal.SIGKILL)


def test_what_was_opened_for_the_person_is_no_part_of_a_tree(tmp_path: Path, spawn: Spawn) -> None:
    browser = opened(tmp_path, spawn)
    server = browser.parents()[1]

    Tree(server.pid).kill()

    until_dead(server.pid)
    assert browser.is_running()
    browser.kill()


def test_a_family_has_all_generations_and_the_session(spawn: Spawn) -> None:
    orphan = "subprocess.Popen(['sh', '-mc', 'sleep 60 & echo $!'])"
    process = spawn(f"import subprocess; {orphan}.wait(); {STRAY}")
    assert process.stdout is not None
    members = {int(process.said), int(process.stdout.readline())}  # type: ignore[attr-defined]

    family = processes.family(process.pid, ())

    assert family == members
    for pid in members:
        os.kill(pid, signal.SIGKILL)


# ---- the notes for the next start -----------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mcp-running"


def noted(folder: Path, process: subprocess.Popen[bytes], **owner: Any) -> Path:
    """What another process of ours would have noted, had it started this one."""
    notes = RunNotes(folder)
    notes.began("files", process.pid)
    [file] = folder.glob("*.jsonl")
    first, rest = file.read_text().split("\n", 1)
    file.write_text(json.dumps({**json.loads(first), **owner}) + "\n" + rest)
    return file


def dead_pid() -> int:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    return dead.pid


def test_what_a_dead_owner_has_left_is_ended_and_forgotten(folder: Path, spawn: Spawn) -> None:
    process = spawn(f"{DEAF}; {STRAY}")
    assert process.stdout is not None
    stray = int(process.stdout.readline())
    file = noted(folder, process, owner=dead_pid())

    sweep(folder)

    assert ended(process) == -signal.SIGKILL
    until_dead(stray)
    assert not file.exists()


def test_what_belongs_to_a_running_owner_is_left_alone(folder: Path, spawn: Spawn) -> None:
    process = spawn()
    file = noted(folder, process)

    sweep(folder)

    assert process.poll() is None
    assert file.exists()


def test_of_another_world_nothing_is_known(folder: Path, spawn: Spawn) -> None:
    process = spawn()
    file = noted(folder, process, owner=dead_pid(), world="pid:[1]")

    sweep(folder)

    assert process.poll() is None
    assert file.exists()


def test_whoever_has_the_number_now_is_left_alone(folder: Path, spawn: Spawn) -> None:
    process = spawn()
    file = noted(folder, process, owner=dead_pid())
    first, note = map(json.loads, file.read_text().splitlines())
    note["began"] -= 3600
    file.write_text(f"{json.dumps(first)}\n{json.dumps(note)}\n")

    sweep(folder)

    assert process.poll() is None
    assert not file.exists()


def test_who_was_ended_is_not_looked_for(folder: Path, spawn: Spawn) -> None:
    process = spawn()
    file = noted(folder, process, owner=dead_pid())
    with file.open("a") as notes:
        notes.write(json.dumps({"pid": process.pid, "ended": True}) + "\n")

    sweep(folder)

    assert process.poll() is None


def test_a_line_that_was_not_finished_costs_none_of_the_others(folder: Path, spawn: Spawn) -> None:
    process = spawn()
    file = noted(folder, process, owner=dead_pid())
    with file.open("a") as notes:
        notes.write('{"server": "memory", "pi')

    sweep(folder)

    assert ended(process) == -signal.SIGTERM
    assert not file.exists()


NOBODY = json.dumps({"owner": "x", "began": 1, "world": processes.world()})


@pytest.mark.parametrize("text", ["", "{", "[]", "1", NOBODY, "\0"])
def test_damaged_notes_are_dropped(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "1.jsonl").write_text(text)

    sweep(folder)

    assert not list(folder.iterdir())


def test_without_a_folder_there_is_nothing_to_sweep(folder: Path) -> None:
    sweep(folder)

    assert not folder.exists()


async def test_the_notes_are_there_while_a_server_runs_and_no_longer(folder: Path) -> None:
    async with running(notes_dir=folder, s=plain()) as host:
        status = await host.state("ready")
        [file] = folder.iterdir()
        owner, note = map(json.loads, file.read_text().splitlines())
        mode = file.stat().st_mode & 0o077

    assert (owner["owner"], note["server"], note["pid"]) == (os.getpid(), "s", status.pid)
    assert mode == 0
    assert not list(folder.iterdir())

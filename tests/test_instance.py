"""The profile's lock and the discovery file, and what is not taken for one."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sidecar import processes
from sidecar.errors import AlreadyRunning, ConfigInvalid
from sidecar.instance import (
    DISCOVERY,
    LOCK,
    Instance,
    Lock,
    Untrusted,
    find,
    forget,
    published,
    this_process,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
HTTP = "http://127.0.0.1:8000"
HOLD = """
import sys
from pathlib import Path
from sidecar.instance import Lock
print(Lock(Path(sys.argv[1])).take(), flush=True)
sys.stdin.read()
"""


WATCH = """
import sys
from sidecar import processes
wait = processes.watch(int(sys.argv[1]))
print("watching", flush=True)
wait()
print("ended")
"""
REFUSE = """
import os
from sidecar import processes
def refuse(pid):
    raise OSError("not here")
os.pidfd_open, processes.POLL_S = refuse, 0.01
"""


def ours(**changes: Any) -> Instance:
    instance = this_process("ws://127.0.0.1:8000/ws/chat", HTTP, "token", "1.0")
    return replace(instance, **changes)


def write(folder: Path, instance: Instance) -> Path:
    file = folder / DISCOVERY
    file.write_text(json.dumps(asdict(instance)))
    file.chmod(0o600)
    return file


def python(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# ---- the lock -------------------------------------------------------------------------------


def test_a_profile_has_one_holder_until_it_lets_go(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)

    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


def test_a_lock_ends_with_its_process_even_if_that_is_killed(tmp_path: Path) -> None:
    with python("-c", HOLD, str(tmp_path)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        lock = Lock(tmp_path)
        assert not lock.take()

        other.kill()
        other.wait()

        assert lock.take()
        lock.release()


async def test_whoever_waits_for_the_lock_gets_it_as_soon_as_it_is_free(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.take()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(second.take_or_find(asyncio.Event(), finds=True))
        await asyncio.sleep(0)
        first.release()

    assert waiting.result() is None
    assert not first.take()
    second.release()


async def test_waiting_ends_with_patience_and_with_the_program(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.take()
    stopping = asyncio.Event()
    stopping.set()

    with published(tmp_path, ours()):
        with pytest.raises(AlreadyRunning):
            await second.take_or_find(asyncio.Event(), finds=False, patience_s=0.1)
        with pytest.raises(AlreadyRunning):
            await second.take_or_find(stopping, finds=False)
        assert await second.take_or_find(asyncio.Event(), finds=True) == ours()
    first.release()


def test_a_lock_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()

    with pytest.raises(ConfigInvalid, match=LOCK):
        Lock(tmp_path).take()


# ---- the discovery file ---------------------------------------------------------------------


def test_what_is_published_is_found_until_it_is_over(tmp_path: Path) -> None:
    assert find(tmp_path) is None

    with published(tmp_path, ours()):
        assert find(tmp_path) == ours()
        [file] = tmp_path.iterdir()

    assert find(tmp_path) is None
    assert file.name == DISCOVERY
    assert not list(tmp_path.iterdir())


@posix
def test_nobody_else_can_read_the_discovery_file(tmp_path: Path) -> None:
    with published(tmp_path, ours()):
        assert (tmp_path / DISCOVERY).stat().st_mode & 0o777 == 0o600


def test_the_token_is_in_no_representation() -> None:
    assert "token" not in repr(ours(token="a token"))


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"started_at": ours().started_at - 60}])
def test_an_ended_process_is_not_found_also_when_its_number_is_used_again(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write(tmp_path, ours(**changes))

    assert find(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"http": "http://localhost:8000"},
        {"http": "http://127.0.0.1.example.com:8000"},
        {"url": "ws://192.0.2.1:8000/ws/chat"},
        {"url": "ws://[::1/ws/chat"},
        {"url": ""},
    ],
)
def test_an_address_that_is_not_literally_this_machine_is_not_used(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    file = write(tmp_path, ours(**changes))

    with pytest.raises(Untrusted, match="no literal address") as refusal:
        find(tmp_path)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_a_file_of_another_form_is_not_used(tmp_path: Path, text: str) -> None:
    write(tmp_path, ours()).write_text(text)

    with pytest.raises(Untrusted, match="not in the form"):
        find(tmp_path)


def test_a_field_of_another_kind_is_not_used(tmp_path: Path) -> None:
    write(tmp_path, ours(pid="1"))

    with pytest.raises(Untrusted, match="not in the form"):
        find(tmp_path)


def linked(file: Path) -> None:
    file.rename(file.with_suffix(".other"))
    file.symlink_to(file.with_suffix(".other"))


def shared(file: Path) -> None:
    file.chmod(0o644)


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@posix
@pytest.mark.parametrize(
    "spoil, reason",
    [(linked, "symbolic link"), (shared, "others may"), (piped, "no plain file")],
)
def test_a_file_that_others_could_have_made_is_not_used(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(write(tmp_path, ours()))

    with pytest.raises(Untrusted, match=reason):
        find(tmp_path)


def test_to_forget_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    forget(tmp_path)
    write(tmp_path, ours())
    forget(tmp_path)

    assert find(tmp_path) is None


# ---- processes ------------------------------------------------------------------------------


def test_a_process_begins_when_it_is_started_and_has_no_beginning_after_its_end() -> None:
    before = time.time()
    with python("-c", "input()") as other:
        began = processes.started_at(other.pid)
        other.kill()
        other.wait()

    assert began is not None
    assert abs(began - before) < processes.SAME_S
    assert processes.started_at(other.pid) is None


@pytest.mark.parametrize("can_be_told", [True, False])
def test_the_end_of_an_older_process_is_noticed(can_be_told: bool) -> None:
    """Also on a Linux whose kernel does not tell it."""
    watch = WATCH if can_be_told else REFUSE + WATCH
    with python("-c", "input()") as older, python("-c", watch, str(older.pid)) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"

        older.kill()
        older.wait()

        assert watcher.communicate(timeout=20)[0] == "ended\n"


def test_a_process_that_has_the_number_of_an_older_one_is_not_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "SAME_S", 0.0)
    with python("-c", "input()") as younger:
        with pytest.raises(ProcessLookupError, match="older"):
            processes.watch(younger.pid)
        younger.kill()


def test_a_process_that_is_not_there_cannot_be_watched() -> None:
    with python("-c", "") as other:
        other.wait()

    with pytest.raises(ProcessLookupError):
        processes.watch(other.pid)

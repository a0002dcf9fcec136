"""Notes of the servers that run, for the next start, should nothing else have ended them.

A file for each process of ours, in one folder of the profile, since a command may run beside a
frontend. Its lines tell whose it is, which process leads a group and since when, and which has
ended. The next start ends what a dead process of ours has left; whose number is another's by now
is known by its beginning and let alone, and so is a group whose leader has gone: nothing proves
whose it is.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from sidecar import processes
from sidecar.mcp_host.tree import Tree
from sidecar.messages import JsonObject

SUFFIX = ".jsonl"
GRACE_S = 2.0
POLL_S = 0.05

log = structlog.get_logger()


class RunNotes:
    """The file of this process; made with the first server, removed when none is left."""

    def __init__(self, folder: Path) -> None:
        """`folder` may be missing; the one above it is there."""
        self._folder = folder
        self._file = folder / f"{os.getpid()}{SUFFIX}"
        self._descriptor: int | None = None

    def began(self, server: str, pid: int) -> None:
        began = processes.started_at(pid)
        if began is not None:  # else it is over already
            self._write({"server": server, "pid": pid, "began": began})

    def ended(self, pid: int) -> None:
        if self._descriptor is not None:
            self._write({"pid": pid, "ended": True})

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(OSError):
                self._file.unlink()

    def _write(self, note: JsonObject) -> None:
        """Unbuffered: microseconds into the page cache, which outlives us."""
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.write(self._descriptor, json.dumps(note).encode() + b"\n")
        except OSError as error:  # a full disk costs the notes, not the servers
            log.warning("run_not_noted", reason=error.strerror)

    def _open(self) -> int:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        descriptor = os.open(self._file, flags, 0o600)
        own = os.getpid()
        owner = {"owner": own, "began": processes.started_at(own), "world": processes.world()}
        os.write(descriptor, json.dumps(owner).encode() + b"\n")
        return descriptor


def sweep(folder: Path) -> None:
    """End what dead processes of ours have left; blocks, for GRACE_S if anything is there."""
    left: dict[int, tuple[str, float]] = {}
    done = [file for file in folder.glob(f"*{SUFFIX}") if _collect(file, left)]
    trees = {pid: Tree(pid) for pid in left}
    for pid, (server, began) in left.items():
        log.warning("leftover_server_ended", server=server, pid=pid, began=began)
        trees[pid].terminate()
    give_up_at = time.monotonic() + GRACE_S
    while _running(left) and time.monotonic() < give_up_at:
        time.sleep(POLL_S)  # in a thread: they are nobody's children here
    for pid in trees:
        trees[pid].kill()
    for file in done:
        with contextlib.suppress(OSError):
            file.unlink()


def _collect(file: Path, left: dict[int, tuple[str, float]]) -> bool:
    """Adds what runs of a dead owner's. False for a file that must stay."""
    notes = _read(file)
    try:
        owner = next(notes, None)
        if owner is None:
            return True
        if owner["world"] != processes.world():
            return False
        if processes.is_running(owner["owner"], owner["began"]):
            return False
        for note in notes:
            left.pop(note["pid"], None)  # a number that has ended, or begun anew
            if "began" in note and processes.is_running(note["pid"], note["began"]):
                left[note["pid"]] = (note["server"], note["began"])
    except OSError:
        return False
    except (LookupError, TypeError):  # nothing that we have written
        log.warning("run_notes_unreadable", file=file.name)
    return True


def _read(file: Path) -> Iterator[dict[str, Any]]:
    """Up to the line in which its writer was killed, or which somebody damaged."""
    for line in file.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _running(left: Mapping[int, tuple[str, float]]) -> bool:
    return any(processes.is_running(pid, began) for pid, (_, began) in left.items())

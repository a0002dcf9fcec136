"""What the one-file program leaves when its launcher is killed, and how that goes away.

Its launcher unpacks it into a folder (`_MEI…`), and removes that when it ends by itself. A program
writes into its folder who it is; a later one removes the folders of those that have ended. One
that is not provably of a dead program of ours is left alone.
"""

import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import structlog

from sidecar import processes

PREFIX = "_MEI"
OWNER = "sidecar-owner.json"
OWNER_BYTES = 4096
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Owner:
    """The two processes of a one-file program. Their beginnings are since the epoch."""

    program: int
    program_began: float
    launcher: int
    launcher_began: float
    world: str
    """In which the numbers mean these processes: containers may share a temporary folder."""


def unpacked_at() -> Path | None:
    """The folder of this one-file program; None for one in its folder, and for the sources."""
    folder: str | None = getattr(sys, "_MEIPASS", None)
    is_one_file = folder is not None and Path(folder).name.startswith(PREFIX)
    return Path(folder) if folder is not None and is_one_file else None


def claim(folder: Path) -> None:
    """Say in `folder` that it is this program's, for as long as it and its launcher run."""
    program, launcher = os.getpid(), os.getppid()
    began = processes.started_at(program), processes.started_at(launcher)
    if began[0] is None or began[1] is None:
        return  # then nobody can prove it later
    owner = Owner(program, began[0], launcher, began[1], processes.world())
    with suppress(OSError):  # a full disk: the folder is left to whoever cleans up there
        handle = os.open(folder / OWNER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as target:
            json.dump(asdict(owner), target)


def sweep_beside(folder: Path) -> None:
    """Start removing what dead programs of ours have left beside `folder`. No exit waits for it."""
    threading.Thread(target=sweep, args=(folder.parent,), name="sweep", daemon=True).start()


def sweep(temporary: Path) -> None:
    """Remove every such folder in `temporary`; blocks."""
    for folder in temporary.glob(f"{PREFIX}*"):
        if _is_left(folder):
            _remove(folder)
            log.info("leftover_removed", folder=folder.name)


def _is_left(folder: Path) -> bool:
    try:
        if not _is_ours_alone(folder.lstat(), stat.S_ISDIR):
            return False
        owner = _read_owner(folder / OWNER)
    except (OSError, ValueError, LookupError, TypeError):
        return False  # somebody else's, or of one that is only starting
    if owner is None or owner.world != processes.world():
        return False
    return not (
        processes.is_running(owner.program, owner.program_began)
        or processes.is_running(owner.launcher, owner.launcher_began)
    )


def _read_owner(file: Path) -> Owner | None:
    """Raises OSError, ValueError, LookupError or TypeError for what no program of ours wrote."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # no link, no pipe
    with os.fdopen(os.open(file, os.O_RDONLY | flags), "rb") as source:
        if not _is_ours_alone(os.fstat(source.fileno()), stat.S_ISREG):
            return None
        given = json.loads(source.read(OWNER_BYTES))
    owner = Owner(**{each.name: given[each.name] for each in fields(Owner)})
    numbers = (owner.program, owner.launcher)
    times = (owner.program_began, owner.launcher_began)
    is_wellformed = all(type(each) is int for each in numbers) and all(
        type(each) is float for each in times
    )
    return owner if is_wellformed else None


def _is_ours_alone(state: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    if not is_kind(state.st_mode):
        return False
    if sys.platform == "win32":
        return True  # its temporary folder is the person's own
    return state.st_uid == os.getuid() and not state.st_mode & _OTHERS_WRITE


def _remove(folder: Path) -> None:
    """The owner's file goes last, so that what could not be removed now is known the next time."""
    with suppress(OSError):  # another start may be doing the same
        for each in os.scandir(folder):
            if each.is_dir(follow_symlinks=False):
                shutil.rmtree(each.path, ignore_errors=True)
            elif each.name != OWNER:
                os.unlink(each.path)
        os.unlink(folder / OWNER)
        folder.rmdir()

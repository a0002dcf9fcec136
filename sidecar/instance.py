"""One sidecar per profile, and how the commands find it.

The lock is the kernel's: it ends with the process that holds it, however that ends. The discovery
file has the address and the token of the holder; what is not ours alone, or leads anywhere but to
this machine, is not used. Starts nothing and talks to nobody.
"""

import asyncio
import ipaddress
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from sidecar import processes
from sidecar.errors import AlreadyRunning, ConfigInvalid, SidecarError
from sidecar.private_file import write_private

LOCK = "sidecar.lock"  # stays there, empty: to remove it would let two processes lock two files
DISCOVERY = "sidecar.json"
DISCOVERY_BYTES = 65_536  # ours has a few hundred
PATIENCE_S = 8.0  # more than a shutdown takes, so that a frontend can restart at once
RETRY_S = 0.05
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

log = structlog.get_logger()


class Untrusted(SidecarError):
    """A discovery file that is not used; `str(error)` says why."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What the discovery file says of a running sidecar. `started_at` is since the epoch."""

    url: str
    http: str
    token: str = field(repr=False)
    pid: int
    started_at: float
    version: str


class Lock:
    """The right to be the one sidecar of a profile. Usable once."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the profile's data folder, which exists."""
        self._folder = folder
        self._file = folder / LOCK
        self._descriptor: int | None = None

    def take(self) -> bool:
        """False when another process has it. Raises ConfigInvalid where nothing can be locked."""
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError | PermissionError):
                return False
            raise self._unusable(error) from error
        self._descriptor = descriptor
        return True

    async def take_or_find(
        self, stopping: asyncio.Event, *, finds: bool, patience_s: float = PATIENCE_S
    ) -> Instance | None:
        """Take it as soon as it is free; or, if `finds`, return who has it, once that is known.

        Raises AlreadyRunning after `patience_s`, or when we are to stop.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + patience_s
        while not self.take():
            problem = ""
            try:
                if finds and (running := find(self._folder)):
                    return running
            except Untrusted as error:
                problem = f" {error}"
            if stopping.is_set() or loop.time() > give_up_at:
                raise AlreadyRunning(
                    "A sidecar of this profile is running already, and does not end: end it, or"
                    f" give this one another --profile.{problem}"
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await stopping.wait()
        return None

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _unusable(self, error: OSError) -> ConfigInvalid:
        return ConfigInvalid(
            f"{self._file} cannot be locked: {error.strerror}."
            " Remove what is in its place, or give it to your user account."
        )


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # PermissionError when it is taken

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError when it is taken


def this_process(url: str, http: str, token: str, version: str) -> Instance:
    pid = os.getpid()
    began = processes.started_at(pid) or time.time()
    return Instance(url, http, token, pid, round(began, 2), version)


@contextmanager
def published(folder: Path, instance: Instance) -> Iterator[None]:
    """Others can `find` it inside the context. Only for who holds the lock."""
    try:
        write_private(folder / DISCOVERY, json.dumps(asdict(instance)).encode())
    except OSError as error:
        log.warning("discovery_file_not_written", folder=str(folder), reason=error.strerror)
    try:
        yield
    finally:
        forget(folder)


def forget(folder: Path) -> None:
    """Remove the discovery file, which is stale for who holds the lock and has written none."""
    with suppress(OSError):  # then it stays stale, and is known as such
        (folder / DISCOVERY).unlink()


def find(folder: Path) -> Instance | None:
    """The running sidecar of this profile, if it let itself be found.

    None for one whose process has ended. Raises Untrusted for a file that must not be used.
    """
    file = folder / DISCOVERY
    try:
        data = _read(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _untrusted(file, f"it cannot be read: {error.strerror}") from error
    try:
        given = json.loads(data)
        instance = Instance(**{each.name: given[each.name] for each in fields(Instance)})
    except (ValueError, LookupError, TypeError) as error:
        raise _untrusted(file, "it is not in the form that a sidecar writes") from error
    if not _is_wellformed(instance):
        raise _untrusted(file, "it is not in the form that a sidecar writes")
    for address in (instance.url, instance.http):
        if not _is_loopback(address):
            raise _untrusted(file, f"{address} is no literal address of this machine")
    return instance if processes.is_running(instance.pid, instance.started_at) else None


def _read(file: Path) -> bytes:
    """Raises OSError, and Untrusted for a file that others could have written."""
    if file.is_symlink():
        raise _untrusted(file, "it is a symbolic link")
    # not through a link that was put there this instant, and not waiting for a pipe's other end
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(file, os.O_RDONLY | flags), "rb") as source:
        state = os.fstat(source.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise _untrusted(file, "it is no plain file")
        if sys.platform != "win32" and state.st_uid != os.getuid():
            raise _untrusted(file, "it belongs to somebody else")
        if sys.platform != "win32" and state.st_mode & _OTHERS:
            raise _untrusted(file, "others may read or write it")
        return source.read(DISCOVERY_BYTES)


def _is_wellformed(instance: Instance) -> bool:
    texts = (instance.url, instance.http, instance.token, instance.version)
    numbers = isinstance(instance.pid, int) and isinstance(instance.started_at, float | int)
    return numbers and all(isinstance(text, str) for text in texts)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(address).hostname or "").is_loopback
    except ValueError:
        return False


def _untrusted(file: Path, reason: str) -> Untrusted:
    return Untrusted(f"{file} is ignored: {reason}. Remove it.")

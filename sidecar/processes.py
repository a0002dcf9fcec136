"""Other processes of this machine: when one began, when it ends, and who comes from it.

A number alone names no process, since numbers are used again: a number and a beginning do. Asks
each system in its own way: /proc and pidfd on Linux, libproc and kqueue on macOS, handles on
Windows. Starts and stops none.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

POLL_S = 1.0  # where the kernel cannot tell us of an end
SAME_S = 2.0  # two readings of one beginning may differ by as much as the clock was corrected


@dataclass(frozen=True, slots=True)
class _Seen:
    pid: int
    name: str
    parent: int
    session: int


def is_running(pid: int, since: float) -> bool:
    """Whether the process that began `since` (seconds since the epoch) is still running."""
    began = started_at(pid)
    return began is not None and abs(began - since) <= SAME_S


def world() -> str:
    """In which the numbers mean these processes: a namespace, where a system has such."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def watch(pid: int) -> Callable[[], None]:
    """Returns what blocks until this process has ended, for a thread; call it once.

    Raises ProcessLookupError when there is none, or none that is at least as old as this one:
    those that started us are, and whoever has their number after them is not.
    """
    wait = _watch(pid)
    began, own = started_at(pid), started_at(os.getpid())
    if began is None or own is None or began > own + SAME_S:
        raise ProcessLookupError(f"no process {pid} that is older than this one")
    return wait


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _QUERY, _SYNCHRONIZE = 0x1000, 0x00100000  # PROCESS_QUERY_LIMITED_INFORMATION
    _FOREVER, _RUNNING = 0xFFFFFFFF, 0x102  # INFINITE, WAIT_TIMEOUT
    _TICKS_IN_S = 10_000_000
    _UNIX_EPOCH_S = 11_644_473_600  # on Windows' clock, which begins in 1601

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.OpenProcess.restype = wintypes.HANDLE
    _kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    _kernel32.WaitForSingleObject.argtypes = (wintypes.HANDLE, wintypes.DWORD)
    _kernel32.GetProcessTimes.argtypes = (
        wintypes.HANDLE,
        *[ctypes.POINTER(wintypes.FILETIME)] * 4,
    )
    _kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)

    def started_at(pid: int) -> float | None:
        """Seconds since the epoch; None when no such process is running."""
        handle = _kernel32.OpenProcess(_QUERY | _SYNCHRONIZE, False, pid)
        if not handle:
            return None
        try:
            created, *others = (wintypes.FILETIME() for _ in range(4))
            pointers = (ctypes.byref(time) for time in (created, *others))
            if _kernel32.WaitForSingleObject(handle, 0) != _RUNNING:
                return None  # ended, and somebody still has it open
            if not _kernel32.GetProcessTimes(handle, *pointers):
                return None
            ticks = created.dwHighDateTime << 32 | created.dwLowDateTime
            return float(ticks / _TICKS_IN_S - _UNIX_EPOCH_S)
        finally:
            _kernel32.CloseHandle(handle)

    def _watch(pid: int) -> Callable[[], None]:
        handle = _kernel32.OpenProcess(_SYNCHRONIZE, False, pid)
        if not handle:
            raise ProcessLookupError(f"no process {pid} that can be watched")
        return lambda: _kernel32.WaitForSingleObject(handle, _FOREVER)

elif sys.platform == "darwin":
    import ctypes
    import select
    import struct

    _BSD_INFO = 3  # PROC_PIDTBSDINFO
    _BSD_INFO_BYTES = 136  # struct proc_bsdinfo, which ends with the beginning
    _PARENT = struct.Struct("=I")
    _PARENT_AT = 16
    _NAME = slice(48, 64)
    _BEGINNING = struct.Struct("=QQ")  # seconds and microseconds since the epoch
    _SPARE = 64  # processes that begin while we count them

    def started_at(pid: int) -> float | None:
        """Seconds since the epoch; None when no such process is running."""
        info = _info(pid)
        if info is None:
            return None
        seconds, microseconds = _BEGINNING.unpack_from(info, _BSD_INFO_BYTES - _BEGINNING.size)
        return float(seconds + microseconds / 1e6)

    def _info(pid: int) -> bytes | None:
        info = ctypes.create_string_buffer(_BSD_INFO_BYTES)
        libproc = ctypes.CDLL("/usr/lib/libproc.dylib")
        size = libproc.proc_pidinfo(
            pid, _BSD_INFO, ctypes.c_uint64(0), info, ctypes.c_int(_BSD_INFO_BYTES)
        )
        return info.raw if size == _BSD_INFO_BYTES else None

    def _all() -> Iterator[_Seen]:
        libproc = ctypes.CDLL("/usr/lib/libproc.dylib")
        pids = (ctypes.c_int * (libproc.proc_listallpids(None, 0) + _SPARE))()
        count = libproc.proc_listallpids(pids, ctypes.c_int(ctypes.sizeof(pids)))
        for pid in pids[: max(count, 0)]:
            info = _info(pid)
            if info is not None:  # else it is another person's, or has ended
                parent = _PARENT.unpack_from(info, _PARENT_AT)[0]
                name = info[_NAME].partition(b"\0")[0].decode(errors="replace")
                with contextlib.suppress(OSError):
                    yield _Seen(pid, name, parent, os.getsid(pid))

    def _watch(pid: int) -> Callable[[], None]:
        queue = select.kqueue()
        end = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, fflags=select.KQ_NOTE_EXIT
        )
        queue.control([end], 0)  # ProcessLookupError when there is none
        return lambda: _drop(queue.control(None, 1))

    def _drop(events: object) -> None:
        """Only that one came is of interest."""

else:
    import select

    _NAME, _STATE, _PARENT, _SESSION, _STARTED = 0, 1, 2, 4, 20  # without the pid itself

    def started_at(pid: int) -> float | None:
        """Seconds since the epoch; None when no such process is running."""
        fields = _stat(pid)
        if fields is None or fields[_STATE] in "ZX":
            return None  # dead; its parent has not looked yet
        since_boot_s = int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s
        return time.time() - age_s

    def _stat(pid: int) -> list[str] | None:
        try:
            line = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        head, _, fields = line.rpartition(")")
        return [head.partition("(")[2], *fields.split()]

    def _all() -> Iterator[_Seen]:
        for pid in os.listdir("/proc"):
            if pid.isdecimal() and (fields := _stat(int(pid))) is not None:
                parent, session = int(fields[_PARENT]), int(fields[_SESSION])
                yield _Seen(int(pid), fields[_NAME], parent, session)

    def _watch(pid: int) -> Callable[[], None]:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except OSError:  # before Linux 5.3, and in some sandboxes
            return lambda: _poll(pid)

        def wait() -> None:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll()

        return wait

    def _poll(pid: int) -> None:
        began = started_at(pid)
        while began is not None and is_running(pid, began):
            time.sleep(POLL_S)


if sys.platform != "win32":

    def family(pid: int, spare: Container[str]) -> set[int]:
        """All that come from this process, and who else is in the session that it began.

        Whoever has lost its parent is known by the session alone, and not at all in another. Those
        whose names are to be spared are, with all that come from them.
        """
        children: dict[int, list[_Seen]] = {}
        waiting: list[_Seen] = []
        for one in _all():
            children.setdefault(one.parent, []).append(one)
            if one.session == pid and one.pid != pid:
                waiting.append(one)
        waiting += children.get(pid, [])
        found: set[int] = set()
        while waiting:
            one = waiting.pop()
            if one.pid not in found and one.name not in spare:
                found.add(one.pid)
                waiting += children.get(one.pid, [])
        return found

"""All processes of one server, to be ended together: whoever came from it, however it is grouped.

On POSIX that is the group that it leads, and beyond it the strays: its descendants and the members
of its session that moved to other groups, as a browser without a window does that a server runs.
They are looked for when an end begins, while parents still lead to them; each is known by its pid
and its beginning. What was opened for the person is theirs and stays, such as their browser; so
does a daemon, which gave up its parent on purpose: an `ssh-agent`, a build server. To be the reaper
of all orphans, as Linux offers, would bring us these as well, with no way to tell them from what
was forgotten; so we are not.

On Windows it is a job, which takes in whatever its members start, and which the kernel ends when
its handle closes, however this process ends.
"""

import contextlib
import os
import signal
import sys

from sidecar import processes

OPENERS = ("xdg-open", "gio", "kde-open", "exo-open", "sensible-browser", "wslview")

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    CREATION_FLAGS = 0x08000004  # CREATE_NO_WINDOW, and CREATE_SUSPENDED until it is in its job

    _ACCESS = 0x0901  # PROCESS_TERMINATE, PROCESS_SET_QUOTA, PROCESS_SUSPEND_RESUME
    _EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation
    _KILL_ON_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    _EXIT_CODE = 1

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        )

    class _Limits(ctypes.Structure):
        _fields_ = (
            ("Basic", _BasicLimits),
            ("IoCounters", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _ntdll = ctypes.WinDLL("ntdll")
    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.CreateJobObjectW.argtypes = (wintypes.LPVOID, wintypes.LPCWSTR)
    _kernel32.SetInformationJobObject.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        wintypes.LPVOID,
        wintypes.DWORD,
    )
    _kernel32.OpenProcess.restype = wintypes.HANDLE
    _kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    _kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    _kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
    _kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
    _ntdll.NtResumeProcess.argtypes = (wintypes.HANDLE,)

    class Tree:
        def __init__(self, leader: int) -> None:
            """`leader` was started with CREATION_FLAGS, and runs from here on."""
            self._job: int | None = _kernel32.CreateJobObjectW(None, None)
            limits = _Limits()
            limits.Basic.LimitFlags = _KILL_ON_CLOSE
            _kernel32.SetInformationJobObject(
                self._job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            process = _kernel32.OpenProcess(_ACCESS, False, leader)
            _kernel32.AssignProcessToJobObject(self._job, process)
            _ntdll.NtResumeProcess(process)
            _kernel32.CloseHandle(process)

        def look(self) -> None:
            """The kernel knows who is in a job."""

        def terminate(self) -> None:
            """No process of Windows can be asked; closed stdin was the question."""
            self.kill()

        def kill(self) -> None:
            job, self._job = self._job, None
            if job is not None:
                _kernel32.TerminateJobObject(job, _EXIT_CODE)
                _kernel32.CloseHandle(job)

else:
    CREATION_FLAGS = 0

    class Tree:
        def __init__(self, leader: int) -> None:
            """`leader` leads a group and a session of its own."""
            self._leader = leader
            self._strays: dict[int, float] = {}
            self._is_killed = False

        def look(self) -> None:
            """Remember who is in other groups; milliseconds."""
            for pid in processes.family(self._leader, OPENERS):
                began = processes.started_at(pid)
                with contextlib.suppress(ProcessLookupError):
                    if began is not None and os.getpgid(pid) != self._leader:
                        self._strays[pid] = began

        def terminate(self) -> None:
            self.look()
            self._signal(signal.SIGTERM)

        def kill(self) -> None:
            """Once: a group without members may be another's by the next time."""
            if not self._is_killed:
                self.look()
                self._is_killed = True
                self._signal(signal.SIGKILL)

        def _signal(self, number: signal.Signals) -> None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader, number)
            for pid, began in self._strays.items():
                if processes.is_running(pid, began):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)

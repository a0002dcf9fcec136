"""The PATH that the person's shell has after a login, which a program from a dock never saw.

The shell is asked as a terminal would start it, with the short environment of a server and no
terminal; what it prints besides is told from the answer by marks. Blocks, so for a thread. It is
asked once; again when a command is missing on an answer that is older than a minute, for somebody
may just have installed it. On Windows a login is what the registry says.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

import structlog

from sidecar.mcp_host.tree import Tree

ANSWER_S = 10.0  # a shell with many plugins needs two; one that opens tmux never answers
EXIT_S = 1.0  # after its answer
PRINTED_BYTES = 1024 * 1024
STALE_S = 60.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    path: str | None
    """None where no shell answered."""
    at: float


class LoginShell:
    """Asked by one thread at a time, since several servers start at once and want the same."""

    def __init__(self, ask: Callable[[], str | None]) -> None:
        self._ask = ask
        self._asking = threading.Lock()
        self._answer: Answer | None = None

    def path(self, max_age_s: float = float("inf")) -> str | None:
        with self._asking:
            now = time.monotonic()
            if self._answer is None or now - self._answer.at > max_age_s:
                self._answer = Answer(self._ask(), now)
            return self._answer.path


if sys.platform == "win32":
    import winreg

    _KEYS = (
        (
            winreg.HKEY_LOCAL_MACHINE,
            r"SYSTEM\CurrentControlSet\Control\Session Manager\Environment",
        ),
        (winreg.HKEY_CURRENT_USER, "Environment"),
    )

    def ask() -> str | None:
        """What a program would get that is started now; ours may be older than an installation."""
        found = []
        for root, name in _KEYS:
            with contextlib.suppress(OSError), winreg.OpenKey(root, name) as key:
                value, _ = winreg.QueryValueEx(key, "Path")
                found.append(os.path.expandvars(str(value)))
        return os.pathsep.join(found) or None

else:
    import pwd
    import secrets
    import select
    import subprocess

    from sidecar.mcp_host.variables import child_environment

    def ask() -> str | None:
        shell = _shell()
        path = ask_shell(shell)
        if path is None:
            log.warning("login_shell_silent", shell=shell)
        return path

    def ask_shell(shell: str, timeout_s: float = ANSWER_S) -> str | None:
        """None when it does not answer in time, or not at all."""
        mark = secrets.token_hex(16)
        # a program's words, since each shell has its own; all of them take these quotes
        question = f"""/bin/sh -c 'printf "%s%s%s" {mark} "$PATH" {mark}'"""
        try:
            process = subprocess.Popen(
                [shell, *_flags(shell), question],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment({}),
                start_new_session=True,  # it must not take somebody's terminal
            )
        except OSError:
            return None
        tree = Tree(process.pid)
        with process:
            try:
                return _between(process, mark.encode(), time.monotonic() + timeout_s)
            finally:
                tree.kill()

    def _between(process: "subprocess.Popen[bytes]", mark: bytes, until: float) -> str | None:
        """What stands between the marks; the pipe's end is not waited for: a daemon may hold it."""
        assert process.stdout is not None
        printed = b""
        while len(printed) < PRINTED_BYTES and (left_s := until - time.monotonic()) > 0:
            if not select.select([process.stdout], [], [], left_s)[0]:
                break
            data = os.read(process.stdout.fileno(), PRINTED_BYTES)
            printed += data
            parts = printed.split(mark)
            if len(parts) > 2:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(EXIT_S)
                return parts[1].decode(errors="surrogateescape") or None
            if not data:
                break
        return None

    def _shell() -> str:
        with contextlib.suppress(KeyError):
            return os.environ.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
        return "/bin/sh"

    def _flags(shell: str) -> tuple[str, ...]:
        """Interactive as well, since that is where nvm and its like put themselves."""
        if PurePath(shell).name in ("csh", "tcsh"):  # they take no `-l` with anything else
            return ("-ic",)
        return ("-l", "-i", "-c")


LOGIN = LoginShell(ask)

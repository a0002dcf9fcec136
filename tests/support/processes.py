"""Sidecars in processes of their own, each with a home of its own, and a sure end of all of them.

Every process that a sidecar starts inherits its HOME, which is a test's own folder: by it the
descendants are found, also those that lost their parent.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sidecar.client import Client, connect
from sidecar.messages import JsonObject

PROJECT = Path(__file__).parents[2]
PATIENCE_S = 20.0  # on a machine that does other things too
SERVERS = "tests.support.servers"
_INHERITED = ("PATH", "LANG", "SYSTEMROOT", "TEMP", "TMPDIR")


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: str
    stderr: str


class Sidecar:
    """A running `python -m sidecar`; stderr goes to a file."""

    def __init__(self, process: asyncio.subprocess.Process, home: Path) -> None:
        self.process = process
        self.home = home
        self.line: dict[str, Any] = {}

    @property
    def stderr(self) -> str:
        return (self.home / "stderr").read_text()

    async def first_line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            text = await self.process.stdout.readline()
        assert text, f"it said nothing: {self.stderr}"
        self.line = json.loads(text)
        return self.line

    def client(
        self, token: str | None = None, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[Client]:
        """The token is the ready line's unless one is given; `options` are those of `connect`."""
        return connect(self.line["url"], token or self.line["token"], **options)

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        """The exit code, and what else it wrote to stdout."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            rest = await self.process.stdout.read()
            return await self.process.wait(), rest.decode()

    def family(self) -> list[psutil.Process]:
        """What is alive of it and of whatever it has started."""
        return _processes_of(self.home)

    async def until_alone(self) -> None:
        """Wait until no process is left; one that was just killed may need a moment."""
        async with asyncio.timeout(PATIENCE_S):
            while self.family():  # noqa: ASYNC110  # the ends of others' children are no event
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def spawned(
    home: Path,
    *arguments: str,
    settings: str = "",
    environ: Mapping[str, str] | None = None,
    stdin: int = asyncio.subprocess.PIPE,
    python: tuple[str, ...] = ("-m", "sidecar"),
) -> AsyncIterator[Sidecar]:
    """Start it; when the context is left, it and everything it started are gone."""
    if settings:
        (home / "settings.yaml").write_text(settings)
        arguments = (*arguments, "--config", str(home / "settings.yaml"))
    with (home / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *python,
            *arguments,
            cwd=PROJECT,
            env=environment(home, environ),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        yield Sidecar(process, home)
    finally:
        _kill_all(home)
        if process.stdin is not None:
            process.stdin.close()
        await process.communicate()  # its transport ends with it


class Terminal:
    """What a person sees and types; `ended` gives the exit code."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self._shown = b""
        self._read_to = 0
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._on_output)

    @property
    def text(self) -> str:
        """All that was shown, with line ends as they are in a file."""
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    async def until(self, text: str) -> None:
        """Wait until this is shown, after what was waited for before."""
        wanted = text.encode()
        async with asyncio.timeout(PATIENCE_S):
            while (found := self._shown.find(wanted, self._read_to)) < 0:
                self._news.clear()
                await self._news.wait()
        self._read_to = found + len(wanted)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _on_output(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # how Linux says that nobody has it open any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._shown += data
        self._news.set()


@contextlib.asynccontextmanager
async def on_terminal(
    home: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    python: tuple[str, ...] = ("-m", "sidecar"),
) -> AsyncIterator[Terminal]:
    """A command on a terminal of its own, so that Ctrl-C is a signal."""
    ours, its = os.openpty()
    become = "import os, sys; os.login_tty(0); os.execv(sys.executable, sys.argv[1:])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", become, sys.executable, *python, *arguments),
        cwd=PROJECT,
        env=environment(home, {"TERM": "xterm", **(environ or {})}),
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    terminal = Terminal(process, ours)
    try:
        yield terminal
    finally:
        _kill_all(home)
        await process.wait()
        terminal.close()


async def run(
    home: Path,
    *arguments: str,
    stdin: str = "",
    environ: Mapping[str, str] | None = None,
) -> Finished:
    """Run a command to its end, without a terminal."""
    async with asyncio.timeout(PATIENCE_S):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "sidecar", *arguments),
            cwd=PROJECT,
            env=environment(home, environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            stdout, stderr = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                _kill_all(home)
                await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, stdout.decode(), stderr.decode())


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the person who runs the tests but where programs are."""
    own = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    folders = {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_STATE_HOME": str(home / "state"),
        "SIDECAR_CHAT__TITLES": "words",  # a title of the model's is one more request
        "SSH_CONNECTION": "",  # no browser opens, also where there always is a display
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
    return {**own, **folders, **(more or {})}


def server(name: str, *arguments: str, **fields: str) -> str:
    """The settings' entry of one of the servers in `support/servers`, in YAML's flow style."""
    args = ["-m", f"{SERVERS}.{name}", *arguments]
    return json.dumps({"command": sys.executable, "args": args, "cwd": str(PROJECT), **fields})


THREE_SERVERS: dict[str, JsonObject] = {
    "plain": json.loads(server("plain")),
    "family": {  # with a process of its own
        "command": "/bin/sh",
        "args": ["-c", f'sleep 60 & exec "$0" -m {SERVERS}.plain', sys.executable],
        "cwd": str(PROJECT),
    },
    # to the end of its input and to SIGTERM, with a child that is so too, and has gone away
    "deaf": json.loads(server("faulty", "DeafParent")),
}


def _kill_all(home: Path) -> None:
    for left in _processes_of(home):
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def _processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_ours = process.environ().get("HOME") == str(home)
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found

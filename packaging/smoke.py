"""Does a built program work, and leave nothing behind? `smoke.py PATH` uses it as a frontend does.

Each check has a home and a folder for temporary files of its own; by its home every process is
found that it started. The first thing that is wrong ends the run with a sentence. Works with the
one-file program and with the one in its folder.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path.insert(0, str(PROJECT))  # for the fake vendor

from sidecar.client import Client, ClientError, connect  # noqa: E402
from sidecar.lifetime import SECOND_SIGNAL_S  # noqa: E402
from sidecar.protocol.mcp import (  # noqa: E402
    McpServersList,
    McpServerStateChanged,
    McpToolsCall,
    ToolsCallPayload,
)
from sidecar.protocol.program import ServerShutdown, Shutdown  # noqa: E402
from tests.support.fake_openai import Answer, FakeOpenAI  # noqa: E402
from tests.support.processes import THREE_SERVERS  # noqa: E402
from tests.support.secret_service import missing_programs, secret_service  # noqa: E402
from tests.support.wire_formats import FORMATS, ResponsesFormat  # noqa: E402

GOLDEN = PROJECT / "tests" / "protocol.schema.json"
TOKEN = "s" * 43
CHECK_S = 90.0  # of any check: a slow machine unpacks two bundles and imports an SDK in each
END_S = 6.0  # what the program promises for its end
LAUNCHER_S = 2.0  # the launcher removes what it unpacked
POLL_S = 0.02
# A frontend: starts the program with a pipe for its input, which it never closes.
FRONTEND = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()"


class Failure(Exception):
    """`str(failure)` says what is wrong."""


@dataclass(frozen=True)
class Place:
    """A program and the home that it is run in."""

    program: Path
    home: Path

    @property
    def temporary(self) -> Path:
        return self.home / "tmp"

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        homes = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(self.home))
        temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))
        return {**kept, **homes, **temporary, **more}

    def processes(self) -> list[psutil.Process]:
        """What runs of it, and of whatever it has started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get("HOME") == str(self.home)
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def unpacked(self) -> list[str]:
        return [folder.name for folder in self.temporary.glob("_MEI*")]


class Managed:
    """The program as a frontend's child; `process` is the launcher of a one-file one."""

    def __init__(
        self, place: Place, process: asyncio.subprocess.Process, url: str, pid: int
    ) -> None:
        self.place = place
        self.process = process
        self.url = url
        self.pid = pid
        """Of the program, which is not the launcher."""

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def ended(self) -> int:
        """The exit code. Fails when it, or a process that it started, takes too long."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(END_S + LAUNCHER_S):
                code = await self.process.wait()
                while self.place.processes():  # noqa: ASYNC110  # a stranger's end is no event
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            still = ", ".join(f"{one.pid} {one.name()}" for one in self.place.processes())
            raise Failure(f"{END_S + LAUNCHER_S:g} s later there still run: {still}.") from None
        rest = await self.process.stdout.read()
        check(not rest, f"stdout had more than the ready line: {rest!r}.")
        return code


# ---- the checks -----------------------------------------------------------------------------


async def schema_is_the_golden_one(place: Place) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(place.program), "schema"),
        stdout=asyncio.subprocess.PIPE,
        env=place.environment({}),
    )
    printed, _ = await process.communicate()
    check(process.returncode == 0, f"`schema` ended with {process.returncode}.")
    check(printed.decode() == GOLDEN.read_text("utf-8"), f"`schema` differs from {GOLDEN}.")


async def chats_through_every_vendor_and_three_servers(place: Place) -> None:
    own_libraries = str(place.home)  # of the person, whose programs must find them again
    given = {"OPENAI_API_KEY": "sk-not-for-children", "LD_LIBRARY_PATH": own_libraries}
    async with FakeOpenAI() as vendor, _http_server() as url:
        at_vendor = {"base_url": vendor.url, "api_key": "sk-smoke"}
        settings = {
            "providers": {wire.name: {**wire.section, **at_vendor} for wire in FORMATS},
            "mcp": {"servers": {"web": {"url": url, "trusted": True}, "probe": _probe()}},
        }
        async with _managed(place, "--demo", settings=settings, environ=given) as sidecar:
            async with connect(sidecar.url, TOKEN, events=["mcp"]) as client:
                await _until_ready(client, {"demo", "web", "probe"})
                told = await _chat(client, "what time is it?", "demo/scripted")
                check("current_time returned: 20" in told, f"The demo's tool gave: {told!r}.")
                for wire in FORMATS:
                    vendor.will(Answer(wire.text("Hello ", "from the vendor.")))
                    told = await _chat(client, "hello", f"{wire.name}/a-model")
                    check(told == "Hello from the vendor.", f"{wire.name} gave: {told!r}.")
                told = await _call(client, "web", "add", {"a": 2, "b": 40})
                check(told == "42", f"Over HTTP came: {told!r}.")
                environ = json.loads(await _call(client, "probe", "environment", {}))
            sidecar.close_stdin()
            code = await sidecar.ended()
    check(code == 0, f"After stdin was closed it ended with {code}.")
    check(not place.unpacked(), f"It left {', '.join(place.unpacked())}.")
    _check_environment(environ, own_libraries)


def _check_environment(environ: Mapping[str, str], own_libraries: str) -> None:
    """Of a child: nothing of the bundle, nothing that is secret."""
    for name, value in environ.items():
        is_bundled = name.startswith("_PYI_") or "_MEI" in value or "_internal" in value
        check(not is_bundled, f"A server's environment shows the bundle: {name}={value}.")
        is_secret = name.startswith("SIDECAR_") or "KEY" in name or value == TOKEN
        check(not is_secret, f"A server's environment has {name}.")
    if sys.platform == "linux":
        seen = environ.get("LD_LIBRARY_PATH")
        check(seen == own_libraries, f"A server's LD_LIBRARY_PATH is {seen!r}.")


async def ends_cleanly_when_its_launcher_is_terminated(place: Place) -> None:
    async with (
        _managed(place, "--demo") as sidecar,
        connect(sidecar.url, TOKEN, events=["mcp"]) as client,
    ):
        await _until_ready(client, {"demo"})
        sidecar.process.terminate()
        code = await sidecar.ended()
    check(code == 0, f"After SIGTERM it ended with {code}.")
    check(not place.unpacked(), f"It left {', '.join(place.unpacked())}.")


async def leaves_no_process_when_its_launcher_is_killed(place: Place) -> None:
    async with _managed(place, "--demo") as sidecar:
        async with connect(sidecar.url, TOKEN, events=["mcp"]) as client:
            await _until_ready(client, {"demo"})
        sidecar.process.kill()
        await sidecar.process.wait()
        sidecar.close_stdin()
        await sidecar.ended()


async def ends_with_three_servers(place: Place) -> None:
    """One that behaves, one with a process of its own, one deaf as its child in another session."""
    took = [f"{name} {await _end_took(place, name, end):.1f} s" for name, end in ENDS.items()]
    print(f"    {', '.join(took)}", flush=True)


async def _end_took(place: Place, name: str, end: Callable[[Managed], Awaitable[int]]) -> float:
    settings = {"mcp": {"servers": THREE_SERVERS}}
    async with _managed(place, settings=settings, has_frontend="frontend" in name) as sidecar:
        async with connect(sidecar.url, TOKEN, events=["mcp"]) as client:
            await _until_ready(client, set(THREE_SERVERS))
        began = time.monotonic()
        expected = await end(sidecar)
        code = await sidecar.ended()
        took = time.monotonic() - began
    check(code == expected, f"{name}: it ended with {code} and not with {expected}.")
    return took


async def _close_stdin(sidecar: Managed) -> int:
    sidecar.close_stdin()
    return 0


async def _terminate(sidecar: Managed) -> int:
    sidecar.process.terminate()
    return 0


async def _terminate_twice(sidecar: Managed) -> int:
    async with connect(sidecar.url, TOKEN) as client:
        sidecar.process.terminate()
        await client.event(ServerShutdown)
        await asyncio.sleep(SECOND_SIGNAL_S + 0.1)  # what tells it from the first one's echo
        sidecar.process.terminate()
    return 128 + signal.SIGTERM


async def _ask_for_the_end(sidecar: Managed) -> int:
    async with connect(sidecar.url, TOKEN) as client:
        await client.request(Shutdown)
    return 0


async def _kill_child(sidecar: Managed) -> int:
    """Of the smoke test: the launcher, or the frontend where there is one, or the program."""
    sidecar.process.kill()
    return -signal.SIGKILL


async def _kill_program(sidecar: Managed) -> int:
    os.kill(sidecar.pid, signal.SIGKILL)
    return -signal.SIGKILL  # the launcher ends as its program did


ENDS: dict[str, Callable[[Managed], Awaitable[int]]] = {
    "closed stdin": _close_stdin,
    "SIGTERM": _terminate,
    "SIGTERM twice": _terminate_twice,
    "shutdown": _ask_for_the_end,
    "kill -9 of the frontend": _kill_child,
    "kill -9 of the launcher": _kill_child,
    "kill -9 of the program": _kill_program,
}


async def removes_what_a_killed_launcher_left(place: Place) -> None:
    async with _managed(place) as sidecar:
        sidecar.process.kill()
        await sidecar.ended()
    check(len(place.unpacked()) == 1, f"A killed launcher left {place.unpacked()}.")
    async with _managed(place) as sidecar:
        while len(place.unpacked()) > 1:  # noqa: ASYNC110  # its thread tells nobody
            await asyncio.sleep(POLL_S)
        sidecar.close_stdin()
        await sidecar.ended()
    check(not place.unpacked(), f"It left {', '.join(place.unpacked())}.")


async def outlives_an_update_of_its_file(place: Place) -> None:
    """What it imports for its first chat comes from the file that it was started from."""
    installed = Place(place.home / place.program.name, place.home)
    shutil.copy2(place.program, installed.program)
    async with FakeOpenAI() as vendor:
        vendor.will(Answer(ResponsesFormat().text("Hello from the vendor.")))
        settings = {
            "providers": {"openai": {"base_url": vendor.url, "api_key": "sk-smoke"}},
            "chat": {"model": "ollama/none"},  # so that nothing is imported for it beforehand
        }
        async with _managed(installed, settings=settings) as sidecar:
            update = place.home / "update"
            update.write_bytes(b"another program" * 1000)
            os.replace(update, installed.program)
            async with connect(sidecar.url, TOKEN) as client:
                told = await _chat(client, "hello", "openai/gpt-4o-mini")
            check(told == "Hello from the vendor.", f"After the update came: {told!r}.")
            sidecar.close_stdin()
            code = await sidecar.ended()
    check(code == 0, f"It ended with {code}.")


async def keeps_a_key_in_the_keyring(place: Place) -> None:
    """In a Secret Service of this check's own."""
    with secret_service() as keyring:

        async def keys(*arguments: str, stdin: str = "") -> str:
            process = await asyncio.create_subprocess_exec(
                *(str(place.program), "keys", *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=place.environment(keyring.environ),
            )
            printed, _ = await process.communicate(stdin.encode())
            said = printed.decode().strip()
            check(process.returncode == 0, f"`keys {arguments[0]}` failed: {said}")
            return said

        await keys("set", "openai", stdin="sk-smoke\n")
        stored = await keys("status")
        await keys("delete", "openai")
        after = await keys("status")
    check("SecretService" in stored, f"The keyring is another one: {stored}")
    check(_has_key(stored) and not _has_key(after), f"It kept: {stored}; then: {after}")


def _has_key(status: str) -> bool:
    return any(line.split()[:2] == ["openai", "keyring"] for line in status.splitlines())


# ---- what they are made of ------------------------------------------------------------------


def check(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Failure(otherwise)


@contextlib.asynccontextmanager
async def _managed(
    place: Place,
    *arguments: str,
    settings: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    has_frontend: bool = False,
) -> AsyncIterator[Managed]:
    file = place.home / "settings.yaml"
    file.write_text(json.dumps(settings or {}))
    frontend = (sys.executable, "-c", FRONTEND) if has_frontend else ()
    process = await asyncio.create_subprocess_exec(
        *(*frontend, str(place.program), "--managed", "--config", str(file), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=place.environment({**(environ or {}), "SIDECAR_TOKEN": TOKEN}),
    )
    assert process.stdout is not None
    line = json.loads(await process.stdout.readline() or b"{}")
    check(line.get("event") == "ready", f"The first line is {line}, and not that it is ready.")
    yield Managed(place, process, line["url"], line["pid"])


@contextlib.asynccontextmanager
async def _http_server() -> AsyncIterator[str]:
    """The address of an MCP server that runs in this Python, not in the bundle."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "http_server.py")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = (await process.stdout.readline()).decode().strip()
        check(bool(port), "The MCP server of this test did not start.")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


def _probe() -> dict[str, Any]:
    args = ["-m", "tests.support.servers.plain"]
    return {
        "command": sys.executable,
        "args": args,
        "cwd": str(PROJECT),
        "allow": ["environment"],
    }


async def _until_ready(client: Client, servers: set[str]) -> None:
    while True:
        items = (await client.request(McpServersList)).items
        for item in items:
            check(item.error is None, f"The server {item.server} is {item.state}: {item.error}.")
        if servers == {item.server for item in items if item.state == "ready"}:
            return
        await client.event(McpServerStateChanged)


async def _chat(client: Client, said: str, model: str) -> str:
    run = await client.chat(said, model=model)
    await run.finished()
    return run.text


async def _call(client: Client, server: str, tool: str, arguments: dict[str, Any]) -> str:
    payload = ToolsCallPayload(server=server, name=tool, arguments=arguments)
    return (await client.request(McpToolsCall, payload)).text


async def _run(checks: Sequence[Callable[[Place], Awaitable[None]]], program: Path) -> None:
    for one in checks:
        name = one.__name__.replace("_", " ")
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="sidecar-smoke-") as home:
            place = Place(program, Path(home))
            place.temporary.mkdir()
            try:
                async with asyncio.timeout(CHECK_S):
                    await one(place)
            except TimeoutError:
                raise Failure(f"{name}: not within {CHECK_S:g} s.") from None
            except (Failure, ClientError, OSError, ValueError, AssertionError) as error:
                raise Failure(f"{name}: {error}") from error
            finally:
                for left in place.processes():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        left.kill()
        print(f"ok  {name} ({time.monotonic() - began:.1f} s)", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Use a built program as a frontend does.")
    parser.add_argument("path", metavar="PATH", type=Path, help="the built program")
    given = parser.parse_args()
    checks = [schema_is_the_golden_one, chats_through_every_vendor_and_three_servers]
    checks.append(leaves_no_process_when_its_launcher_is_killed)
    if sys.platform == "win32":
        print("--  Windows has no signals: only the closed stdin ends it here.")
    else:
        checks.append(ends_cleanly_when_its_launcher_is_terminated)
    if (given.path.resolve().parent / "_internal").is_dir():
        print("--  A program in its folder has no launcher, and ends as the sources do.")
    else:
        checks.append(removes_what_a_killed_launcher_left)
        if sys.platform != "win32":  # where the file of what runs cannot be replaced either
            checks += [ends_with_three_servers, outlives_an_update_of_its_file]
    if missing := missing_programs():
        print(f"--  no key is kept in a real keyring: that {missing}.")
    else:
        checks.append(keeps_a_key_in_the_keyring)
    try:
        asyncio.run(_run(checks, given.path.resolve()))
    except Failure as failure:
        print(f"smoke.py: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

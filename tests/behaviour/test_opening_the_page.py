"""Who gets the page opened in a browser, at which address, and what the others are told."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from sidecar import __version__
from sidecar.instance import DISCOVERY
from tests.support.processes import PATIENCE_S, Sidecar, on_terminal, run, spawned

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the browser is a shell script")


class Browser:
    """A script that BROWSER names; it tells the test what it was opened with, and its variables."""

    def __init__(self, script: Path, pipe: int, said: asyncio.StreamReader) -> None:
        self.script = script
        self.environ = {"BROWSER": str(script)}
        self._pipe = pipe
        self._said = said

    async def opened(self) -> tuple[str, dict[str, str]]:
        async with asyncio.timeout(PATIENCE_S):
            url, *lines = (await self._said.readuntil(b"\n\n")).decode().splitlines()
        return url, dict(line.partition("=")[::2] for line in lines if line)

    async def was_left_alone(self) -> bool:
        """Since it was asked last, by processes that have ended."""
        os.write(self._pipe, b"nobody\n\n")
        return await self.opened() == ("nobody", {})


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    path, script = tmp_path / "opened", tmp_path / "browser"
    os.mkfifo(path)
    script.write_text(f'#!/bin/sh\n{{ echo "$1"; env; echo; }} >{path}\n')
    script.chmod(0o755)
    pipe = os.open(path, os.O_RDWR)
    said = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(said), os.fdopen(pipe, "rb", buffering=0)
    )
    yield Browser(script, pipe, said)
    transport.close()


@asynccontextmanager
async def started(
    home: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Sidecar]:
    """`sidecar` as a person starts it, once it can be found."""
    async with spawned(home, "--port", "0", *arguments, environ=environ) as sidecar:
        assert sidecar.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(4):
                await sidecar.process.stdout.readline()
        sidecar.line = json.loads(discovery(home).read_text())
        yield sidecar


def discovery(home: Path) -> Path:
    return home / "data" / "sidecar" / DISCOVERY


async def accepts(http: str, code: str) -> bool:
    async with (
        aiohttp.ClientSession(http) as session,
        session.post("/api/session", json={"code": code}, headers={"Origin": http}) as answer,
    ):
        return answer.status == 200


async def ended(sidecar: Sidecar) -> str:
    """What it said after its address."""
    sidecar.process.terminate()
    code, said = await sidecar.ended()
    assert code == 0
    return said


async def test_a_start_opens_its_page_with_a_code_that_is_said_nowhere_else(
    tmp_path: Path, browser: Browser
) -> None:
    async with started(tmp_path, environ=browser.environ) as sidecar:
        url, _ = await browser.opened()
        address, _, code = url.partition("#code=")

        assert address == f"{sidecar.line['http']}/"
        assert await accepts(sidecar.line["http"], code)
        said = await ended(sidecar)

    logs = [file.read_text() for file in tmp_path.rglob("*.log*")]
    assert logs
    assert all(code not in text for text in (said, sidecar.stderr, *logs))
    assert await browser.was_left_alone()  # it opened once


async def test_a_browser_gets_no_secret_of_ours(tmp_path: Path, browser: Browser) -> None:
    secrets = {
        "OPENAI_API_KEY": "sk-test-0123456789abcdefghijklmnop",
        "SIDECAR_TOKEN": "t0ken-" + "x" * 40,
        "SIDECAR_PROVIDERS__OPENAI__API_KEY": "sk-test-abcdefghijklmnop0123456789",
    }
    others = {"LANGUAGE": "en", "XDG_ACTIVATION_TOKEN": "start-up"}
    async with started(tmp_path, environ={**browser.environ, **secrets, **others}):
        _, environ = await browser.opened()

    assert environ.keys() & secrets.keys() == set()
    assert environ.items() >= others.items()
    assert environ["HOME"] == str(tmp_path)


async def test_a_second_start_opens_the_page_of_the_first_with_a_new_code(
    tmp_path: Path, browser: Browser
) -> None:
    async with started(tmp_path, environ=browser.environ) as first:
        first_url, _ = await browser.opened()

        second = await run(tmp_path, environ=browser.environ)
        url, _ = await browser.opened()
        address, _, code = url.partition("#code=")

        assert (second.code, second.stderr) == (0, "")
        assert address == f"{first.line['http']}/"
        assert url != first_url
        assert code not in second.stdout
        assert await accepts(first.line["http"], code)


async def test_with_no_browser_nothing_opens_and_a_second_start_exits_4(
    tmp_path: Path, browser: Browser
) -> None:
    async with started(tmp_path, "--no-browser", environ=browser.environ) as first:
        second = await run(tmp_path, "--no-browser", environ=browser.environ)
        said = await ended(first)

    assert (second.code, said) == (4, "")
    assert await browser.was_left_alone()


async def test_a_managed_start_opens_nothing(tmp_path: Path, browser: Browser) -> None:
    async with spawned(tmp_path, "--managed", environ=browser.environ) as managed:
        await managed.first_line()
        managed.close_stdin()
        code, said = await managed.ended()

    assert (code, said) == (0, "")
    assert await browser.was_left_alone()


async def test_without_a_browser_a_pipe_is_told_how_but_no_code(tmp_path: Path) -> None:
    async with started(tmp_path) as first:
        second = await run(tmp_path)
        said = await ended(first)

    for text in (said, second.stdout):
        assert "No browser can be opened here: run `sidecar` in a terminal" in text
        assert "code=" not in text


async def test_without_a_browser_a_terminal_shows_an_address_with_a_code(tmp_path: Path) -> None:
    async with started(tmp_path) as first, on_terminal(tmp_path) as screen:
        await screen.until("good for a minute")
        assert await screen.ended() == 0
        await screen.until("#code=")
        code = screen.text.partition("#code=")[2].strip()

        assert await accepts(first.line["http"], code)


@pytest.mark.parametrize("command", ["/no/such/browser", " ", "'%s"])
async def test_a_browser_that_cannot_start_is_said(tmp_path: Path, command: str) -> None:
    async with started(tmp_path, environ={"BROWSER": command}) as sidecar:
        assert sidecar.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await sidecar.process.stdout.readline()

    assert line.startswith(b"No browser can be opened here")


async def test_an_end_does_not_wait_for_a_browser(tmp_path: Path, browser: Browser) -> None:
    browser.script.write_text(browser.script.read_text() + "exec sleep 60 >/dev/null\n")
    async with started(tmp_path, environ=browser.environ) as sidecar:
        await browser.opened()

        assert await ended(sidecar) == ""


async def test_a_first_one_of_another_version_is_said_with_what_to_do(
    tmp_path: Path, browser: Browser
) -> None:
    async with started(tmp_path, "--no-browser") as first:
        discovery(tmp_path).write_text(json.dumps({**first.line, "version": "0.0.1"}))
        second = await run(tmp_path, environ=browser.environ)
        await browser.opened()

    assert "sidecar 0.0.1 is running already." in second.stdout
    end = f"This is {__version__}: end that one (pid {first.process.pid}) to use it.\n"
    assert end in second.stdout


async def test_of_a_first_one_that_gives_no_code_only_the_address_is_said(
    tmp_path: Path, browser: Browser
) -> None:
    async with started(tmp_path, "--no-browser") as first:
        discovery(tmp_path).write_text(json.dumps({**first.line, "token": "wrong"}))
        second = await run(tmp_path, environ=browser.environ)

    assert (second.code, second.stderr) == (0, "")
    assert second.stdout.endswith(f"  page   {first.line['http']}/\n")
    assert await browser.was_left_alone()

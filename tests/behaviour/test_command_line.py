"""The commands as a person and a script use them: output, exit codes, and no traceback."""

import asyncio
import io
import json
import os
import signal
import socket
import sys
from asyncio import gather
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest

from sidecar import __version__, log, schema
from sidecar.cli import main
from tests.support.fake_openai import FakeOpenAI
from tests.support.keyrings import FILE_VARIABLE
from tests.support.processes import (
    PATIENCE_S,
    Finished,
    environment,
    on_terminal,
    run,
    server,
    spawned,
)

KEY = "sk-test-0123456789abcdefghijklmnop"
terminal = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")


SCRIPT = "chat: {model: demo/scripted}\nproviders: {demo: {kind: demo}}\n"
TOOLS = f"{SCRIPT}mcp: {{servers: {{plain: {server('plain')}}}}}\n"


def vendor(upstream: FakeOpenAI) -> str:
    provider = f"fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}"
    return f"chat: {{model: fake/test}}\nproviders: {{{provider}}}\n"


def configured(home: Path, settings: str) -> tuple[str, str]:
    """The flag for a file with these settings."""
    file = home / "settings.yaml"
    file.write_text(settings)
    return "--config", str(file)


def keyring(home: Path) -> dict[str, str]:
    return {
        "PYTHON_KEYRING_BACKEND": "tests.support.keyrings.FileKeyring",
        FILE_VARIABLE: str(home / "keyring.json"),
    }


@pytest.fixture
def sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """Run a command in this process, for those that start nothing; nothing is on its stdin."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run_here(*arguments: str) -> Finished:
        try:
            code = main(arguments)
        finally:
            log.close()
        return Finished(code, *capsys.readouterr())

    return run_here


# ---- chat -----------------------------------------------------------------------------------


async def test_chat_prints_the_answer_on_stdout_and_the_tools_on_stderr(tmp_path: Path) -> None:
    finished = await run(tmp_path, "chat", "--demo", "add 2 and 3")

    assert (finished.code, finished.stdout) == (0, "The tool add returned: 5\n")
    assert "→ demo/add" in finished.stderr
    assert "← ok: 5" in finished.stderr
    assert "\x1b" not in finished.stderr


async def test_chat_takes_one_message_of_many_lines_from_a_pipe(tmp_path: Path) -> None:
    async with FakeOpenAI() as upstream:
        config = configured(tmp_path, vendor(upstream))

        finished = await run(tmp_path, "chat", *config, stdin="one\ntwo\n")

    assert (finished.code, finished.stdout) == (0, "Hello.\n")
    assert [body["messages"][-1]["content"] for body in upstream.bodies] == ["one\ntwo\n"]


async def test_without_a_terminal_a_tool_that_asks_is_denied_and_that_is_said(
    tmp_path: Path,
) -> None:
    finished = await run(tmp_path, "chat", *configured(tmp_path, TOOLS), "call echo {}")

    assert finished.code == 0
    assert "not allowed to call echo" in finished.stdout
    assert "← denied" in finished.stderr
    assert "--yes allows every tool call" in finished.stderr


async def test_yes_allows_every_tool_call(tmp_path: Path) -> None:
    message = 'call echo {"text": "hello"}'
    finished = await run(tmp_path, "chat", *configured(tmp_path, TOOLS), "--yes", message)

    assert (finished.code, finished.stdout) == (0, "The tool echo returned: hello\n")


async def test_a_failing_answer_ends_with_its_reason_and_exit_code_1(tmp_path: Path) -> None:
    finished = await run(tmp_path, "chat", *configured(tmp_path, SCRIPT), "fail")

    assert (finished.code, finished.stdout) == (1, "I begin to answer, and then \n")
    assert finished.stderr.endswith("sidecar: The demo was asked to fail, and did.\n")


async def test_chat_without_a_key_names_the_ways_out(tmp_path: Path) -> None:
    finished = await run(tmp_path, "chat", "hello")

    assert (finished.code, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    for way in ("sidecar keys set openai", "OPENAI_API_KEY", "--demo"):
        assert way in line


@terminal
async def test_on_a_terminal_a_person_is_asked_and_the_chat_remembers(tmp_path: Path) -> None:
    async with on_terminal(tmp_path, "chat", "--demo") as screen:
        await screen.until("> ")
        screen.type("note buy milk\n")
        await screen.until("demo wants to run write_note")
        await screen.until("[n]o: ")
        screen.type("n\n")
        await screen.until("I was not allowed to call write_note")
        await screen.until("> ")
        screen.type("note buy tea\n")
        await screen.until("[n]o: ")
        screen.type("perhaps\n")  # is asked again
        await screen.until("[n]o: ")
        screen.type("y\n")
        await screen.until("The tool write_note returned: ")
        await screen.until("> ")
        screen.type("note and bread\n")  # once was once
        await screen.until("[n]o: ")
        screen.type("a\n")
        await screen.until("The tool write_note returned: ")
        await screen.until("> ")
        screen.type("note and cheese\n")
        await screen.until("The tool write_note returned: ")
        await screen.until("> ")
        screen.type("\x04")
        code = await screen.ended()

    assert code == 0
    assert screen.text.count("wants to run") == 3
    assert "\x1b[2m" in screen.text
    assert "Traceback" not in screen.text


@terminal
async def test_the_second_message_goes_on_with_the_first_ones_conversation(
    tmp_path: Path,
) -> None:
    async with FakeOpenAI() as upstream:
        config = configured(tmp_path, vendor(upstream))
        async with on_terminal(tmp_path, "chat", *config) as screen:
            await screen.until("> ")
            screen.type("first\n")
            await screen.until("Hello.")
            await screen.until("> ")
            screen.type("second\n")
            await screen.until("Hello.")
            screen.type("\x04")
            await screen.ended()

    said = [message["content"] for message in upstream.bodies[1]["messages"]]
    assert said[-3:] == ["first", "Hello.", "second"]


@terminal
async def test_ctrl_c_cancels_the_answer_with_exit_code_130(tmp_path: Path) -> None:
    plain = {"NO_COLOR": "1"}
    config = configured(tmp_path, SCRIPT)
    async with on_terminal(tmp_path, "chat", *config, "long", environ=plain) as screen:
        await screen.until("word 2")
        screen.type("\x03")
        code = await screen.ended()

    assert code == 130
    assert "(cancelled)" in screen.text
    assert "done." not in screen.text
    assert "\x1b" not in screen.text
    assert "Traceback" not in screen.text


@terminal
async def test_ctrl_c_stops_an_answer_or_a_question_and_at_the_prompt_the_chat(
    tmp_path: Path,
) -> None:
    async with on_terminal(tmp_path, "chat", *configured(tmp_path, TOOLS)) as screen:
        await screen.until("> ")
        screen.type("long\n")
        await screen.until("word 2")
        screen.type("\x03")
        await screen.until("(cancelled)")
        await screen.until("> ")
        screen.type("call echo {}\n")
        await screen.until("[n]o: ")
        screen.type("\x03")
        await screen.until("(cancelled)")
        await screen.until("> ")
        screen.type("hello\n")  # is a message, not an answer to the question
        await screen.until("I am the demo script")
        await screen.until("> ")
        screen.type("\x03")
        code = await screen.ended()

    assert code == 130
    assert "Traceback" not in screen.text


# ---- serve ----------------------------------------------------------------------------------


@terminal
async def test_a_chat_that_is_terminated_ends_its_servers_first(tmp_path: Path) -> None:
    settings = SCRIPT + f"mcp: {{servers: {{deaf: {server('faulty', 'Deaf')}}}}}\n"
    async with spawned(tmp_path, "chat", "long", settings=settings) as chat:
        assert chat.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            await chat.process.stdout.read(4)  # the answer has begun, so the server runs
        assert len(chat.family()) == 3  # itself, its guardian and the server

        chat.send(signal.SIGTERM)

        code, _ = await chat.ended()
        assert code == 143
        assert "Traceback" not in chat.stderr
        await chat.until_alone()


async def test_serve_prints_address_and_token_once_and_logs_to_stderr(tmp_path: Path) -> None:
    async with spawned(
        tmp_path, "serve", "--port", "0", "--no-browser", "--log-format", "json"
    ) as sidecar:
        assert sidecar.process.stdout is not None
        lines = [(await sidecar.process.stdout.readline()).decode().split() for _ in range(4)]
        http, url, token = lines[1][1].rstrip("/"), lines[2][1], lines[3][1]
        sidecar.line = {"url": url, "token": token}
        async with sidecar.client():
            pass
        sidecar.process.terminate()
        code, rest = await sidecar.ended()

    logged = [json.loads(line) for line in sidecar.stderr.splitlines()]
    assert (code, rest) == (0, "")
    assert (logged[0]["event"], logged[0]["address"]) == ("listening", http)
    assert token not in sidecar.stderr


async def test_the_usual_port_gives_way_when_it_is_taken_and_another_one_does_not(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        with suppress(OSError):  # by somebody else, which is as good
            taken.bind(("127.0.0.1", 8000))
            taken.listen()

        async with spawned(tmp_path, "serve", "--log-format", "json") as sidecar:
            assert sidecar.process.stdout is not None
            lines = [(await sidecar.process.stdout.readline()).decode() for _ in range(2)]
            sidecar.process.terminate()
            await sidecar.ended()
        refused = await run(tmp_path, "serve", "--port", "8000")

    assert "page   http://127.0.0.1:" in lines[1]
    assert ":8000/" not in lines[1]
    assert json.loads(sidecar.stderr.splitlines()[0])["event"] == "port_in_use"
    assert refused.code == 3
    assert refused.stderr.startswith("sidecar: Port 8000 on 127.0.0.1 is in use")


# ---- keys -----------------------------------------------------------------------------------


async def test_a_key_is_set_from_stdin_shown_as_a_state_and_deleted(tmp_path: Path) -> None:
    environ = keyring(tmp_path)

    stored = await run(tmp_path, "keys", "set", "openai", stdin=f"{KEY}\n", environ=environ)
    status = await run(tmp_path, "keys", "status", environ=environ)
    kept = (tmp_path / "keyring.json").read_text()
    deleted = await run(tmp_path, "keys", "delete", "openai", environ=environ)

    assert (stored.code, stored.stdout) == (0, "The key for openai is in the keyring.\n")
    assert "openai       keyring\n" in status.stdout
    assert "gemini       no key\n" in status.stdout
    assert KEY in kept
    assert deleted.code == 0
    assert KEY not in (tmp_path / "keyring.json").read_text()
    for finished in (stored, status, deleted):
        assert KEY not in finished.stdout + finished.stderr


@terminal
async def test_a_key_that_is_typed_is_not_shown(tmp_path: Path) -> None:
    async with on_terminal(tmp_path, "keys", "set", "openai", environ=keyring(tmp_path)) as screen:
        await screen.until("Key for openai: ")
        screen.type(f"{KEY}\n")
        await screen.until("is in the keyring")
        code = await screen.ended()

    assert code == 0
    assert KEY in (tmp_path / "keyring.json").read_text()
    assert KEY not in screen.text


async def test_without_a_keyring_a_key_is_refused_and_each_reason_said_once(
    tmp_path: Path,
) -> None:
    refused, status = await gather(
        run(tmp_path, "keys", "set", "openai", stdin=f"{KEY}\n"),
        run(tmp_path, "keys", "status", environ={"OPENAI_API_KEY": KEY}),
    )

    assert refused.code == 5
    assert "openai       environment\n" in status.stdout
    assert status.stderr.count("no keyring that keeps secrets") == 1
    for finished in (refused, status):
        assert KEY not in finished.stdout + finished.stderr


# ---- config ---------------------------------------------------------------------------------


def test_a_settings_file_is_started_found_checked_and_shown(
    sidecar: Callable[..., Finished], tmp_path: Path
) -> None:
    path = sidecar("config", "path")
    file = Path(path.stdout.strip())
    absent = sidecar("config", "validate")
    begun = sidecar("config", "init")
    again = sidecar("config", "init")
    valid = sidecar("config", "validate")
    secret = f"providers: {{openai: {{headers: {{authorization: {KEY}}}}}}}\n"
    file.write_text(f"chat: {{max_steps: 5}}\n{secret}")
    shown = sidecar("config", "show")

    assert (absent.code, begun.code, again.code, valid.code, shown.code) == (0, 0, 2, 0, 0)
    assert file.is_relative_to(tmp_path)
    assert begun.stdout == path.stdout
    assert "is there already" in again.stderr
    assert valid.stdout == f"{file}: valid\n"
    assert f"max_steps: 5  # file {file}" in shown.stdout
    assert KEY not in shown.stdout


# ---- mcp ------------------------------------------------------------------------------------


async def test_the_demo_servers_tools_are_listed_with_what_they_may(tmp_path: Path) -> None:
    listed, tools = await gather(
        run(tmp_path, "mcp", "list", "--demo"), run(tmp_path, "mcp", "tools", "--demo")
    )

    assert listed.stdout.split() == ["demo", "ready", "4", "tools"]
    assert "demo/add  [allow]  The sum of two numbers.\n" in tools.stdout
    assert "demo/write_note  [ask]" in tools.stdout


async def test_a_tool_is_called_by_whoever_types_its_name(tmp_path: Path) -> None:
    config = configured(tmp_path, TOOLS)

    called, refused, absent = await gather(
        run(tmp_path, "mcp", "call", *config, "plain/echo", '{"text": "hello\\u001b"}'),
        run(tmp_path, "mcp", "call", *config, "plain/refuse"),
        run(tmp_path, "mcp", "call", *config, "plain/nothing"),
    )

    assert (called.code, called.stdout) == (0, "hello\\u001b\n")  # what it is, and not a control
    assert (refused.code, refused.stdout) == (1, "")
    assert "No, thank you." in refused.stderr
    assert (absent.code, absent.stdout) == (1, "")
    assert "has no tool 'nothing'" in absent.stderr


async def test_a_server_that_does_not_start_is_listed_with_the_reason_and_its_last_words(
    tmp_path: Path,
) -> None:
    config = configured(
        tmp_path, f"mcp: {{servers: {{broken: {server('faulty', 'ExitsAtOnce')}}}}}"
    )

    listed, logs, absent = await gather(
        run(tmp_path, "mcp", "list", *config),
        run(tmp_path, "mcp", "logs", *config, "broken"),
        run(tmp_path, "mcp", "logs", *config, "other"),
    )

    assert listed.code == 0
    assert listed.stdout.startswith("broken ")
    assert "the settings file is missing" in listed.stdout
    assert "the settings file is missing" in logs.stdout
    assert (absent.code, absent.stdout) == (1, "")
    assert "There is no MCP server other" in absent.stderr


async def test_without_servers_the_list_says_where_to_add_them(tmp_path: Path) -> None:
    listed = await run(tmp_path, "mcp", "list")

    assert (listed.code, listed.stdout) == (0, "")
    assert "mcp.servers" in listed.stderr


# ---- the rest -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", get_args(schema.Format))
def test_the_schema_is_printed_in_every_form(
    sidecar: Callable[..., Finished], form: schema.Format
) -> None:
    finished = sidecar("schema", "--format", form)

    assert (finished.code, finished.stdout) == (0, schema.render(form))


async def test_help_and_version_are_on_stdout(tmp_path: Path) -> None:
    helped = await run(tmp_path, "--help")
    version = await run(tmp_path, "--version")

    assert helped.code == 0
    for command in ("serve", "chat", "keys", "config", "mcp", "door", "schema"):
        assert f"\n    {command} " in helped.stdout
    assert "demo-server" not in helped.stdout
    assert (version.code, version.stdout) == (0, f"sidecar {__version__}\n")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["sreve"], "did you mean serve?"),
        (["unheard-of"], "there are: serve, chat"),
        (["--bogus"], "--bogus"),
        (["serve", "extra"], "extra"),
        (["chat", "--bogus"], "--bogus"),
        (["--port", "many"], "many"),
        (["--port", "65536"], "65535"),
        (["--host", "0.0.0.0"], "server.tls"),
        (["--allow-origin", "*"], "without *"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--profile", "../up"], "../up"),
        (["mcp"], "COMMAND"),
        (["mcp", "call", "no-slash"], "SERVER/TOOL"),
        (["mcp", "call", "a/b", "{"], "JSON"),
        (["mcp", "call", "a/b", "[]"], "JSON object"),
        (["keys", "set"], "provider"),
        (["keys", "set", "nobody"], "nobody"),
        (["keys", "set", "openai"], "empty"),
        (["schema", "--format", "xml"], "xml"),
        (["chat"], "TEXT"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(
    sidecar: Callable[..., Finished], arguments: list[str], said: str
) -> None:
    finished = sidecar(*arguments)

    (line,) = finished.stderr.splitlines()
    assert (finished.code, finished.stdout) == (2, "")
    assert line.startswith("sidecar: ")
    assert said in line


@pytest.mark.parametrize("command", [["serve"], ["chat", "--demo", "hi"], ["config", "init"]])
def test_a_folder_that_cannot_be_made_is_one_line_too(
    sidecar: Callable[..., Finished], tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "config").write_text("in the way")

    finished = sidecar(*command)

    (line,) = finished.stderr.splitlines()
    assert finished.code == 2
    assert str(tmp_path / "config") in line


async def test_a_home_that_is_not_known_is_no_reason_to_fail_badly(tmp_path: Path) -> None:
    finished = await run(tmp_path, "config", "validate", environ={"HOME": ""})

    assert finished.code in (0, 2)
    assert "Traceback" not in finished.stderr

"""A command that is not on our PATH is found where the person's terminal would find it."""

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import McpServerConfig
from sidecar.errors import McpStartFailed
from sidecar.mcp_host.environment import Launch, resolve
from sidecar.mcp_host.login_shell import LoginShell
from sidecar.mcp_host.search_path import joined, search_paths
from tests.support.hosts import until_dead

if sys.platform == "win32":
    pytest.skip("shells of POSIX", allow_module_level=True)

from sidecar.mcp_host.login_shell import ask_shell

STARTUP_FILES = {  # where a person's shell is told of another folder, interactively
    "bash": ".bash_profile",
    "zsh": ".zshrc",
    "fish": ".config/fish/config.fish",
    "tcsh": ".tcshrc",
    "sh": ".profile",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ZDOTDIR", "XDG_CONFIG_HOME", "ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    return tmp_path


def script(file: Path, *lines: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(("#!/bin/sh", *lines, "")))
    file.chmod(0o755)
    return str(file)


def silent() -> LoginShell:
    return LoginShell(lambda: None)


# ---- the login shell ------------------------------------------------------------------------


@pytest.mark.parametrize("name", STARTUP_FILES)
def test_each_shell_tells_what_its_startup_file_adds(name: str, home: Path) -> None:
    shell = shutil.which(name)
    if shell is None:
        pytest.skip(f"there is no {name} here")
    file = home / STARTUP_FILES[name]
    file.parent.mkdir(parents=True, exist_ok=True)
    is_c = name == "tcsh"
    setting = "setenv PATH /my/own:$PATH" if is_c else 'export PATH="/my/own:$PATH"'
    file.write_text(f"echo Welcome back\n{setting}\n")

    told = ask_shell(shell)

    assert told is not None
    assert "/my/own" in told.split(":")
    assert "Welcome" not in told


def test_a_banner_before_and_after_is_no_part_of_it(home: Path) -> None:
    shell = script(home / "shell", "echo hello", 'shift 3; eval "$1"', "echo bye")

    assert ask_shell(shell) == os.environ["PATH"]


def test_a_shell_sees_none_of_our_secrets(home: Path) -> None:
    shell = script(home / "shell", f"env > {home}/seen")

    assert ask_shell(shell) is None
    assert "secret" not in (home / "seen").read_text()


def test_a_shell_that_hangs_is_given_up_with_whatever_it_started(home: Path) -> None:
    shell = script(home / "shell", "sleep 60 &", f"echo $! > {home}/pid", "wait")
    began = time.monotonic()

    assert ask_shell(shell, timeout_s=0.5) is None

    assert time.monotonic() - began < 5
    until_dead(int((home / "pid").read_text()))


def test_a_daemon_that_keeps_the_pipe_open_is_not_waited_for(home: Path) -> None:
    shell = script(
        home / "shell", "shift 3", f"sleep 60 & echo $! > {home}/pid", 'eval "$1"', "exit"
    )
    began = time.monotonic()

    assert ask_shell(shell) == os.environ["PATH"]

    assert time.monotonic() - began < 5
    until_dead(int((home / "pid").read_text()))


def test_a_shell_that_prints_without_an_end_is_given_up(home: Path) -> None:
    assert ask_shell(script(home / "shell", "while :; do echo spam spam spam; done")) is None


@pytest.mark.parametrize("shell", ["/no/such/shell", "/bin/false"])
def test_no_shell_has_no_path(shell: str) -> None:
    assert ask_shell(shell) is None


def test_servers_that_start_together_ask_once() -> None:
    asked = []
    shell = LoginShell(lambda: asked.append(1) or time.sleep(0.05) or "/login")  # type: ignore[func-returns-value]
    told: list[str | None] = []
    threads = [threading.Thread(target=lambda: told.append(shell.path())) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (told, asked) == (["/login"] * 4, [1])


def test_an_old_answer_is_asked_for_again_when_a_command_is_missing() -> None:
    answers = iter(("/before", "/after"))
    shell = LoginShell(lambda: next(answers))

    assert [shell.path(), shell.path(60), shell.path(0)] == ["/before", "/before", "/after"]


# ---- the search -----------------------------------------------------------------------------


def test_a_shell_is_not_asked_before_it_is_needed() -> None:
    def never() -> str:
        raise AssertionError

    assert next(search_paths("/bin:/my/own", LoginShell(never))) == "/bin:/my/own"


def test_from_the_dock_of_macos_a_shell_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    shell = LoginShell(lambda: "/opt/homebrew/bin:/usr/bin")

    paths = search_paths("/usr/bin:/bin:/usr/sbin:/sbin", shell)

    assert next(paths) == "/opt/homebrew/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def test_the_newest_of_several_versions_comes_first(home: Path) -> None:
    for version in ("v9.11.2", "v22.1.0", "v18.20.4"):
        (home / ".nvm/versions/node" / version / "bin").mkdir(parents=True)

    *_, last = search_paths("/bin", silent())

    nvm = [folder for folder in last.split(":") if ".nvm" in folder]
    assert [Path(folder).parent.name for folder in nvm] == ["v22.1.0", "v18.20.4", "v9.11.2"]


def test_a_path_has_each_folder_once() -> None:
    assert joined("/b:/a:", "/a:/c", "/b") == "/b:/a:/c"


# ---- a server's command ---------------------------------------------------------------------


@pytest.fixture
def login(home: Path) -> Path:
    """A folder that only the login shell knows."""
    (home / "known at login").mkdir()
    return home / "known at login"


def found(login: Path, **entry: Any) -> Launch:
    return resolve("s", McpServerConfig(**entry), LoginShell(lambda: str(login)))


def test_a_server_gets_the_path_on_which_its_command_was_found(login: Path) -> None:
    executable = script(login / "my-npx")

    launch = found(login, command="my-npx")

    assert launch.executable == executable
    assert launch.env["PATH"] == joined(str(login), os.environ["PATH"])


def test_what_is_on_our_own_path_is_started_as_before(login: Path) -> None:
    script(login / "sh")

    launch = found(login, command="sh")

    assert launch.executable == shutil.which("sh")
    assert launch.env["PATH"] == os.environ["PATH"]


def test_a_well_known_folder_is_the_last_resort(login: Path, home: Path) -> None:
    executable = script(home / ".local/bin/my-uvx")

    launch = found(login, command="my-uvx")

    assert launch.executable == executable
    assert str(home / ".local/bin") in launch.env["PATH"].split(":")


def test_an_entry_with_a_path_of_its_own_is_taken_at_its_word(login: Path) -> None:
    script(login / "my-npx")

    with pytest.raises(McpStartFailed, match=r"Searched PATH: /nowhere$"):
        found(login, command="my-npx", env={"PATH": "/nowhere"})


def test_what_is_started_by_its_full_path_finds_what_is_beside_it(login: Path, home: Path) -> None:
    executable = script(home / "node/bin/npx")

    launch = found(login, command=executable)

    assert launch.env["PATH"].split(":")[-1] == str(home / "node/bin")


def test_a_missing_command_is_told_with_what_brings_it_and_all_that_was_searched(
    login: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".cargo/bin").mkdir(parents=True)
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(McpStartFailed) as caught:
        found(login, command="uvx")

    told = str(caught.value)
    assert "command uvx was not found. Install uv (https://docs.astral.sh/uv), or give" in told
    assert f"Searched PATH: {login}:/nowhere:" in told
    assert f":{home}/.cargo/bin" in told

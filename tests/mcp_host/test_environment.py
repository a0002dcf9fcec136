"""What a server is given of our own surroundings, and how its command is found."""

import json
import os
import sys
from pathlib import Path

import pytest

from sidecar.config import McpServerConfig
from sidecar.errors import McpStartFailed
from sidecar.mcp_host.environment import resolve
from sidecar.mcp_host.variables import child_environment
from tests.support.hosts import plain, running

POSIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="the names of POSIX")


def test_our_own_secrets_and_settings_stay_with_us() -> None:
    ours = {
        "PATH": "/bin",
        "OPENAI_API_KEY": "secret",
        "SIDECAR_TOKEN": "secret",
        "_PYI_APPLICATION_HOME_DIR": "/tmp/_MEI1",
        "LD_LIBRARY_PATH": "/tmp/_MEI1",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }

    assert child_environment({}, ours) == {"PATH": "/bin"}


@POSIX_ONLY
def test_what_tools_need_of_the_session_is_passed_on() -> None:
    names = (
        *("HOME", "TERM", "LANG", "LC_ALL", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK"),
        *("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"),
        *("HTTPS_PROXY", "https_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"),
    )
    ours = {name: name for name in names}

    assert child_environment({}, ours) == ours


def test_the_entrys_own_variables_win() -> None:
    own = {"PATH": "/opt/bin", "OPENAI_API_KEY": "given on purpose"}

    assert child_environment(own, {"PATH": "/bin", "OPENAI_API_KEY": "ours"}) == own


def test_on_windows_a_name_in_another_case_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    assert child_environment({"Path": "C:\\mine"}, {"PATH": "C:\\"}) == {"PATH": "C:\\mine"}


def test_exported_shell_functions_are_left_out() -> None:
    assert child_environment({}, {"TERM": "() { :; }"}) == {}


def test_a_bundle_gives_its_children_the_library_path_from_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = {"LD_LIBRARY_PATH": "/tmp/_MEI1", "LD_LIBRARY_PATH_ORIG": "/usr/local/lib"}
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    assert child_environment({}, ours) == {"LD_LIBRARY_PATH": "/usr/local/lib"}


async def test_a_running_server_sees_that_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")

    async with running(s=plain(env={"MINE": "1"})) as host:
        await host.state("ready")
        seen = json.loads((await host.call("environment")).text)

    assert "OPENAI_API_KEY" not in seen
    assert (seen["HTTPS_PROXY"], seen["MINE"]) == ("http://proxy:1", "1")


# ---- the command ----------------------------------------------------------------------------


@POSIX_ONLY
def test_a_command_is_looked_for_on_the_childs_own_path(tmp_path: Path) -> None:
    script = _script(tmp_path / "bin" / "my-server")

    launch = resolve("s", McpServerConfig(command="my-server", env={"PATH": str(script.parent)}))

    assert launch.executable == str(script)


@POSIX_ONLY
def test_a_relative_command_is_relative_to_the_working_folder(tmp_path: Path) -> None:
    script = _script(tmp_path / "bin" / "my-server")

    launch = resolve("s", McpServerConfig(command="bin/my-server", cwd=str(tmp_path)))

    assert (launch.executable, launch.cwd) == (str(script), str(tmp_path))


@POSIX_ONLY
def test_a_leading_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(tmp_path / "my-server")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = McpServerConfig(command="~/my-server", cwd="~/", args=("~/notes", "a~/b", "~other/x"))

    launch = resolve("s", config)

    assert launch.executable == str(script)
    assert Path(launch.cwd or "") == tmp_path
    assert launch.args == (str(tmp_path / "notes"), "a~/b", "~other/x")


def test_a_missing_folder_is_told_before_a_missing_command() -> None:
    with pytest.raises(McpStartFailed, match="working folder"):
        resolve("s", McpServerConfig(command="no-such-command", cwd="/no/such/folder"))


def test_a_missing_file_is_told_by_its_path() -> None:
    path = os.path.join(os.sep, "no", "such", "server")

    with pytest.raises(McpStartFailed, match="there is no file"):
        resolve("s", McpServerConfig(command=path))


def _script(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path

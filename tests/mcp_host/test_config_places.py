"""Where other programs' files are looked for."""

import pytest

from sidecar.mcp_host.config_places import PROGRAMS, well_known

LINUX = {"HOME": "/home/me"}
MAC = {"HOME": "/Users/me"}
WINDOWS = {
    "USERPROFILE": "C:/Users/me",
    "APPDATA": "C:/Users/me/AppData/Roaming",
    "LOCALAPPDATA": "C:/Users/me/AppData/Local",
}


@pytest.mark.parametrize(
    ("program", "platform", "environ", "first"),
    [
        ("claude-desktop", "linux", LINUX, "/home/me/.config/Claude/claude_desktop_config.json"),
        (
            "claude-desktop",
            "darwin",
            MAC,
            "/Users/me/Library/Application Support/Claude/claude_desktop_config.json",
        ),
        ("vscode", "linux", LINUX, "/home/me/.config/Code/User/mcp.json"),
        ("vscode", "linux", {**LINUX, "XDG_CONFIG_HOME": "/x"}, "/x/Code/User/mcp.json"),
        ("vscode", "darwin", MAC, "/Users/me/Library/Application Support/Code/User/mcp.json"),
        ("vscode", "win32", WINDOWS, "C:/Users/me/AppData/Roaming/Code/User/mcp.json"),
        ("cursor", "darwin", MAC, "/Users/me/.cursor/mcp.json"),
        ("cursor", "win32", WINDOWS, "C:/Users/me/.cursor/mcp.json"),
        ("lmstudio", "linux", LINUX, "/home/me/.lmstudio/mcp.json"),
        ("goose", "darwin", MAC, "/Users/me/.config/goose/config.yaml"),
        (
            "goose",
            "win32",
            WINDOWS,
            "C:/Users/me/AppData/Roaming/Block/goose/config/config.yaml",
        ),
        ("librechat", "linux", LINUX, "/home/me/LibreChat/librechat.yaml"),
    ],
)
def test_each_program_has_its_place(
    program: str, platform: str, environ: dict[str, str], first: str
) -> None:
    assert well_known(program, platform, environ)[0].as_posix() == first


def test_an_installed_package_on_windows_is_looked_at_before_the_usual_folder() -> None:
    package, usual = well_known("claude-desktop", "win32", WINDOWS)

    assert package.as_posix() == (
        "C:/Users/me/AppData/Local/Packages/Claude_pzs8sxrjxfjjc/LocalCache/Roaming"
        "/Claude/claude_desktop_config.json"
    )
    assert usual.as_posix() == "C:/Users/me/AppData/Roaming/Claude/claude_desktop_config.json"


def test_every_program_of_the_list_is_known_and_no_other() -> None:
    assert all(well_known(program, "linux", LINUX) for program in PROGRAMS)
    assert well_known("notepad", "linux", LINUX) == ()

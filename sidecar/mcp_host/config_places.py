"""Where other programs keep their lists of MCP servers. Does not look whether a file is there."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("claude-desktop", "vscode", "cursor", "lmstudio", "goose", "librechat")

_STORE_PACKAGE = "Packages/Claude_pzs8sxrjxfjjc/LocalCache/Roaming"  # of Claude, from its installer
_CODES = ("Code", "Code - Insiders", "VSCodium")


def well_known(
    program: str, platform: str = sys.platform, environ: Mapping[str, str] = os.environ
) -> tuple[Path, ...]:
    """The files to look for, likeliest first; none for a name that is not in PROGRAMS.

    LibreChat reads the file beside its own program; a clone in the home folder is what we know.
    """
    home = Path(environ.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    settings = _settings(platform, environ, home)
    match program:
        case "claude-desktop":
            file = "Claude/claude_desktop_config.json"
            package = _store_package(environ) if platform == "win32" else ()
            return tuple(folder / file for folder in (*package, settings))
        case "vscode":
            return tuple(settings / code / "User/mcp.json" for code in _CODES)
        case "cursor":
            return (home / ".cursor/mcp.json",)
        case "lmstudio":
            return (home / ".lmstudio/mcp.json", home / ".cache/lm-studio/mcp.json")
        case "goose" if platform == "win32":
            return (settings / "Block/goose/config/config.yaml",)
        case "goose":
            return (_xdg(environ, home) / "goose/config.yaml",)
        case "librechat":
            return (home / "LibreChat/librechat.yaml", home / "librechat/librechat.yaml")
    return ()


def _settings(platform: str, environ: Mapping[str, str], home: Path) -> Path:
    """Where desktop programs have theirs."""
    match platform:
        case "win32":
            return Path(environ.get("APPDATA") or home / "AppData/Roaming")
        case "darwin":
            return home / "Library/Application Support"
    return _xdg(environ, home)


def _xdg(environ: Mapping[str, str], home: Path) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def _store_package(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Windows shows an installed package a folder of its own in place of APPDATA."""
    local = environ.get("LOCALAPPDATA")
    return (Path(local, _STORE_PACKAGE),) if local else ()

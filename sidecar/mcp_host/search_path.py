"""Where the commands of servers are looked for: our PATH, the login shell's, well-known folders.

Each is a longer search than the one before, and is only made when a command was not found yet: to
ask a shell takes a second. A program that macOS started from its dock has a PATH of four folders,
with an old Python in one of them; there the shell is asked first.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sidecar.mcp_host.login_shell import STALE_S, LoginShell

_BARE = frozenset(("/usr/bin", "/bin", "/usr/sbin", "/sbin"))  # launchd's
# fmt: off
_POSIX = (
    "~/.local/bin", "~/bin", "/opt/homebrew/bin", "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin", "/opt/local/bin", "/snap/bin",
    "~/.nvm/versions/node/*/bin", "~/.local/share/fnm/node-versions/*/installation/bin",
    "~/Library/Application Support/fnm/node-versions/*/installation/bin",
    "~/.volta/bin", "~/.asdf/shims", "~/.local/share/mise/shims", "~/.npm-global/bin",
    "~/.local/share/pnpm", "~/Library/pnpm", "~/.bun/bin", "~/.deno/bin",
    "~/.cargo/bin", "~/.pyenv/shims", "~/go/bin", "~/.docker/bin", "~/.rd/bin",
    "/Applications/Docker.app/Contents/Resources/bin",
    "~/.nix-profile/bin", "/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin",
)
_WINDOWS = (
    "%USERPROFILE%\\.local\\bin", "%APPDATA%\\npm", "%PROGRAMFILES%\\nodejs",
    "%APPDATA%\\nvm\\v*", "%LOCALAPPDATA%\\Volta\\bin", "%LOCALAPPDATA%\\pnpm",
    "%USERPROFILE%\\.bun\\bin", "%USERPROFILE%\\.deno\\bin", "%USERPROFILE%\\.cargo\\bin",
    "%USERPROFILE%\\scoop\\shims", "%LOCALAPPDATA%\\mise\\shims",
    "%USERPROFILE%\\.pyenv\\pyenv-win\\shims", "%LOCALAPPDATA%\\Microsoft\\WinGet\\Links",
    "%LOCALAPPDATA%\\Programs\\Python\\Python3*", "%PROGRAMFILES%\\Docker\\Docker\\resources\\bin",
)
# fmt: on
_WELL_KNOWN = _WINDOWS if sys.platform == "win32" else _POSIX


def search_paths(ours: str, shell: LoginShell) -> Iterator[str]:
    """One PATH after the other, each only made when it is asked for; blocks while a shell is."""
    if not _is_bare(ours):
        yield ours
    yield joined(shell.path() or "", ours)
    login = shell.path(STALE_S) or ""
    yield joined(login, ours)
    yield joined(login, ours, *_there(_WELL_KNOWN))


def joined(*paths: str) -> str:
    """One PATH with each of their folders once, where it came first."""
    folders = (folder for path in paths for folder in path.split(os.pathsep) if folder)
    return os.pathsep.join(dict.fromkeys(folders))


def _is_bare(path: str) -> bool:
    return sys.platform == "darwin" and _BARE.issuperset(path.split(os.pathsep))


def _there(patterns: tuple[str, ...]) -> Iterator[str]:
    """Those of the folders that exist; of several versions the newest comes first."""
    for pattern in patterns:
        path = Path(os.path.expandvars(os.path.expanduser(pattern)))
        before, star, after = str(path).partition("*")
        if not star:
            found = [path]
        else:
            folder, beginning = os.path.split(before)
            found = sorted(Path(folder).glob(f"{beginning}*{after}"), key=_version, reverse=True)
        yield from (str(one) for one in found if one.is_dir())


def _version(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(folder))]

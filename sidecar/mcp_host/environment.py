"""How a server is started: its executable, its working folder and its environment.

A child gets a short list of our own variables and its entry's `env`, nothing else: keys and
tokens of this program never reach a server that was not given them. Starts nothing.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.config import McpServerConfig
from sidecar.environment import LIBRARIES, before_bundle
from sidecar.errors import McpStartFailed

# What the MCP SDK lets through, and what its short list is known to break without.
# fmt: off
_POSIX = (
    "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR",
    "COLORTERM", "NO_COLOR", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
)
_WINDOWS = (
    "APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT",
    "PROCESSOR_ARCHITECTURE", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME",
    "USERPROFILE", "COMSPEC", "WINDIR", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)",
    "PROGRAMW6432", "COMMONPROGRAMFILES", "ALLUSERSPROFILE", "PUBLIC",
)
_NETWORK = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)
# fmt: on
_INHERITED = frozenset((_WINDOWS if sys.platform == "win32" else _POSIX) + _NETWORK)
_INHERITED_PREFIXES = ("LC_", "XDG_")


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that is ready to be started; `executable` exists and may be run."""

    executable: str
    args: tuple[str, ...]
    cwd: str | None
    env: Mapping[str, str] = field(repr=False)


def child_environment(
    own: Mapping[str, str], inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`own` is the entry's `env` and wins over what is inherited from this process."""
    ours = before_bundle(os.environ if inherited is None else inherited)
    env = {name: value for name, value in ours.items() if is_inherited(name, value)}
    if getattr(sys, "frozen", False) and LIBRARIES in ours:
        env[LIBRARIES] = ours[LIBRARIES]
    if sys.platform == "win32":  # names differ in case only there, and os.environ has them in upper
        own = {name.upper(): value for name, value in own.items()}
    return {**env, **own}


def resolve(server: str, config: McpServerConfig) -> Launch:
    """Touches the disk. Raises McpStartFailed with what is missing and where it was looked for."""
    env = child_environment(config.env)
    cwd = config.cwd
    if cwd is not None and not os.path.isdir(cwd):
        raise McpStartFailed(
            f"The MCP server {server} cannot start: its working folder {cwd} does not exist. "
            "Create it or correct `cwd`.",
            server=server,
        )
    command = config.command or ""
    if os.path.dirname(command):
        executable = _at_path(server, os.path.join(cwd or "", command))
    else:
        executable = _on_path(server, command, env.get("PATH", os.defpath))
    return Launch(executable, config.args, cwd, env)


def is_inherited(name: str, value: str) -> bool:
    """Whether a variable of ours goes to a child."""
    if value.startswith("()"):
        return False  # a function exported by an old bash
    # proxy variables are written in both cases
    return name.upper() in _INHERITED or name.startswith(_INHERITED_PREFIXES)


def _at_path(server: str, path: str) -> str:
    if not os.path.isfile(path):
        raise McpStartFailed(
            f"The MCP server {server} cannot start: there is no file {path}. "
            "Install it or correct `command`.",
            server=server,
        )
    if shutil.which(path) is None:
        raise McpStartFailed(
            f"The MCP server {server} cannot start: {path} is not executable. "
            f"Allow it with `chmod +x {path}`.",
            server=server,
        )
    return os.path.abspath(path)


def _on_path(server: str, command: str, search_path: str) -> str:
    executable = shutil.which(command, path=search_path)
    if executable is None:
        raise McpStartFailed(
            f"The MCP server {server} cannot start: the command {command} was not found. "
            "Install it, or give its full path as `command`, or add its folder to PATH in `env`. "
            f"Searched PATH: {search_path}",
            server=server,
        )
    return os.path.abspath(executable)

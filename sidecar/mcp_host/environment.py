"""How a server is started: its executable, its working folder and its environment.

A command is looked for as `search_path.py` says, unless its entry has a PATH of its own, and its
server gets the PATH on which it was found: what `npx` runs asks for `node` there. Starts no server;
a login shell may be asked.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from sidecar.config import McpServerConfig
from sidecar.errors import McpStartFailed
from sidecar.mcp_host.login_shell import LOGIN, LoginShell
from sidecar.mcp_host.search_path import joined, search_paths
from sidecar.mcp_host.variables import child_environment

# What brings a command that is missing most often.
_BROUGHT_BY = {
    **dict.fromkeys(("npx", "node", "npm"), "Install Node.js (https://nodejs.org)"),
    **dict.fromkeys(("uvx", "uv"), "Install uv (https://docs.astral.sh/uv)"),
    "pipx": "Install pipx (https://pipx.pypa.io)",
    "bunx": "Install Bun (https://bun.sh)",
    "bun": "Install Bun (https://bun.sh)",
    "deno": "Install Deno (https://deno.com)",
    "docker": "Install Docker, and start it",
    "podman": "Install Podman",
    "python": "Install Python, or write `python3`",
    "python3": "Install Python",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that is ready to be started; `executable` exists and may be run."""

    executable: str
    args: tuple[str, ...]
    cwd: str | None
    env: Mapping[str, str] = field(repr=False)


def resolve(server: str, config: McpServerConfig, shell: LoginShell = LOGIN) -> Launch:
    """Blocks. Raises McpStartFailed with what is missing and where it was looked for."""
    env = child_environment(config.env)
    cwd = config.cwd
    if cwd is not None and not os.path.isdir(cwd):
        raise McpStartFailed(
            f"The MCP server {server} cannot start: its working folder {cwd} does not exist. "
            "Create it or correct `cwd`.",
            server=server,
        )
    command = config.command or ""
    ours = env.get("PATH", os.defpath)
    if os.path.dirname(command):
        executable = _at_path(server, os.path.join(cwd or "", command))
        path = joined(ours, os.path.dirname(executable))  # `node` is where `npx` is
    else:
        is_given = any(name.upper() == "PATH" for name in config.env)
        paths = (ours,) if is_given else search_paths(ours, shell)
        executable, path = _on_path(server, command, paths)
    return Launch(executable, config.args, cwd, {**env, "PATH": path})


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


def _on_path(server: str, command: str, paths: Iterable[str]) -> tuple[str, str]:
    """The executable, and the first of the paths that has it."""
    path = ""
    for path in paths:
        if (executable := shutil.which(command, path=path)) is not None:
            return os.path.abspath(executable), path
    advice = _BROUGHT_BY.get(PurePath(command).stem.lower(), "Install it")
    raise McpStartFailed(
        f"The MCP server {server} cannot start: the command {command} was not found. {advice}, "
        "or give its full path as `command`, or add its folder to PATH in `env`. "
        f"Searched PATH: {path}",
        server=server,
    )

"""A small MCP server of our own, so that tools and consent can be tried without installing any.

Runs as a child like every other server. Its tools read no file's content and reach no network;
the one that writes, writes into a new temporary folder.
"""

import functools
import sys
import tempfile
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sidecar.config import McpServerConfig

NAMES = 200  # of a folder's entries


def demo_entry() -> McpServerConfig:
    """The entry of `mcp.servers` that starts this server through our own executable."""
    is_bundle = getattr(sys, "frozen", False)
    args = ("demo-server",) if is_bundle else ("-m", "sidecar", "demo-server")
    return McpServerConfig(command=sys.executable, args=args, trusted=True)


def main() -> None:
    """Serve over stdin and stdout until stdin ends."""
    from mcp.server import MCPServer
    from mcp_types import ToolAnnotations

    server = MCPServer("sidecar-demo", log_level="WARNING")
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    writes = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    # descriptions are arguments, not docstrings: an optimised bundle has no docstrings
    for function, description, hints in (
        (current_time, "The date and time now, in an IANA time zone: Europe/Paris, UTC.", reads),
        (list_files, "The names in a folder below the home or the current folder.", reads),
        (add, "The sum of two numbers.", reads),
        (write_note, "Append a line to a notes file in a temporary folder.", writes),
    ):
        server.add_tool(
            function, description=description, annotations=hints, structured_output=False
        )
    server.run("stdio")


def current_time(timezone: str = "UTC") -> str:
    return datetime.now(_zone(timezone)).isoformat(timespec="seconds")


def list_files(path: str = ".") -> str:
    """Names only, one a line; folders end with a slash."""
    folder = Path(path).expanduser().resolve()
    roots = (Path.home().resolve(), Path.cwd().resolve())
    if not any(folder.is_relative_to(root) for root in roots):
        raise _failure(f"{path} is outside of {roots[0]} and {roots[1]}.")
    if not folder.is_dir():
        raise _failure(f"{path} is not a folder.")
    try:
        names = sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir()
        )
    except OSError as error:
        raise _failure(f"{path} cannot be read: {error.strerror}.") from error
    if len(names) > NAMES:
        names[NAMES:] = [f"… and {len(names) - NAMES} more"]
    return "\n".join(names)


def add(a: float, b: float) -> str:
    return f"{a + b:.15g}"


def write_note(text: str) -> str:
    """Where the note was written."""
    file = _notes_folder() / "notes.txt"
    with file.open("a", encoding="utf-8") as notes:
        notes.write(f"{text}\n")
    return str(file)


@functools.cache
def _notes_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="sidecar-notes-"))


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # also where there is no time zone database
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise _failure(f"There is no time zone {name} here; UTC always works.") from error


def _failure(message: str) -> Exception:
    """The SDK shows the text of this error to the model, and of no other."""
    from mcp.server.mcpserver.exceptions import ToolError

    return ToolError(message)

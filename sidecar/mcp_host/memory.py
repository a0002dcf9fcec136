"""What is known of a server from one run to the next: how it is spoken to, and its tools.

So an old server is not asked at every start what it does not know, and its tools can be offered
before it runs. A file a server, good only for the fingerprint that it was written under; one that
is damaged counts as none. There is nothing secret in it: no environment, no header, no address.
"""

import os
import tempfile
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from sidecar.mcp_host.catalogue import ListedTool, digest
from sidecar.protocol.mcp import Transport
from sidecar.threads import run_in_thread

SUFFIX = ".json"
FILE_BYTES = 16 * 1024 * 1024  # nobody has written more than this of one server's tools

Mode = Literal["auto", "legacy"]
"""As the SDK has it: `auto` asks a server for its era first, `legacy` knows that it is old."""

log = structlog.get_logger()


class Known(BaseModel):
    """`version` is the server's own name and version; `tools` are all that it listed."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    fingerprint: str
    transport: Transport
    mode: Mode
    version: str | None
    tools: tuple[ListedTool, ...]


class Memory:
    def __init__(self, folder: Path | None) -> None:
        """`folder` may be missing, the one above it is there; None remembers nothing."""
        self.is_kept = folder is not None
        self._folder = folder
        # held by threads, not tasks: a write goes on when nobody waits for it any more
        self._writing = threading.Lock()

    async def load(self, server: str, fingerprint: str) -> Known | None:
        """None for a server that is not the one remembered."""
        if self._folder is None:
            return None
        file = self._file(self._folder, server)
        known = await run_in_thread(lambda: _read(file), "recall MCP server")
        return known if known is not None and known.fingerprint == fingerprint else None

    async def save(self, server: str, known: Known) -> None:
        """On the disk when it returns. A disk that takes nothing costs the memory, no more."""
        if self._folder is None:
            return
        file = self._file(self._folder, server)

        def write() -> None:
            with self._writing:
                _write(file, known.model_dump_json().encode())

        try:
            await run_in_thread(write, "remember MCP server")
        except OSError as error:
            log.warning("mcp_server_not_remembered", server=server, reason=error.strerror)

    async def keep_only(self, servers: Collection[str]) -> None:
        """Forget all others."""
        folder = self._folder
        if folder is None:
            return
        kept = {self._file(folder, server) for server in servers}

        def remove() -> None:
            with self._writing, suppress(OSError):
                for file in folder.glob(f"*{SUFFIX}"):
                    if file not in kept:
                        file.unlink()

        await run_in_thread(remove, "forget MCP servers")

    def _file(self, folder: Path, server: str) -> Path:
        """A server's name is a file's name, too: the settings see to that."""
        return folder / f"{server}{SUFFIX}"


def _read(file: Path) -> Known | None:
    try:
        if file.stat().st_size > FILE_BYTES:
            return None
        known = Known.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("mcp_memory_unreadable", file=file.name, reason=type(error).__name__)
        return None
    return known if all(map(_is_genuine, known.tools)) else None


def _is_genuine(tool: ListedTool) -> bool:
    """What was allowed is known by its digest, so that is not taken on trust."""
    return tool.digest == digest(
        tool.name,
        tool.title,
        tool.description,
        tool.input_schema,
        tool.output_schema,
        tool.hints,
    )


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
        os.replace(name, file)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise

"""The settings as they are now: read again when their file changes, and changed through it.

A file that became invalid changes nothing: the settings before it hold, and `problem` says why.
"""

import asyncio
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from sidecar.config import Loaded
from sidecar.errors import ConfigInvalid, Conflict, StorageError
from sidecar.settings.edit import Change, edited
from sidecar.threads import run_in_thread

POLL_S = 1.0

log = structlog.get_logger()

Listener = Callable[[Loaded, Loaded], None]
"""Told what was and what is; called from the event loop, never waits."""


class LiveSettings:
    def __init__(self, loaded: Loaded) -> None:
        self.now = loaded
        self.problem: ConfigInvalid | None = None
        self._listeners: list[Listener] = []
        self._seen: tuple[int, int, int] | None = None
        self._changing = asyncio.Lock()  # a change is read, made and written before the next one

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def watch(self) -> None:
        """Look at the file until cancelled."""
        self._seen = await self._stamp()
        while True:
            await asyncio.sleep(POLL_S)
            async with self._changing:
                stamp = await self._stamp()
                if stamp != self._seen:
                    self._seen = stamp
                    await self._read()

    async def change(self, change: Change, if_revision: str | None = None) -> Loaded:
        """Write a change into the person's file, and make it hold.

        Raises Conflict when the settings are not `if_revision` any more, ConfigInvalid for what
        would not be valid, StorageError when the file cannot be written. Then nothing changed.
        """
        async with self._changing:
            if if_revision not in (None, self.now.revision):
                raise Conflict("The settings were changed in the meantime; read them again.")
            file = self.now.file
            try:
                text = await run_in_thread(lambda: _text_of(file), "read settings")
                after = edited(text, change)
                loaded = await run_in_thread(lambda: self.now.reload(after), "check settings")
                await run_in_thread(lambda: _write(file, after), "write settings")
            except OSError as error:
                raise StorageError(
                    f"The settings file {file} cannot be written: {error.strerror}. "
                    "Give your user account write access to it."
                ) from error
            self._seen = await self._stamp()
            self._take(loaded)
            return loaded

    async def _read(self) -> None:
        try:
            loaded = await run_in_thread(lambda: self.now.reload(None), "read settings")
        except ConfigInvalid as error:
            self.problem = error
            log.warning("settings_not_reloaded", reason=str(error))
            return
        log.info("settings_reloaded")
        self._take(loaded)

    def _take(self, loaded: Loaded) -> None:
        self.problem = None
        before, self.now = self.now, loaded
        if before.revision != loaded.revision:
            for listener in self._listeners:
                listener(before, loaded)

    async def _stamp(self) -> tuple[int, int, int] | None:
        file = self.now.file

        def look() -> tuple[int, int, int] | None:
            with suppress(OSError):
                found = os.stat(file)
                return found.st_mtime_ns, found.st_size, found.st_ino
            return None

        return await run_in_thread(look, "look at settings")


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return ""


def _write(file: Path, text: str) -> None:
    """Whole or not at all, with the rights that it had; a link stays a link."""
    target = file.resolve()
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise

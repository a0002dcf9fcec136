"""The bytes of images and files, under the hash of what they are.

One file each, named `<sha256>.<media type>` with `=` for the `/`: one rename makes it and says
what it is. Two that are the same are one. What a person calls a file belongs to the message that
shows it; here it is only remembered until the program ends, for a message that does not say.

A file stays until `delete`: which messages still show it is not known here. Where nothing is to be
kept, everything lies in a temporary folder that goes with the program.
"""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import EDQUOT, ENOSPC
from functools import partial
from pathlib import Path
from time import time
from typing import TypeVar

import structlog

from sidecar.errors import AttachmentTooLarge, BadRequest, NotFound, StorageError, StorageFull
from sidecar.messages import Attachment, Kept
from sidecar.protocol.base import ATTACHMENT_BYTES, ATTACHMENTS_BYTES
from sidecar.store.media_types import sniff
from sidecar.threads import run_in_thread

ARRIVING = "arriving-"
PIECE_BYTES = 1024 * 1024  # written at once: a thread for each network read would cost more

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    each: int = ATTACHMENT_BYTES
    together: int = ATTACHMENTS_BYTES


class Attachments:
    """Implements `chat.base.Attachments`. The process that holds the profile's lock has one."""

    def __init__(self, folder: Path | None, limits: Limits = Limits()) -> None:
        """`folder` None keeps them until `close`. Neither is looked at before the first use."""
        self._chosen = folder
        self._limits = limits
        self._folder: Path | None = None
        self._kept: dict[str, Kept] = {}
        self._used = 0  # bytes, those included that are still arriving
        self._opening = threading.Lock()

    async def save(self, attachment: Attachment) -> str:
        """Returns its attachment_id. Raises AttachmentTooLarge and StorageError."""

        async def whole() -> AsyncIterator[bytes]:
            yield attachment.data

        return (await self.receive(whole(), attachment.name, attachment.mime)).attachment_id

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        name: str | None = None,
        mime: str | None = None,
        *,
        max_bytes: int | None = None,
    ) -> Kept:
        """Keep what comes, once all of it has. Raises AttachmentTooLarge and StorageError.

        `mime` is what its maker says; the bytes have the first word. `max_bytes` None is the
        limit of an attachment.
        """
        limit = self._limits.each if max_bytes is None else max_bytes
        folder = await self._open()
        arrival = await self._do(partial(_Arrival, folder, mime))
        counted = 0
        try:
            piece = bytearray()
            async for chunk in chunks:
                self._used += len(chunk)
                counted += len(chunk)
                self._check_room(counted, limit)
                piece += chunk
                if len(piece) >= PIECE_BYTES:
                    await self._do(partial(arrival.write, bytes(piece)))
                    piece.clear()
            if not counted:
                raise BadRequest("The attachment is empty.")
            kept = await self._do(partial(arrival.keep, bytes(piece)))
            known = self._kept.get(kept.attachment_id)
            kept = replace(known or kept, name=name or (known.name if known else None))
            self._kept[kept.attachment_id] = kept
            if known is None:
                counted = 0  # it stays
            return kept
        finally:
            self._used -= counted
            await run_in_thread(arrival.discard, "attachments")

    async def find(self, attachment_id: str) -> Kept:
        """What is kept under this id. Raises NotFound and StorageError."""
        await self._open()
        kept = self._kept.get(attachment_id)
        if kept is None:
            raise NotFound(f"There is no attachment {attachment_id[:64]}; send the file again.")
        return kept

    async def file(self, attachment_id: str) -> Path:
        """Where it lies, to be read and no more. Raises NotFound and StorageError."""
        kept = await self.find(attachment_id)
        assert self._folder is not None  # find has opened it
        return self._folder / _file_name(kept)

    async def load(self, attachment_id: str) -> Attachment:
        """Raises NotFound and StorageError."""
        kept, file = await self.find(attachment_id), await self.file(attachment_id)
        data = await self._do(partial(_read, file))
        if data is None:
            if self._kept.pop(attachment_id, None) is not None:
                self._used -= kept.bytes
            raise NotFound(f"The file of attachment {attachment_id} was deleted; send it again.")
        return Attachment(kept.mime, data, kept.name)

    async def delete(self, attachment_ids: Collection[str]) -> None:
        """What is not there is gone already. Raises StorageError."""
        folder = await self._open()
        gone = [kept for each in attachment_ids if (kept := self._kept.pop(each, None))]
        self._used -= sum(kept.bytes for kept in gone)

        def work() -> None:
            for kept in gone:
                (folder / _file_name(kept)).unlink(missing_ok=True)

        await self._do(work)

    async def delete_unshown(self, shown: Collection[str], older_than_s: float) -> None:
        """What was sent and never became part of a message. Raises StorageError."""
        folder = await self._open()
        latest = time() - older_than_s

        def work() -> list[str]:
            return [
                kept.attachment_id
                for kept in tuple(self._kept.values())
                if kept.attachment_id not in shown and _made_at(folder / _file_name(kept)) < latest
            ]

        await self.delete(await self._do(work))

    def close(self) -> None:
        """Remove what was to be kept for this run only. Quick, and the last use."""
        if self._chosen is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _check_room(self, so_far: int, limit: int) -> None:
        if so_far > limit:
            largest = f"{limit / 2**20:g} MiB"
            raise AttachmentTooLarge(f"An attachment has at most {largest}; send a smaller one.")
        if self._used > self._limits.together:
            most = f"{self._limits.together / 2**30:g} GiB"
            raise StorageFull(
                f"Attachments take up {most} together, which is all they may. Delete files that "
                f"are not needed any more from {self._folder}, then restart the sidecar."
            )

    async def _open(self) -> Path:
        """The folder, looked through at its first use."""
        if self._folder is None:
            await self._do(self._look_through)
        assert self._folder is not None
        return self._folder

    def _look_through(self) -> None:
        with self._opening:
            if self._folder is not None:  # another request was first
                return
            if self._chosen is None:
                self._folder = Path(tempfile.mkdtemp(prefix="sidecar-attachments-"))
                return
            self._chosen.mkdir(mode=0o700, exist_ok=True)
            for entry in os.scandir(self._chosen):
                if entry.name.startswith(ARRIVING):  # of a program that was killed
                    os.unlink(entry)
                elif (kept := _parse(entry)) is not None:
                    self._kept[kept.attachment_id] = kept
                    self._used += kept.bytes
            self._folder = self._chosen

    async def _do(self, work: Callable[[], T]) -> T:
        """Off the loop. Raises StorageError for faults of the disk."""
        try:
            return await run_in_thread(work, "attachments")
        except OSError as error:
            is_full = error.errno in (ENOSPC, EDQUOT)
            raise (StorageFull if is_full else StorageError)(
                f"The attachments in {self._chosen or 'the temporary folder'} cannot be used: "
                f"{error.strerror or error}. Make room there or give your user account access."
            ) from error


class _Arrival:
    """A file on its way in; each method blocks. The lock: a write goes on when nobody waits."""

    def __init__(self, folder: Path, said: str | None) -> None:
        handle, name = tempfile.mkstemp(dir=folder, prefix=ARRIVING)  # with 0600
        self._folder = folder
        self._said = said
        self._file = os.fdopen(handle, "w+b")
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self._writing = threading.Lock()

    def write(self, data: bytes) -> None:
        with self._writing:
            self._file.write(data)
            self._hash.update(data)

    def keep(self, rest: bytes) -> Kept:
        self.write(rest)
        with self._writing:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.seek(0)
            data = self._file.read()
            kept = Kept(self._hash.hexdigest(), sniff(data, self._said), len(data))
            self._file.close()  # Windows moves no open file
            if not any(self._folder.glob(f"{kept.attachment_id}.*")):
                os.replace(self._path, self._folder / _file_name(kept))
        return kept

    def discard(self) -> None:
        with self._writing:
            self._file.close()
            with suppress(OSError):  # moved to its place, or gone with its folder
                self._path.unlink()


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _made_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _file_name(kept: Kept) -> str:
    return f"{kept.attachment_id}.{kept.mime.replace('/', '=')}"


def _parse(entry: os.DirEntry[str]) -> Kept | None:
    """None for what is none of ours."""
    attachment_id, dot, mime = entry.name.partition(".")
    is_id = len(attachment_id) == 64 and set(attachment_id) <= set("0123456789abcdef")
    if not (is_id and dot and mime.count("=") == 1 and entry.is_file(follow_symlinks=False)):
        log.warning("attachment_not_ours", file=entry.name)
        return None
    return Kept(attachment_id, mime.replace("=", "/"), entry.stat().st_size)

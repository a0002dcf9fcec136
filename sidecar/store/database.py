"""One SQLite file: made, brought up to date, and reached only through here.

Writes go one after the other through a thread of their own, each a transaction; reads go through
another and wait for no write. Both connections are opened at the first use, and again after a
failure, so a fault that goes away is over. A file that cannot be used is never replaced.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from sidecar.errors import StorageCorrupt, StorageError, StorageFull, StorageNewer
from sidecar.store.migrations import MIGRATIONS

if TYPE_CHECKING:  # 5 ms, and the first use comes after the ready line
    import sqlite3

BUSY_S = 5.0  # another program, such as a backup, may hold the file for a moment
CACHE_KIB = 16 * 1024

log = structlog.get_logger()
T = TypeVar("T")
Work = Callable[["sqlite3.Connection"], T]


class Database:
    """The process that holds the profile's lock has one."""

    def __init__(
        self,
        file: Path | None,
        *,
        recover: Work[None] | None = None,
        migrations: Sequence[str] = MIGRATIONS,
    ) -> None:
        """`file` None keeps it all in memory, until the end of the program.

        `recover` mends what a killed program left; it is the first transaction.
        """
        self.file = file
        self._migrations = migrations
        self._recover = recover
        self._writer = _Lane("store writer", self._open_writer)
        self._reader = self._writer if file is None else _Lane("store reader", self._open_reader)

    async def write(self, work: Work[T]) -> T:
        """Run `work` as one transaction. Raises StorageError; then nothing of it was done.

        It is carried out also when nobody waits for it any more.
        """
        return await self._do(self._writer, lambda connection: _transaction(connection, work))

    async def read(self, work: Work[T]) -> T:
        """Run `work` on what was last written. Raises StorageError."""
        if not self._writer.is_open:  # it makes the file, and mends it
            await self._do(self._writer, lambda connection: None)
        return await self._do(self._reader, work)

    async def close(self) -> None:
        """After what was begun. Nothing is to come after it."""
        for lane in {self._reader, self._writer}:
            await lane.close()

    async def _do(self, lane: "_Lane", work: Work[T]) -> T:
        import sqlite3

        try:
            return await lane.do(work)
        except (sqlite3.Error, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: "sqlite3.Error | OSError") -> StorageError:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        match _kind(error):
            case "full":
                return StorageFull(
                    f"The disk of {self.file} is full. Make room there: until then conversations "
                    "are kept only while the sidecar runs."
                )
            case "corrupt":
                return StorageCorrupt(
                    f"The conversations in {self.file} are damaged ({reason}). Move that file "
                    "away to begin a new one, or put one of its `.backup` files in its place."
                )
            case _:
                return StorageError(
                    f"The conversations in {self.file} cannot be used: {reason}. Give your user "
                    "account write access to the file and its folder, and end other programs "
                    "that hold it."
                )

    # ---- in the threads ----

    def _open_writer(self) -> "sqlite3.Connection":
        is_new = self.file is None or not self.file.exists()
        if self.file is not None:  # SQLite gives its other files the rights of this one
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))
        connection = _connect(self.file)
        try:
            self._check_version(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(connection, is_new=is_new)
            if self._recover is not None:
                _transaction(connection, self._recover)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_reader(self) -> "sqlite3.Connection":
        connection = _connect(self.file)
        try:
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self, connection: "sqlite3.Connection") -> None:
        if _version(connection) > len(self._migrations):
            raise StorageNewer(
                f"The conversations in {self.file} were written by a newer sidecar. Use that one, "
                "or another profile or `storage.path` with this one; they are left as they are."
            )

    def _migrate(self, connection: "sqlite3.Connection", *, is_new: bool) -> None:
        version = _version(connection)
        for number, script in enumerate(self._migrations[version:], version + 1):
            if not is_new and version:
                self._back_up(connection, number - 1)
            connection.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT;")
            log.info("database_migrated", version=number)

    def _back_up(self, connection: "sqlite3.Connection", version: int) -> None:
        """A copy beside the file, whole or not at all."""
        import sqlite3

        assert self.file is not None  # one in memory is always new
        copy = self.file.with_name(f"{self.file.name}.v{version}.backup")
        partial = copy.with_name(f"{copy.name}.partial")
        os.close(os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(partial)) as target:
            connection.backup(target)
        os.replace(partial, copy)


def _connect(file: Path | None) -> "sqlite3.Connection":
    import sqlite3

    connection = sqlite3.connect(file or ":memory:", timeout=BUSY_S, isolation_level=None)
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        # In WAL mode this survives the program's end at any moment, and a power cut with the loss
        # of the last seconds at most; a sync for each piece of an answer would be felt on slow
        # disks.
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: "sqlite3.Connection") -> int:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _transaction(connection: "sqlite3.Connection", work: Work[T]) -> T:
    import sqlite3

    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have done so itself
            connection.execute("ROLLBACK")
        raise
    return result


def _kind(error: "sqlite3.Error | OSError") -> str:
    import sqlite3

    if isinstance(error, OSError):
        return "full" if error.errno in (ENOSPC, EDQUOT) else "locked"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return "full"
    return "corrupt" if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else "locked"


@dataclass(slots=True)
class _Job:
    work: Work[Any] | None  # None: the last one
    settle: Callable[[Any, BaseException | None], None]


class _Lane:
    """A thread with a connection. Like every thread of ours, it holds up no exit."""

    def __init__(self, name: str, connect: Callable[[], "sqlite3.Connection"]) -> None:
        self.is_open = False
        self._name = name
        self._connect = connect
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def do(self, work: Work[T]) -> T:
        future, settle = _promise()
        self._jobs.put(_Job(work, settle))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        result: T = await future
        return result

    async def close(self) -> None:
        if self._thread is not None:
            future, settle = _promise()
            self._jobs.put(_Job(None, settle))
            await future

    def _run(self) -> None:
        import sqlite3

        connection: sqlite3.Connection | None = None
        while (job := self._jobs.get()).work is not None:
            result, problem = None, None
            try:
                if connection is None:
                    connection = self._connect()
                    self.is_open = True
                result = job.work(connection)
            except BaseException as error:  # whatever it is, it belongs to the caller
                problem = error
                if connection is not None and isinstance(error, sqlite3.DatabaseError):
                    _drop(connection)
                    connection, self.is_open = None, False
            job.settle(result, problem)
        if connection is not None:
            _drop(connection)
        job.settle(None, None)


def _drop(connection: "sqlite3.Connection") -> None:
    import sqlite3

    with suppress(sqlite3.Error):
        connection.close()


def _promise() -> tuple[asyncio.Future[Any], Callable[[Any, BaseException | None], None]]:
    """A future, and what settles it from another thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def settle_soon(result: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    return future, settle_soon

"""The file: made private, brought up to date with a copy kept, and never replaced."""

import asyncio
import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.errors import StorageCorrupt, StorageError, StorageFull, StorageNewer
from sidecar.store.database import Database

ONE = ("CREATE TABLE words (word TEXT)",)
TWO = (*ONE, "CREATE TABLE numbers (number INTEGER)")


def words(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT word FROM words ORDER BY rowid")]


async def test_what_was_written_is_read_also_after_it_was_closed(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    database = Database(file, migrations=ONE)
    await database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    assert await database.read(words) == ["one"]
    await database.close()

    again = Database(file, migrations=ONE)

    assert await again.read(words) == ["one"]
    await again.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
async def test_its_files_are_this_persons_alone(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", migrations=ONE)
    umask = os.umask(0)
    try:
        await database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    finally:
        os.umask(umask)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    await database.close()
    assert set(modes) == {"a.db", "a.db-wal", "a.db-shm"}
    assert set(modes.values()) == {0o600}


async def test_without_a_file_it_is_kept_in_memory(tmp_path: Path) -> None:
    database = Database(None, migrations=ONE)
    await database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))

    assert await database.read(words) == ["one"]
    await database.close()


async def test_a_write_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", migrations=ONE)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words VALUES ('half')")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(half)

    assert await database.read(words) == []
    await database.close()


async def test_writes_are_made_in_their_order_also_when_nobody_waits(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", migrations=ONE)
    abandoned = asyncio.create_task(
        database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    )
    await asyncio.sleep(0)  # so that it has begun
    abandoned.cancel()

    await database.write(lambda c: c.execute("INSERT INTO words VALUES ('two')"))

    assert await database.read(words) == ["one", "two"]
    await database.close()


async def test_a_read_waits_for_no_write(tmp_path: Path) -> None:
    import threading

    database = Database(tmp_path / "a.db", migrations=ONE)
    await database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    go_on = threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words VALUES ('two')")
        assert go_on.wait(10)

    writing = asyncio.create_task(database.write(slow))
    try:
        async with asyncio.timeout(5):
            assert await database.read(words) == ["one"]
    finally:
        go_on.set()
    await writing
    assert await database.read(words) == ["one", "two"]
    await database.close()


async def test_an_older_file_is_brought_up_to_date_and_a_copy_of_it_is_kept(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.db"
    old = Database(file, migrations=ONE)
    await old.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    await old.close()

    new = Database(file, migrations=TWO)
    await new.write(lambda c: c.execute("INSERT INTO numbers VALUES (1)"))
    await new.close()

    assert {each.name for each in tmp_path.glob("*.backup*")} == {"a.db.v1.backup"}
    backup = Database(tmp_path / "a.db.v1.backup", migrations=ONE)
    assert await backup.read(words) == ["one"]
    await backup.close()


async def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    old = Database(file, migrations=ONE)
    await old.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    await old.close()
    broken = (*ONE, "DELETE FROM words; CREATE TABLE words (again TEXT)")

    new = Database(file, migrations=broken)
    with pytest.raises(StorageError):
        await new.read(words)
    await new.close()

    again = Database(file, migrations=ONE)
    assert await again.read(words) == ["one"]
    await again.close()


async def test_a_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    new = Database(file, migrations=TWO)
    await new.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    await new.close()
    before = file.read_bytes()

    old = Database(file, migrations=ONE)
    with pytest.raises(StorageNewer, match="newer sidecar"):
        await old.read(words)
    await old.close()

    assert file.read_bytes() == before


async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    file.write_bytes(b"my diary, which is no database at all. " * 100)
    before = file.read_bytes()

    database = Database(file, migrations=ONE)
    with pytest.raises(StorageCorrupt, match=r"damaged .*Move that file"):
        await database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    await database.close()

    assert file.read_bytes() == before


async def test_a_damaged_page_is_said_to_be_damage(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    database = Database(file, migrations=ONE)

    def many(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO words VALUES (?)", [["x" * 500]] * 1000)

    await database.write(many)
    await database.close()
    data = bytearray(file.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    file.write_bytes(data)

    damaged = Database(file, migrations=ONE)
    with pytest.raises(StorageCorrupt):
        await damaged.read(words)
    await damaged.close()


async def test_a_full_disk_is_said_to_be_full_and_over_when_there_is_room(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", migrations=ONE)

    def limit(connection: sqlite3.Connection) -> None:
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def much(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words VALUES (?)", ["x" * 100_000])

    await database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
    await database.write(limit)
    with pytest.raises(StorageFull, match="Make room"):
        await database.write(much)

    await database.write(much)  # a connection of its own, without the limit
    assert len(await database.read(words)) == 2
    await database.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    database = Database(tmp_path / "a.db", migrations=ONE)
    try:
        with pytest.raises(StorageError, match="write access"):
            await database.read(words)
    finally:
        tmp_path.chmod(0o700)
    await database.close()


async def test_a_folder_that_is_not_there_is_named_until_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "unplugged"
    database = Database(folder / "a.db", migrations=ONE)
    with pytest.raises(StorageError, match="unplugged"):
        await database.read(words)

    folder.mkdir()

    assert await database.read(words) == []
    await database.close()


async def test_a_file_that_another_program_holds_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    database = Database(file, migrations=ONE)
    await database.read(words)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(
            database.write(lambda c: c.execute("INSERT INTO words VALUES ('one')"))
        )
        await database.read(words)
        other.execute("COMMIT")

    await writing
    assert await database.read(words) == ["one"]
    await database.close()

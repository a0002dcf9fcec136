"""Attachments on the disk: what they are, how much there may be, what a restart and a fault do."""

import asyncio
import hashlib
import os
import stat
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from errno import ENOSPC
from pathlib import Path

import pytest

from sidecar.errors import AttachmentTooLarge, BadRequest, NotFound, StorageError, StorageFull
from sidecar.messages import Attachment
from sidecar.store.attachments import ARRIVING, Attachments, Limits
from sidecar.store.media_types import sniff

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "attachments"


@pytest.fixture
def attachments(folder: Path) -> Attachments:
    return Attachments(folder)


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0 jpeg", "image/jpeg"),
        (b"GIF89a gif", "image/gif"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"%PDF-1.7\n\xff", "application/pdf"),
        (b"\r\n\xff junk before it %PDF-1.4", "application/pdf"),
        ("naïve".encode(), "text/plain"),
        ("naïve".encode("utf-16"), "text/plain"),
        (b"<script>alert(1)</script>", "text/plain"),
        (b"\x00\x01\x02", "application/octet-stream"),
        ("naïve".encode("latin-1"), "application/octet-stream"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt \xff", "application/octet-stream"),
    ],
)
def test_what_a_file_is_is_seen_from_its_bytes(data: bytes, mime: str) -> None:
    assert sniff(data) == mime


@pytest.mark.parametrize("said", ["image/png; x=/../y", "text/html", "../../etc", "", "IMAGE/PNG"])
def test_what_its_maker_says_of_it_is_not_believed_where_it_could_harm(said: str) -> None:
    assert sniff(b"\x00\x01", said) == "application/octet-stream"


async def test_the_makers_word_stands_where_the_bytes_say_nothing(attachments: Attachments) -> None:
    sound = await attachments.save(Attachment("audio/wav", b"RIFF\xff\xff"))
    image = await attachments.save(Attachment("text/html", PNG))

    assert (await attachments.find(sound)).mime == "audio/wav"
    assert (await attachments.find(image)).mime == "image/png"


async def test_an_attachment_is_kept_under_its_hash_once(
    attachments: Attachments, folder: Path
) -> None:
    first = await attachments.receive(pieces(PNG[:5], PNG[5:]), "cat.png")
    again = await attachments.receive(pieces(PNG))

    assert first == again
    assert first.attachment_id == hashlib.sha256(PNG).hexdigest()
    assert [file.name for file in folder.iterdir()] == [f"{first.attachment_id}.image=png"]


async def test_it_survives_a_restart_with_what_it_is(folder: Path) -> None:
    sound = await Attachments(folder).save(Attachment("audio/wav", b"RIFF\xff", "meow.wav"))

    loaded = await Attachments(folder).load(sound)

    assert loaded == Attachment("audio/wav", b"RIFF\xff")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
async def test_only_this_person_can_read_it(attachments: Attachments, folder: Path) -> None:
    await attachments.save(Attachment("image/png", PNG))

    [file] = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_one_that_is_too_large_leaves_nothing_behind(folder: Path) -> None:
    attachments = Attachments(folder, Limits(each=10))

    with pytest.raises(AttachmentTooLarge):
        await attachments.receive(pieces(b"12345", b"678901"))

    assert list(folder.iterdir()) == []
    await attachments.receive(pieces(b"12345", b"67890"))


async def test_all_together_have_a_limit_that_a_restart_remembers(folder: Path) -> None:
    limits = Limits(together=10)
    await Attachments(folder, limits).receive(pieces(b"12345678"))
    attachments = Attachments(folder, limits)

    with pytest.raises(StorageFull, match="attachments"):
        await attachments.receive(pieces(b"abc"))

    await attachments.receive(pieces(b"ab"))


async def test_what_is_there_already_takes_no_more_room(folder: Path) -> None:
    attachments = Attachments(folder, Limits(together=16))
    for _ in range(4):
        await attachments.receive(pieces(b"12345678"))

    await attachments.receive(pieces(b"abcdefgh"))


async def test_one_that_breaks_off_is_not_kept(attachments: Attachments, folder: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield PNG
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await attachments.receive(breaking())

    assert list(folder.iterdir()) == []


async def test_one_that_is_given_up_is_not_kept(attachments: Attachments, folder: Path) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield PNG
        waiting.set()
        await asyncio.Event().wait()

    receiving = asyncio.create_task(attachments.receive(endless()))
    async with asyncio.timeout(5):
        await waiting.wait()
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving

    assert list(folder.iterdir()) == []


async def test_an_empty_one_is_refused(attachments: Attachments, folder: Path) -> None:
    with pytest.raises(BadRequest):
        await attachments.receive(pieces(b""))

    assert list(folder.iterdir()) == []


async def test_what_a_killed_program_left_half_written_is_removed(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{ARRIVING}x1").write_bytes(b"half")
    (folder / "notes of a person.txt").write_bytes(b"mine")

    with pytest.raises(NotFound):
        await Attachments(folder).find("0" * 64)

    assert [file.name for file in folder.iterdir()] == ["notes of a person.txt"]


@pytest.mark.parametrize("attachment_id", ["0" * 64, "", "../rules", "x" * 1000])
async def test_an_id_that_there_is_not_is_not_found(
    attachments: Attachments, attachment_id: str
) -> None:
    with pytest.raises(NotFound):
        await attachments.load(attachment_id)


async def test_a_file_that_was_deleted_can_be_sent_again(
    attachments: Attachments, folder: Path
) -> None:
    attachment_id = await attachments.save(Attachment("image/png", PNG))
    [file] = folder.iterdir()
    file.unlink()

    with pytest.raises(NotFound, match="deleted"):
        await attachments.load(attachment_id)

    await attachments.save(Attachment("image/png", PNG))
    assert (await attachments.load(attachment_id)).data == PNG


async def test_a_folder_that_cannot_be_made_is_told_as_a_fault_of_the_storage(
    folder: Path,
) -> None:
    folder.write_text("in its place")

    with pytest.raises(StorageError, match="attachments"):
        await Attachments(folder).receive(pieces(PNG))


async def test_a_full_disk_is_told_as_such(
    attachments: Attachments, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageFull, match="Make room"):
        await attachments.receive(pieces(PNG))

    assert list(folder.iterdir()) == []


async def test_the_disk_is_never_touched_on_the_loop(
    attachments: Attachments, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()
    monkeypatch.setattr(os, "fsync", lambda _: threads.add(threading.current_thread()))

    await attachments.save(Attachment("image/png", PNG))

    assert threads
    assert threading.main_thread() not in threads


async def test_what_is_not_to_be_kept_goes_with_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    attachments = Attachments(None)
    attachment_id = await attachments.save(Attachment("image/png", PNG))
    loaded = await attachments.load(attachment_id)

    attachments.close()

    assert loaded.data == PNG
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_made_before_there_is_something_to_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    Attachments(None).close()
    Attachments(tmp_path / "attachments").close()

    assert list(tmp_path.iterdir()) == []

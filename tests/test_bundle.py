"""What a killed launcher left is removed when it is provably ours, and dead."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.bundle import OWNER, claim, sweep

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes and links")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a launcher makes it, and what a dead program has written into it."""
    folder = tmp_path / "_MEIabcdef"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "library.so").write_text("library")
    (folder / "library.so").write_text("library")
    folder.chmod(0o700)
    claim(folder)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    change(folder, program=dead.pid, launcher=dead.pid)
    return folder


def change(folder: Path, **fields: Any) -> None:
    file = folder / OWNER
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def owner_of(folder: Path) -> dict[str, Any]:
    owner: dict[str, Any] = json.loads((folder / OWNER).read_text())
    return owner


def test_what_a_dead_program_has_left_is_removed(folder: Path) -> None:
    sweep(folder.parent)

    assert not folder.exists()


@posix
def test_what_a_link_in_it_leads_to_stays(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("kept")
    (folder / "link").symlink_to(elsewhere)

    sweep(folder.parent)

    assert not folder.exists()
    assert (elsewhere / "file").read_text() == "kept"


@pytest.mark.parametrize("process", ["program", "launcher"])
def test_it_stays_while_one_of_the_two_processes_runs(folder: Path, process: str) -> None:
    dead = owner_of(folder)
    (folder / OWNER).unlink()
    claim(folder)
    alive = owner_of(folder)
    other = "launcher" if process == "program" else "program"
    change(folder, **{other: dead[other]})

    sweep(folder.parent)

    assert alive[process] in (os.getpid(), os.getppid())
    assert (folder / "library.so").exists()


def test_another_process_with_the_number_of_a_dead_one_keeps_nothing(folder: Path) -> None:
    began = owner_of(folder)["program_began"] - 1000
    change(folder, program=os.getpid(), program_began=began)

    sweep(folder.parent)

    assert not folder.exists()


def _without_owner(folder: Path) -> None:
    (folder / OWNER).unlink()


def _with_text(folder: Path) -> None:
    (folder / OWNER).write_text("not json")


def _with_texts_for_numbers(folder: Path) -> None:
    change(folder, program="1")


def _with_a_field_missing(folder: Path) -> None:
    (folder / OWNER).write_text("{}")


def _of_another_container(folder: Path) -> None:
    change(folder, world="pid:[1]")


def _with_a_linked_owner(folder: Path) -> None:
    (folder / OWNER).rename(folder / "real")
    (folder / OWNER).symlink_to(folder / "real")


def _with_an_owner_that_others_can_write(folder: Path) -> None:
    (folder / OWNER).chmod(0o666)


def _that_others_can_write(folder: Path) -> None:
    folder.chmod(0o777)


@pytest.mark.parametrize(
    "spoil",
    [
        _without_owner,
        _with_text,
        _with_texts_for_numbers,
        _with_a_field_missing,
        _of_another_container,
        pytest.param(_with_a_linked_owner, marks=posix),
        pytest.param(_with_an_owner_that_others_can_write, marks=posix),
        pytest.param(_that_others_can_write, marks=posix),
    ],
)
def test_a_folder_that_is_not_provably_ours_stays(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)

    sweep(folder.parent)

    assert (folder / "library.so").exists()


@posix
def test_a_link_to_such_a_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "other"
    temporary.mkdir()
    (temporary / "_MEIlinked").symlink_to(folder)

    sweep(temporary)

    assert (folder / "library.so").exists()


def test_other_folders_are_not_looked_at(folder: Path) -> None:
    other = folder.rename(folder.with_name("somebody's"))

    sweep(folder.parent)

    assert (other / "library.so").exists()

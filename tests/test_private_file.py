"""Small files that only this person can read."""

import os
import stat
import sys
from pathlib import Path

import pytest

from sidecar.private_file import write_private


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    write_private(tmp_path / "file", b"new")

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_what_cannot_be_replaced_stays_and_leaves_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "inside").write_bytes(b"old")

    with pytest.raises(OSError):
        write_private(tmp_path / "file", b"new")

    assert os.listdir(tmp_path) == ["file"]

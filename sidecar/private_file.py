"""Small files that only this person can read, written whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_private(file: Path, data: bytes) -> None:
    """Blocks until it is on the disk. Raises OSError, and then what was there before still is."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)  # with 0600
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise

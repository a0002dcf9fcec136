"""The program's own file, held open: an update that replaces it does not break what is running.

Most modules are imported when they are first used, out of an archive inside of that file, and
PyInstaller's reader opens it by its name for each of them: after an update that is another file,
in which everything stands elsewhere. An open file stays what it was, whatever has its name.
"""

import os
import sys


class _Reading:
    """What the reader does with a file that it has opened."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._at = 0

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        return None

    def seek(self, place):
        self._at = place

    def read(self, size):
        data = os.pread(self._descriptor, size, self._at)
        self._at += len(data)
        return data


def hold():
    """Not on Windows: an open file could not be renamed there, and updates do that."""
    if sys.platform == "win32":
        return
    import pyimod01_archive
    from pyimod02_importers import pyz_archive

    held = pyz_archive._filename
    descriptor = os.open(held, os.O_RDONLY)

    def open_held(name, mode):
        return _Reading(descriptor) if name == held else open(name, mode)

    pyimod01_archive.open = open_held  # found before the built-in one, by that module alone

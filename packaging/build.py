"""Build the program: `dist/sidecar`, one file; with `--one-dir` also the folder `dist/sidecar-dir`.

What goes in stands in `sidecar.spec`. PyInstaller builds for the system that it runs on.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent


def build(out: Path, work: Path, *spec_options: str) -> None:
    """Raises CalledProcessError; PyInstaller has said why on stderr."""
    folders = ("--distpath", str(out), "--workpath", str(work))
    # Clean, since the file and the folder come from an archive of one name, which is cached.
    quiet = ("--noconfirm", "--clean", "--log-level", "WARN")
    spec = (str(HERE / "sidecar.spec"), "--", *spec_options)
    subprocess.run([sys.executable, "-m", "PyInstaller", *quiet, *folders, *spec], check=True)


def executable(folder: Path, name: str = "sidecar") -> Path:
    return folder / (f"{name}.exe" if sys.platform == "win32" else name)


def folder_bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the program with PyInstaller.")
    parser.add_argument("--one-dir", action="store_true", help="the folder as well")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=PROJECT / "dist")
    parser.add_argument("--work", metavar="FOLDER", type=Path, default=PROJECT / "build")
    given = parser.parse_args()
    try:
        build(given.out, given.work, *(["--one-dir"] if given.one_dir else []))
    except subprocess.CalledProcessError as error:
        return error.returncode
    one_file = executable(given.out)
    print(f"{one_file}: {one_file.stat().st_size / 1e6:.1f} MB")
    if given.one_dir:
        one_dir = given.out / "sidecar-dir"
        print(f"{executable(one_dir)}: {folder_bytes(one_dir) / 1e6:.1f} MB with its folder")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where things are: the folders of one profile, and the settings that ship with the program.

Two profiles share no folder. Nothing is made before `Folders.make`. Knows no setting.
"""

import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ConfigInvalid

APP = "sidecar"
SHIPPED = "config.default.yaml"

_PROFILE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9_-])?")
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of one profile; None is the profile of a sidecar started without a name."""

    config: Path
    data: Path
    log: Path
    profile: str | None = None

    @classmethod
    def locate(cls, profile: str | None = None) -> "Folders":
        """Find the platform's folders, making none. Raises ConfigInvalid for an unusable name."""
        import platformdirs  # 15 ms, and `--help` needs no folder

        name = None if profile is None else profile_name(profile)
        below = Path() if name is None else Path("profiles", name)
        dirs = platformdirs.PlatformDirs(APP, appauthor=False)
        return cls(
            config=dirs.user_config_path / below,
            data=dirs.user_data_path / below,
            log=dirs.user_log_path / below,
            profile=name,
        )

    @property
    def settings_file(self) -> Path:
        return self.config / "config.yaml"

    def make(self) -> None:
        """Make the folders, open to this person alone. Raises ConfigInvalid where that fails."""
        for folder in (self.config, self.data, self.log):
            _make_private(folder)


def profile_name(text: str) -> str:
    """The profile's name as folders bear it: case is dropped, since Windows and macOS ignore it."""
    name = text.lower()
    if not _PROFILE.fullmatch(name) or _WINDOWS_DEVICE.fullmatch(name):
        raise ConfigInvalid(
            f"{text!r} cannot be the name of a profile. Use up to 64 of a-z, 0-9, '-', '_' and '.',"
            " beginning with a letter or a digit and not ending with a '.'."
        )
    return name


def shipped_settings() -> Path:
    """The file of the default settings: in the wheel or the binary, else in the checkout."""
    package = Path(__file__).parent
    inside = package / SHIPPED
    return inside if inside.is_file() else package.parent / SHIPPED


def _make_private(folder: Path) -> None:
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder")
        if sys.platform != "win32" and folder.stat().st_mode & _OTHERS:
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigInvalid(
            f"The folder {folder} cannot be used: {error.strerror or error}."
            " Remove what is in its place, or give it to your user account."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigInvalid(
            f"The folder {folder} cannot be written to. Give your user account write access to it."
        )

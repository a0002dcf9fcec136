import stat
import sys
from pathlib import Path

import pytest

from sidecar.errors import ConfigInvalid
from sidecar.paths import Folders, shipped_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable, name in {
        "HOME": "",
        "USERPROFILE": "",
        "XDG_CONFIG_HOME": "config",
        "XDG_DATA_HOME": "data",
        "XDG_STATE_HOME": "state",
        "WIN_PD_OVERRIDE_LOCAL_APPDATA": "local",
    }.items():
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def under(folder: Path) -> Folders:
    return Folders(config=folder / "config", data=folder / "data", log=folder / "state" / "log")


def test_two_profiles_share_no_folder(home: Path) -> None:
    found = [Folders.locate(), Folders.locate("acme"), Folders.locate("other")]

    for kind in ("config", "data", "log"):
        folders = [getattr(one, kind) for one in found]
        assert len(set(folders)) == 3
        assert folders[2] not in folders[1].parents and folders[1] not in folders[2].parents


def test_locating_makes_no_folder(home: Path) -> None:
    Folders.locate("acme")

    assert list(home.iterdir()) == []


def test_a_profile_is_the_same_in_any_case_since_some_folders_ignore_it(home: Path) -> None:
    assert Folders.locate("Acme") == Folders.locate("acme")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "../x", "-x", "a.", "a b", "ä", "nul", "com1.x", "x" * 65],
)
def test_a_name_that_no_folder_can_safely_have_is_refused(home: Path, name: str) -> None:
    with pytest.raises(ConfigInvalid, match="name of a profile"):
        Folders.locate(name)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps folders private by inheritance")
def test_folders_are_made_for_this_person_alone(tmp_path: Path) -> None:
    folders = under(tmp_path / "new")
    folders.data.mkdir(parents=True, mode=0o755)
    folders.data.chmod(0o755)

    folders.make()

    for folder in (folders.config, folders.data, folders.log, folders.log.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_making_folders_twice_is_no_error(tmp_path: Path) -> None:
    under(tmp_path).make()

    under(tmp_path).make()


def test_a_file_in_the_place_of_a_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    folders = under(tmp_path)
    folders.data.write_text("not a folder")

    with pytest.raises(ConfigInvalid, match="Remove what is in its place") as caught:
        folders.make()

    assert str(folders.data) in str(caught.value)


def test_a_folder_below_a_file_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")

    with pytest.raises(ConfigInvalid, match="cannot be used"):
        under(tmp_path).make()


def test_the_shipped_settings_are_found_in_a_checkout() -> None:
    assert "providers:" in shipped_settings().read_text("utf-8")

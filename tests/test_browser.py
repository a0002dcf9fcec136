"""Where a browser can be opened."""

import sys

import pytest

from sidecar.browser import can_open
from sidecar.environment import before_bundle

SSH = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}


@pytest.mark.parametrize(
    "platform, environ, expected",
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ""}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"BROWSER": "lynx"}, True),
        ("linux", SSH, False),
        ("linux", {**SSH, "DISPLAY": "localhost:10.0"}, True),  # forwarded on purpose
        ("freebsd14", {}, False),
        ("darwin", {}, True),
        ("darwin", SSH, False),
        ("win32", {}, True),
        ("win32", SSH, False),
        ("win32", {**SSH, "BROWSER": "firefox"}, True),
    ],
)
def test_a_browser_opens_where_the_person_sees_it(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: dict[str, str], expected: bool
) -> None:
    monkeypatch.setattr(sys, "platform", platform)

    assert can_open(environ) is expected


def test_what_the_launcher_of_a_bundle_set_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"HOME": "/home", "_PYI_ARCHIVE_FILE": "sidecar", "LD_LIBRARY_PATH": "/tmp/_MEI1"}
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    assert before_bundle(ours) == {"HOME": "/home"}
    repaired = before_bundle({**ours, "LD_LIBRARY_PATH_ORIG": "/opt/lib"})
    assert repaired["LD_LIBRARY_PATH"] == "/opt/lib"


def test_from_source_a_library_path_is_the_person_s() -> None:
    assert before_bundle({"LD_LIBRARY_PATH": "/opt/lib"}) == {"LD_LIBRARY_PATH": "/opt/lib"}

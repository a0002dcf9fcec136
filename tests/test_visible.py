"""Nothing that others wrote may hide, reorder or fake what a person reads."""

import pytest
from pydantic import JsonValue

from sidecar.visible import visible, visible_json


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain text, ünïcode, 日本語", "plain text, ünïcode, 日本語"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("a family: 👨‍👩‍👧", "a family: 👨‍👩‍👧"),
        ("\x1b[2Jgone", "\\u001b[2Jgone"),
        ("over\rwritten", "over\\u000dwritten"),
        ("left\u202eright", "left\\u202eright"),
        ("no\u200bthing", "no\\u200bthing"),
        ("bell\x07, \x9b31m", "bell\\u0007, \\u009b31m"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("half a \ud800 pair", "half a \\ud800 pair"),
    ],
)
def test_characters_that_show_nothing_stand_as_their_escapes(written: str, shown: str) -> None:
    assert visible(written) == shown


def test_every_text_of_a_value_is_made_visible_and_cut() -> None:
    value: JsonValue = {"na\u202eme": ["x" * 10, {"deep": "\x00"}, 7, None]}

    assert visible_json(value, 4) == {"na\\u202eme": ["xxxx…", {"deep": "\\u0000"}, 7, None]}

"""JSON from outside: whatever it is, it can be written again or is a ValueError."""

import json

import pytest

from sidecar import jsons
from sidecar.messages import JsonObject


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, "\\ud83d\\ude00"]}', {"a": [1, 2.5, None, "😀"]}),
        ('"half \\uD83D"', "half \ufffd"),
        ('{"\\ud800": 1}', {"\ufffd": 1}),
        ('"half \ud83d"', "half \ufffd"),
        (b'"half \xf0\x9f"', "half \ufffd"),
        (b"\xef\xbb\xbf[1]", [1]),
        ("[1e999, -1e999]", [jsons.LARGEST, -jsons.LARGEST]),
    ],
)
def test_what_is_read_can_be_written_again(text: str | bytes, value: object) -> None:
    read = jsons.loads(text)

    assert read == value
    json.dumps(read, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "-Infinity",
        "9" * 5000,
        b"\x00",
        b"\xff\xfe",
        "[" * 101 + "]" * 101,
        "[" * 200_000,
        '{"a":' * 200_000,
    ],
    ids=lambda text: str(text[:5]),
)
def test_whatever_cannot_be_read_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        jsons.loads(text)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert jsons.loads("[" + "[]," * 500 + "0]") == [*([[]] * 500), 0]
    assert jsons.loads("[" * 100 + "]" * 100)


def test_what_is_of_another_kind_than_expected_is_empty() -> None:
    for other in (None, 5, True):
        assert jsons.text(other) == ""
        assert jsons.fields(other) == {}
        assert jsons.items(other) == jsons.rows(other) == []
    assert jsons.rows([{"a": 1}, "b", None]) == [{"a": 1}]


@pytest.mark.parametrize(
    ("raw", "meant"), [('{"a": 1}', {"a": 1}), ("", {}), (" \n", {}), ("[]", None), ('{"a":', None)]
)
def test_the_arguments_of_a_call_are_an_object_or_nothing(raw: str, meant: JsonObject) -> None:
    assert jsons.parse_object(raw) == meant

"""Arguments of a batch file stay arguments. That Windows agrees is for a test on Windows."""

import pytest

from sidecar.mcp_host.batch import batch_line, is_batch_file


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("-y", '"-y"'),
        ("", '""'),
        ("two words", '"two words"'),
        ("a&calc", '"a&calc"'),
        ("a|b>c<d^e(f)!g", '"a|b>c<d^e(f)!g"'),
        ('say "hi" & go', '"say ""hi"" & go"'),
        ("%PATH%", '"%%cd:~,%PATH%%cd:~,%"'),
        ("C:\\folder\\", '"C:\\folder\\\\"'),
        ("C:\\a\\b", '"C:\\a\\b"'),
        ('a\\"b', '"a\\\\""b"'),
    ],
)
def test_an_argument_is_written_in_quotes(argument: str, written: str) -> None:
    line = batch_line("C:\\Program Files\\nodejs\\npx.cmd", [argument])

    assert line == f'"C:\\Program Files\\nodejs\\npx.cmd" {written}'


@pytest.mark.parametrize("argument", ["a\nb", "a\rb", "a\0b"])
def test_what_cannot_be_written_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        batch_line("npx.cmd", [argument])


def test_a_batch_file_is_known_by_its_name() -> None:
    assert is_batch_file("C:\\npx.CMD")
    assert is_batch_file("C:\\go.bat")
    assert not is_batch_file("C:\\node.exe")

"""Conversations as files: what goes out comes in again, and others' exports are read."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import BadRequest
from sidecar.messages import (
    CitationPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from sidecar.store import transfer
from sidecar.store.transfer import FORMS, Whole, read

AT = "2026-01-02T03:04:05.000Z"


def message(message_id: str, parent_id: str | None, role: str, *parts: Part) -> Message:
    return Message.model_validate(
        {
            "message_id": message_id,
            "parent_id": parent_id,
            "role": role,
            "parts": [part.model_dump() for part in parts],
            "created_at": AT,
        }
    )


TOAST = Whole(
    title="Toast",
    created_at=AT,
    messages=[
        message(
            "q",
            None,
            "user",
            TextPart(text="make toast"),
            picture := ImagePart(attachment_id="a", mime="image/png", name="bread.png"),
        ),
        message(
            "a",
            "q",
            "assistant",
            ReasoningPart(text="Hm.\nToast."),
            ToolCallPart(
                tool_call_id="1", server="kitchen", name="burn", offered_as="k", arguments={"s": 3}
            ),
            ToolResultPart(tool_call_id="1", status="ok", text="``` burnt", duration_ms=1),
            TextPart(text="It is burnt."),
            CitationPart(url="https://example.com/toast", title="On toast"),
        ),
        message("b", "q", "assistant", TextPart(text="No.")),
    ],
    head="a",
    model="openai/x",
    system_prompt="Be a toaster.",
)


def file_of(tmp_path: Path, value: Any) -> Path:
    file = tmp_path / "conversations.json"
    text = value if isinstance(value, str) else json.dumps(value)
    file.write_text(text, encoding="utf-8")
    return file


def exported(*conversations: Whole) -> str:
    form = FORMS["json"]
    return form.opening + form.separator.join(map(form.encode, conversations)) + form.closing


def said(whole: Whole) -> list[str]:
    return [each.text for each in whole.messages]


def branch(whole: Whole) -> list[str]:
    return [each.text for each in transfer._branch(whole)]


def test_what_was_exported_is_read_again_with_ids_of_its_own(tmp_path: Path) -> None:
    [one, two] = read(file_of(tmp_path, exported(TOAST, TOAST)))

    assert (one.title, one.created_at, one.model) == ("Toast", AT, "openai/x")
    assert one.system_prompt == "Be a toaster."
    assert branch(one) == ["make toast[bread.png]", "It is burnt."]
    assert said(one)[2] == "No."
    ids = {each.message_id for whole in (one, two) for each in whole.messages}
    assert len(ids) == 6 and not ids & {"q", "a", "b"}
    assert one.messages[1].parts[1:3] == TOAST.messages[1].parts[1:3]


def test_markdown_has_the_branch_in_use_as_a_person_reads_it() -> None:
    text = FORMS["markdown"].encode(TOAST)

    assert text == (
        f"# Toast\n\n*{AT}*\n\n## You\n\nmake toast\n\n*[bread.png]*\n\n## Assistant\n\n"
        '> Hm.\n> Toast.\n\n**kitchen / burn**\n\n```json\n{\n "s": 3\n}\n```\n\n'
        "````\n``` burnt\n````\n\nIt is burnt.\n\n*[On toast](https://example.com/toast)*"
    )


def node(parent: str | None, role: str | None, text: str, **more: Any) -> dict[str, Any]:
    said = None
    if role is not None:
        said = {
            "author": {"role": role},
            "create_time": 1700000000.5,
            "content": {"content_type": "text", "parts": [text]},
            "metadata": {"model_slug": "gpt-4o"},
            **more,
        }
    return {"parent": parent, "children": [], "message": said}


CHATGPT = [
    {
        "title": "Cats",
        "create_time": 1700000000,
        "current_node": "d",
        "mapping": {
            "d": node("c", "assistant", "They purr."),
            "root": node(None, None, ""),
            "system": node("root", "system", "hidden"),
            "a": node("system", "user", "cats?"),
            "b": node("a", "assistant", "Which?"),
            "c": node("a", "tool", "looked up"),
        },
    }
]


def test_chatgpts_tree_is_read_without_what_nobody_saw(tmp_path: Path) -> None:
    [cats] = read(file_of(tmp_path, CHATGPT))

    assert (cats.title, cats.created_at) == ("Cats", "2023-11-14T22:13:20.000Z")
    assert branch(cats) == ["cats?", "They purr."]
    assert sorted(said(cats)) == ["They purr.", "Which?", "cats?"]
    answer = next(each for each in cats.messages if each.text == "They purr.")
    assert (answer.model, answer.created_at) == ("gpt-4o", "2023-11-14T22:13:20.500Z")


def test_a_tree_that_bites_its_tail_is_read_all_the_same(tmp_path: Path) -> None:
    mapping = {"a": node("b", "user", "one"), "b": node("a", "assistant", "two")}

    [found] = read(file_of(tmp_path, [{"mapping": mapping, "current_node": "gone"}]))

    assert sorted(said(found)) == ["one", "two"]
    assert sum(each.parent_id is None for each in found.messages) == 1


CLAUDE = [
    {
        "uuid": "u",
        "name": "Dogs",
        "created_at": "2026-01-02T04:04:05+01:00",
        "chat_messages": [
            {"uuid": "1", "sender": "human", "text": "dogs?", "created_at": AT},
            {
                "uuid": "2",
                "sender": "assistant",
                "text": "old field",
                "content": [{"type": "text", "text": "They bark."}, {"type": "tool_use"}],
                "created_at": AT,
            },
            {"uuid": "3", "sender": "human", "text": "", "content": []},
        ],
    },
    {"uuid": "v", "name": "", "chat_messages": []},
]


def test_claudes_list_is_read_and_empty_conversations_are_not(tmp_path: Path) -> None:
    [dogs] = read(file_of(tmp_path, CLAUDE))

    assert (dogs.title, dogs.created_at) == ("Dogs", AT)
    assert branch(dogs) == ["dogs?", "They bark."]


def test_an_export_may_lie_in_its_archive(tmp_path: Path) -> None:
    file = tmp_path / "export.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("user.json", "{}")
        archive.writestr("data/conversations.json", json.dumps(CHATGPT))

    [cats] = read(file)

    assert cats.title == "Cats"


def test_it_is_read_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE_CHARS", 100)

    assert len(list(read(file_of(tmp_path, exported(*[TOAST] * 5))))) == 5
    assert len(list(read(file_of(tmp_path, CHATGPT * 5)))) == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{}",
        '{"format": "other", "conversations": []}',
        "[1, 2]",
        '[{"mapping": {}',
        '[{"something": "else"}]',
        "[" * 100_000,
        "\x00\x01",
        '[{"conversation": {}, "messages": [{"role": "user"}]}]',
    ],
)
def test_what_is_no_export_is_refused_with_the_reason(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadRequest, match=r"\w{4}"):
        list(read(file_of(tmp_path, text)))


def test_an_archive_without_conversations_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "export.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("user.json", "{}")
    with pytest.raises(BadRequest, match=r"no conversations\.json"):
        list(read(file))

    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(BadRequest, match="archive cannot be read"):
        list(read(file))

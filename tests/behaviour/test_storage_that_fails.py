"""A disk that cannot be written to takes no chat away, and nothing that was kept."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.client import ServerError, connect
from sidecar.protocol.chunks import NoticeChunk
from sidecar.protocol.conversations import (
    ConversationsGet,
    ConversationsGetPayload,
    ConversationsList,
)
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import FakeOpenAI, text


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "drive"


def in_folder(folder: Path) -> str:
    return f"storage: {{path: '{folder}'}}"


async def test_a_chat_goes_on_in_memory_and_is_written_when_that_is_possible(
    start: Start, join: Join, upstream: FakeOpenAI, elsewhere: Path
) -> None:
    client = await join(await start(in_folder(elsewhere)))
    upstream.will(text("Hi."), text("Still here."))
    first = await client.chat("hello")
    outcome = await first.finished()
    notices = [chunk async for chunk in first if isinstance(chunk, NoticeChunk)]
    assert first.text == "Hi."
    assert {notice.metadata.code for notice in notices} == {"storage_locked"}
    assert str(elsewhere) in notices[0].data
    assert len(notices) == 1
    shown = await client.request(
        ConversationsGet, ConversationsGetPayload(conversation_id=outcome.conversation_id)
    )
    assert [message.text for message in shown.messages] == ["hello", "Hi."]
    assert shown.head == outcome.message_id

    elsewhere.mkdir()
    await (await client.chat("and now?", conversation_id=outcome.conversation_id)).finished()

    said = [message["content"] for message in upstream.bodies[-1]["messages"][-3:]]
    assert said == ["hello", "Hi.", "and now?"]
    asked = ConversationsGetPayload(conversation_id=outcome.conversation_id)
    found = await client.request(ConversationsGet, asked)
    assert [message.text for message in found.messages] == [
        "hello",
        "Hi.",
        "and now?",
        "Still here.",
    ]


async def test_what_was_held_is_written_when_the_sidecar_ends(
    start: Start, join: Join, elsewhere: Path, opened: object
) -> None:
    client = await join(await start(in_folder(elsewhere)))
    await (await client.chat("hello")).finished()
    elsewhere.mkdir()

    await opened.aclose()  # type: ignore[attr-defined]

    with closing(sqlite3.connect(elsewhere / "conversations.db")) as database:
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (2,)


async def test_damaged_conversations_are_left_alone_and_a_new_chat_is_answered(
    start: Start, join: Join, elsewhere: Path
) -> None:
    elsewhere.mkdir()
    file = elsewhere / "conversations.db"
    file.write_bytes(b"scratched " * 1000)
    client = await join(await start(in_folder(elsewhere)))

    with pytest.raises(ServerError) as refused:
        await client.request(ConversationsList)
    run = await client.chat("hello")
    await run.finished()

    assert refused.value.code == "storage_corrupt"
    assert "Move that file away" in str(refused.value)
    assert run.text
    assert file.read_bytes() == b"scratched " * 1000


async def test_conversations_of_a_newer_version_are_left_alone(
    start: Start, join: Join, elsewhere: Path
) -> None:
    elsewhere.mkdir()
    file = elsewhere / "conversations.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 1000")
    before = file.read_bytes()
    app = await start(in_folder(elsewhere))

    async with connect(app.url, app.token) as client:
        with pytest.raises(ServerError) as refused:
            await client.request(ConversationsList)

    assert refused.value.code == "storage_newer"
    assert file.read_bytes() == before

"""What was said is there again: after a reload, after a restart, on every branch."""

from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from pydantic import JsonValue

from sidecar.client import Client, ServerError, connect
from sidecar.protocol.conversations import (
    Conversation,
    ConversationsCreated,
    ConversationsDelete,
    ConversationsDeleted,
    ConversationsDeletePayload,
    ConversationsExport,
    ConversationsExportPayload,
    ConversationsFork,
    ConversationsForkPayload,
    ConversationsGet,
    ConversationsGetPayload,
    ConversationsGetResult,
    ConversationsImport,
    ConversationsImportPayload,
    ConversationsList,
    ConversationsListPayload,
    ConversationsSearch,
    ConversationsSearchPayload,
    ConversationsUpdate,
    ConversationsUpdated,
    ConversationsUpdatePayload,
)
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import HANG, Answer, FakeOpenAI, chunk, status, text, tool_calls
from tests.support.world import running, world


async def opened_again(client: Client, conversation_id: str) -> ConversationsGetResult:
    asked = ConversationsGetPayload(conversation_id=conversation_id)
    return await client.request(ConversationsGet, asked)


async def listed(client: Client, **fields: object) -> tuple[Conversation, ...]:
    asked = ConversationsListPayload.model_validate(fields)
    return (await client.request(ConversationsList, asked)).items


async def test_a_conversation_is_there_after_a_restart(
    tmp_path: Path, upstream: FakeOpenAI
) -> None:
    settings = (
        f"providers: {{fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}}}\n"
        "chat: {model: fake/test}"
    )
    upstream.will(text("Once ", "upon", prompt_tokens=3, completion_tokens=2))
    async with running(world(tmp_path, settings)) as app, connect(app.url, app.token) as client:
        outcome = await (await client.chat("Tell me\n a story")).finished()

    async with running(world(tmp_path, settings)) as app, connect(app.url, app.token) as client:
        [known] = await listed(client)
        found = await opened_again(client, outcome.conversation_id)
        upstream.will(text("a time"))
        await (await client.chat("Go on", conversation_id=outcome.conversation_id)).finished()

    assert (known.title, known.model, known.message_count) == ("Tell me a story", "fake/test", 2)
    assert (known.usage.input, known.usage.output) == (3, 2)
    question, answer = found.messages
    assert (question.text, answer.text) == ("Tell me\n a story", "Once upon")
    assert found.head == answer.message_id == outcome.message_id
    said = [message["content"] for message in upstream.bodies[-1]["messages"][-3:]]
    assert said == ["Tell me\n a story", "Once upon", "Go on"]


async def test_what_is_live_and_what_is_kept_are_the_same(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start())
    upstream.will(tool_calls(("burn", {"what": "toast"})), text("There is no such tool."))
    run = await client.chat("make toast")
    outcome = await run.finished()

    found = await opened_again(client, outcome.conversation_id)

    kinds = [part.type for part in found.messages[1].parts]
    assert kinds == ["tool_call", "tool_result", "text"]
    assert found.messages[1].text == run.text


async def test_an_edited_message_is_a_branch_and_the_other_one_stays(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("Cats purr."), text("Dogs bark."), text("Cats, then."))
    first = await (await client.chat("cats?")).finished()
    at = first.conversation_id
    [question, _] = (await opened_again(client, at)).messages

    second = await (
        await client.chat("dogs?", conversation_id=at, replaces=question.message_id)
    ).finished()
    found = await opened_again(client, at)

    assert [message.text for message in found.messages] == [
        "cats?",
        "Cats purr.",
        "dogs?",
        "Dogs bark.",
    ]
    assert found.head == second.message_id
    assert found.messages[2].parent_id is None

    back = ConversationsUpdatePayload(conversation_id=at, head=first.message_id)
    await client.request(ConversationsUpdate, back)
    await (await client.chat("sure?", conversation_id=at)).finished()
    said = [message["content"] for message in upstream.bodies[-1]["messages"][-3:]]
    assert said == ["cats?", "Cats purr.", "sure?"]


async def test_an_answer_can_be_made_again_and_both_are_kept(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("Heads."), text("Tails."))
    first = await (await client.chat("toss a coin")).finished()

    again = await (await client.regenerate(first.message_id)).finished()

    found = await opened_again(client, first.conversation_id)
    question, heads, tails = found.messages
    assert heads.parent_id == tails.parent_id == question.message_id
    assert found.head == again.message_id == tails.message_id
    assert upstream.bodies[0]["messages"] == upstream.bodies[1]["messages"]


async def test_a_question_whose_answer_failed_can_be_answered_again(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(status(401, "no"), text("Hi."))
    run = await client.chat("hello")
    with pytest.raises(ServerError):
        await run.finished()
    found = await opened_again(client, (await run.started()).conversation_id)
    question, failed = found.messages

    again = await client.regenerate(question.message_id)
    outcome = await again.finished()

    assert (failed.status, again.text) == ("error", "Hi.")
    found = await opened_again(client, outcome.conversation_id)
    assert [message.parent_id for message in found.messages[1:]] == [question.message_id] * 2


async def test_a_conversation_has_a_model_and_a_prompt_of_its_own(
    client: Client, upstream: FakeOpenAI
) -> None:
    first = await (await client.chat("hi", model="fake/small")).finished()
    own = ConversationsUpdatePayload.model_validate(
        {
            "conversation_id": first.conversation_id,
            "system_prompt": "Answer in Latin.",
            "params": {"temperature": 0.5},
        }
    )
    await client.request(ConversationsUpdate, own)

    await (await client.chat("again", conversation_id=first.conversation_id)).finished()

    body = upstream.bodies[-1]
    assert (body["model"], body["temperature"]) == ("small", 0.5)
    assert body["messages"][0]["content"] == "Answer in Latin."


async def test_conversations_are_listed_in_pages_with_the_pinned_ones_first(
    client: Client,
) -> None:
    made = [
        (await (await client.chat(f"number {number}")).finished()).conversation_id
        for number in range(5)
    ]
    pin = ConversationsUpdatePayload(conversation_id=made[1], pinned=True)
    hide = ConversationsUpdatePayload(conversation_id=made[3], archived=True)
    await client.request(ConversationsUpdate, pin)
    await client.request(ConversationsUpdate, hide)

    seen: list[str] = []
    cursor = None
    while True:
        asked = ConversationsListPayload(limit=2, cursor=cursor)
        page = await client.request(ConversationsList, asked)
        seen += [item.conversation_id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == [made[1], made[4], made[2], made[0]]
    [hidden] = await listed(client, archived=True)
    assert hidden.conversation_id == made[3]


async def test_a_cursor_that_nobody_gave_is_refused(client: Client) -> None:
    with pytest.raises(ServerError) as refused:
        await listed(client, cursor="bm9uc2Vuc2U=")

    assert refused.value.code == "bad_request"


async def test_a_long_conversation_is_read_in_pages(client: Client, upstream: FakeOpenAI) -> None:
    at = (await (await client.chat("0")).finished()).conversation_id
    for number in range(1, 4):
        await (await client.chat(str(number), conversation_id=at)).finished()

    newest = await client.request(
        ConversationsGet, ConversationsGetPayload(conversation_id=at, limit=3)
    )
    older = await client.request(
        ConversationsGet,
        ConversationsGetPayload(
            conversation_id=at, limit=200, before=newest.messages[0].message_id
        ),
    )

    assert (newest.has_more, older.has_more) == (True, False)
    asked = [each.text for each in (*older.messages, *newest.messages) if each.role == "user"]
    assert asked == ["0", "1", "2", "3"]


async def test_a_page_of_messages_fits_a_frame(client: Client, upstream: FakeOpenAI) -> None:
    at = (await (await client.chat("x" * 200_000)).finished()).conversation_id
    for _ in range(3):
        await (await client.chat("y" * 200_000, conversation_id=at)).finished()
    await (await client.chat("z" * 900_000, conversation_id=at)).finished()

    seen: list[str] = []
    before = None
    while True:
        asked = ConversationsGetPayload(conversation_id=at, before=before)
        page = await client.request(ConversationsGet, asked)
        seen[:0] = [message.text for message in page.messages if message.role == "user"]
        before = page.messages[0].message_id
        if not page.has_more:
            break

    assert [words[0] for words in seen] == ["x", "y", "y", "y", "z"]
    assert [len(words) for words in seen[:4]] == [200_000] * 4
    assert page.messages[0].truncated is None


@pytest.mark.parametrize("words", ["Purr", "purrs? cats", "CATS", "çats", "purr cat"])
async def test_messages_are_found_by_the_beginnings_of_their_words(
    client: Client, upstream: FakeOpenAI, words: str
) -> None:
    upstream.will(text("Cats purr; the others do not."), text("Dogs bark."))
    cats = await (await client.chat("which of them sings?")).finished()
    await (await client.chat("and who is loud?")).finished()

    found = await client.request(
        ConversationsSearch, ConversationsSearchPayload(q=words.replace("purrs?", "pu"))
    )

    [hit] = found.items
    assert (hit.conversation_id, hit.message_id) == (cats.conversation_id, cats.message_id)
    assert "Cats purr" in hit.snippet


async def test_words_of_a_script_without_spaces_are_found(client: Client) -> None:
    said = await (await client.chat("今日は東京で寿司を食べました")).finished()

    found = await client.request(ConversationsSearch, ConversationsSearchPayload(q="寿司"))

    assert {hit.conversation_id for hit in found.items} == {said.conversation_id}


@pytest.mark.parametrize("words", ['"', "AND", "a* OR", "(", "col:x", "-", "%", "\\"])
async def test_a_search_takes_any_text(client: Client, words: str) -> None:
    await (await client.chat("hello")).finished()

    found = await client.request(ConversationsSearch, ConversationsSearchPayload(q=words))

    assert found.items == ()


async def test_a_title_is_found_too(client: Client) -> None:
    at = (await (await client.chat("hello")).finished()).conversation_id
    renamed = ConversationsUpdatePayload(conversation_id=at, title="Holiday in Rome 100%")
    await client.request(ConversationsUpdate, renamed)

    found = await client.request(ConversationsSearch, ConversationsSearchPayload(q="rome 100%"))

    [hit] = found.items
    assert (hit.message_id, hit.title) == (None, "Holiday in Rome 100%")


async def test_a_deleted_conversation_is_gone_with_its_files(
    start: Start, join: Join, tmp_path: Path
) -> None:
    client = await join(await start())
    shared, own = [await client.attach(data, "a.txt") for data in (b"shared", b"own")]

    def with_files(*attachments: str) -> JsonValue:
        shown: list[JsonValue] = [
            {"type": "attachment", "attachment_id": each} for each in attachments
        ]
        return [{"type": "text", "text": "look"}, *shown]

    first = await (await client.chat(parts=with_files(shared, own))).finished()
    second = await (await client.chat(parts=with_files(shared))).finished()

    deleted = await client.request(
        ConversationsDelete, ConversationsDeletePayload(conversation_ids=(first.conversation_id,))
    )

    assert deleted.deleted == 1
    assert [item.conversation_id for item in await listed(client)] == [second.conversation_id]
    kept = [file.name.partition(".")[0] for file in (tmp_path / "data" / "attachments").iterdir()]
    assert kept == [shared]
    with pytest.raises(ServerError) as refused:
        await opened_again(client, first.conversation_id)
    assert refused.value.code == "not_found"


async def test_all_conversations_can_be_deleted_also_while_one_is_answered(
    client: Client, upstream: FakeOpenAI
) -> None:
    await (await client.chat("one")).finished()
    upstream.will(Answer([chunk(content="Once "), HANG]))
    run = await client.chat("two")
    await run.text_so_far("Once ")

    deleted = await client.request(ConversationsDelete, ConversationsDeletePayload(all=True))

    assert deleted.deleted == 2
    assert (await run.finished()).finish_reason == "cancelled"
    assert await listed(client) == ()


async def test_a_fork_has_the_messages_up_to_one_and_goes_its_own_way(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("one"), text("two"))
    first = await (await client.chat("1?")).finished()
    await (await client.chat("2?", conversation_id=first.conversation_id)).finished()

    forked = await client.request(
        ConversationsFork,
        ConversationsForkPayload(
            conversation_id=first.conversation_id, message_id=first.message_id
        ),
    )

    found = await opened_again(client, forked.conversation_id)
    assert [message.text for message in found.messages] == ["1?", "one"]
    original = await opened_again(client, first.conversation_id)
    assert {each.message_id for each in found.messages}.isdisjoint(
        each.message_id for each in original.messages
    )
    assert len(original.messages) == 4


async def test_a_conversation_is_listed_with_its_first_message_and_not_before(
    client: Client,
) -> None:
    with pytest.raises(ServerError):
        await (await client.chat("hello", model="nowhere/x")).finished()

    assert await listed(client) == ()


async def test_a_private_conversation_goes_on_and_is_never_written(
    start: Start, join: Join, upstream: FakeOpenAI, tmp_path: Path
) -> None:
    client = await join(await start())
    first = await (await client.chat("a secret", store=False)).finished()

    await (await client.chat("more", conversation_id=first.conversation_id, store=False)).finished()

    assert upstream.bodies[-1]["messages"][-3]["content"] == "a secret"
    assert await listed(client) == ()
    stored = b"".join(file.read_bytes() for file in (tmp_path / "data").glob("conversations.db*"))
    assert b"a secret" not in stored


async def test_every_window_is_told_what_happens_to_conversations(start: Start, join: Join) -> None:
    app = await start()
    client, other = await join(app), await join(app, events=["conversations"])
    at = (await (await client.chat("hello")).finished()).conversation_id

    created = await other.event(ConversationsCreated)
    assert created.data.title == "hello"
    await client.request(
        ConversationsUpdate, ConversationsUpdatePayload(conversation_id=at, title="Greetings")
    )
    while (await other.event(ConversationsUpdated)).data.title != "Greetings":
        pass
    await client.request(ConversationsDelete, ConversationsDeletePayload(conversation_ids=(at,)))
    assert (await other.event(ConversationsDeleted)).data.conversation_ids == (at,)


async def test_a_retry_after_a_restart_is_answered_with_what_was_said(
    tmp_path: Path, upstream: FakeOpenAI
) -> None:
    settings = (
        f"providers: {{fake: {{kind: openai_compatible, base_url: '{upstream.url}'}}}}\n"
        "chat: {model: fake/test}"
    )
    key = str(uuid4())
    upstream.will(text("Once upon"))
    async with running(world(tmp_path, settings)) as app, connect(app.url, app.token) as client:
        outcome = await (await client.chat("a story", retry_key=key)).finished()

    async with running(world(tmp_path, settings)) as app, connect(app.url, app.token) as client:
        retried = await client.chat("a story", retry_key=key)
        assert await retried.finished() == outcome
        with pytest.raises(ServerError) as refused:
            await (await client.chat("another story", retry_key=key)).finished()

    assert refused.value.code == "duplicate_request"
    assert len(upstream.bodies) == 1


async def test_the_same_chat_sent_twice_at_once_is_one_run(
    client: Client, upstream: FakeOpenAI
) -> None:
    at = (await (await client.chat("hello")).finished()).conversation_id
    key = str(uuid4())

    runs = [await client.chat("again", conversation_id=at, retry_key=key) for _ in range(3)]

    assert len({(await run.finished()).run_id for run in runs}) == 1
    assert len(upstream.bodies) == 2


@pytest.mark.parametrize("form", ["json", "markdown"])
async def test_conversations_are_exported_as_a_file(
    client: Client, upstream: FakeOpenAI, form: Literal["json", "markdown"]
) -> None:
    upstream.will(text("They purr."))
    at = (await (await client.chat("cats?")).finished()).conversation_id
    await (await client.chat("dogs?")).finished()

    made = await client.request(
        ConversationsExport, ConversationsExportPayload(conversation_ids=(at,), format=form)
    )
    written = (await client.fetch(made.attachment_id)).decode()

    assert len(written.encode()) == made.bytes
    assert "They purr." in written and "dogs?" not in written


async def test_what_was_exported_can_be_imported_and_gone_on_with(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("They purr."), text("Mice."))
    at = (await (await client.chat("cats?")).finished()).conversation_id
    made = await client.request(ConversationsExport, ConversationsExportPayload(format="json"))
    await client.request(ConversationsDelete, ConversationsDeletePayload(all=True))

    sent = await client.send_import(await client.fetch(made.attachment_id))
    imported = await client.request(
        ConversationsImport, ConversationsImportPayload(attachment_id=sent)
    )

    [item] = imported.items
    assert item.conversation_id != at
    found = await opened_again(client, item.conversation_id)
    assert [message.text for message in found.messages] == ["cats?", "They purr."]
    await (await client.chat("eat?", conversation_id=item.conversation_id)).finished()
    assert [each["content"] for each in upstream.bodies[-1]["messages"][-3:]] == [
        "cats?",
        "They purr.",
        "eat?",
    ]


async def test_a_file_that_is_no_export_is_refused(client: Client) -> None:
    sent = await client.send_import(b"hello")

    with pytest.raises(ServerError) as refused:
        await client.request(ConversationsImport, ConversationsImportPayload(attachment_id=sent))

    assert refused.value.code == "bad_request"

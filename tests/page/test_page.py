"""What a person does on the page, as the page and the sidecar do it together."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.app import App
from tests.behaviour.conftest import PLAIN_SERVER
from tests.page.conftest import Open, Start
from tests.support.fake_openai import (
    HANG,
    Answer,
    FakeOpenAI,
    chunk,
    ending,
    status,
    text,
    tool_calls,
    unfinished_text,
)

expect = pytest.importorskip("playwright.async_api", reason="needs `uv sync --group page`").expect

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

LAST = ".answer:last-of-type"


async def say(tab: "Page", words: str) -> None:
    await tab.get_by_role("textbox", name="Message").fill(words)
    await tab.keyboard.press("Enter")


async def can_be_answered(tab: "Page") -> None:
    await expect(tab.get_by_role("alertdialog")).to_have_attribute("aria-keyshortcuts", "A D")


@pytest.fixture
async def app(start: Start) -> App:
    return await start()


async def test_an_answer_streams_in_and_is_markdown(
    app: App, open_page: Open, upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(
        Answer(
            [
                chunk(content="# A title\n\nSome *words*, and `code`:\n\n```python\nprint("),
                rest,
                chunk(content="1)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"),
                ending("stop"),
            ]
        )
    )
    tab = await open_page(app)

    await say(tab, "Hello")
    await expect(tab.locator(".answer h1")).to_have_text("A title")
    await expect(tab.locator(".answer pre")).to_contain_text("print(")
    rest.set()

    await expect(tab.locator(".answer em")).to_have_text("words")
    await expect(tab.locator(".answer .hljs-title, .answer .hljs-built_in")).to_have_text("print")
    lines = "document.querySelector('.answer pre code').getClientRects().length"
    assert await tab.evaluate(lines) == 1
    await expect(tab.locator(".answer td").first).to_have_text("1")
    await expect(tab.locator(".said")).to_have_text("Hello")
    await expect(tab.locator(".facts")).to_contain_text("fake/test")


async def test_stop_keeps_what_was_shown(app: App, open_page: Open, upstream: FakeOpenAI) -> None:
    upstream.will(unfinished_text("Once upon", then=HANG))
    tab = await open_page(app)
    await say(tab, "Tell me")
    await expect(tab.locator(".answer")).to_contain_text("Once upon")

    await tab.keyboard.press("Escape")

    await expect(tab.locator(LAST)).to_contain_text("Stopped.")
    await expect(tab.locator(LAST)).to_contain_text("Once upon")
    await upstream.hung_up.wait()


async def test_a_reload_and_a_second_window_in_the_middle_of_an_answer_lose_nothing(
    app: App, open_page: Open, upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(
        Answer([chunk(content="Once upon "), rest, chunk(content="a time"), ending("stop")])
    )
    first = await open_page(app)
    await say(first, "Tell me")
    await expect(first.locator(".answer")).to_contain_text("Once upon")

    await first.reload()
    second = await open_page(app)
    await second.locator(".entry", has_text="Tell me").click()
    for tab in (first, second):
        await expect(tab.locator(".answer")).to_contain_text("Once upon")
        await expect(tab.get_by_role("button", name="Stop")).to_be_visible()
    rest.set()

    for tab in (first, second):
        await expect(tab.locator(".answer .prose")).to_have_text("Once upon a time")
        await expect(tab.locator(".said")).to_have_text("Tell me")
        await expect(tab.locator(".answer")).to_have_count(1)


async def test_a_connection_lost_in_the_middle_of_an_answer_loses_nothing(
    app: App, open_page: Open, context: "BrowserContext", upstream: FakeOpenAI
) -> None:
    rest = asyncio.Event()
    upstream.will(
        Answer([chunk(content="Once upon "), rest, chunk(content="a time"), ending("stop")])
    )
    await context.add_init_script(
        "window.sockets = [];"
        "window.WebSocket = class extends WebSocket {"
        "  constructor(...given) { super(...given); window.sockets.push(this); }"
        "};"
    )
    tab = await open_page(app)
    await say(tab, "Tell me")
    await expect(tab.locator(".answer")).to_contain_text("Once upon")

    await tab.evaluate("sockets[0].close()")
    await tab.evaluate(  # as a function would, which the page's policy lets nobody make from text
        "new Promise((done) => { const look = () =>"
        " sockets[1]?.readyState === 1 ? done() : requestAnimationFrame(look); look(); })"
    )
    rest.set()

    await expect(tab.locator(".answer .prose")).to_have_text("Once upon a time")
    await expect(tab.locator(".facts")).to_have_count(1)
    await expect(tab.locator(".said")).to_have_count(1)
    assert len(upstream.bodies) == 1


async def test_a_message_is_edited_into_a_branch_and_both_can_be_read(
    app: App, open_page: Open, upstream: FakeOpenAI
) -> None:
    upstream.will(text("First."), text("Second."), text("Third."))
    tab = await open_page(app)
    await say(tab, "One")
    await expect(tab.locator(LAST)).to_contain_text("First.")
    await expect(tab.locator(".facts")).to_have_count(1)

    await tab.keyboard.press("ArrowUp")
    field = tab.get_by_role("textbox", name="Edit")
    await expect(field).to_be_focused()
    await field.fill("Two")
    await tab.keyboard.press("Enter")
    await expect(tab.locator(LAST)).to_contain_text("Second.")
    await expect(tab.locator(".said")).to_have_text("Two")

    await tab.get_by_role("button", name="Previous variant").click()
    await expect(tab.locator(".said")).to_have_text("One")
    await expect(tab.locator(LAST)).to_contain_text("First.")

    await tab.get_by_role("button", name="Answer again").click()
    await expect(tab.locator(LAST)).to_contain_text("Third.")
    await expect(tab.locator(LAST).locator(".variants")).to_contain_text("2/2")

    await tab.reload()
    await expect(tab.locator(LAST)).to_contain_text("Third.")


async def test_a_tool_asks_and_a_key_allows_it(
    start: Start, open_page: Open, upstream: FakeOpenAI
) -> None:
    tab = await open_page(await start(PLAIN_SERVER))
    upstream.will(tool_calls(("plain__echo", {"text": "hi"})), text("It said hi."))

    await say(tab, "Call it")
    ask = tab.get_by_role("alertdialog")
    await expect(ask).to_contain_text("plain wants to run echo")
    await expect(ask.locator(".arguments")).to_contain_text('"text": "hi"')
    await expect(ask).to_be_focused()
    await can_be_answered(tab)
    await tab.keyboard.press("a")

    await expect(tab.locator(LAST)).to_contain_text("It said hi.")
    await expect(tab.locator(".call-state")).to_contain_text("done")
    await tab.locator(".call summary").click()
    await expect(tab.locator(".call")).to_contain_text("hi")


async def test_a_key_that_is_held_answers_no_question(
    start: Start, open_page: Open, upstream: FakeOpenAI
) -> None:
    tab = await open_page(await start(PLAIN_SERVER))
    upstream.will(
        tool_calls(("plain__echo", {"text": "one"}), ("plain__echo", {"text": "two"})),
        text("Done."),
    )
    await say(tab, "Call both")
    ask = tab.get_by_role("alertdialog")
    await expect(tab.locator(".ask .badge")).to_have_count(1)
    await expect(ask).to_be_focused()
    await can_be_answered(tab)

    await tab.keyboard.down("a")  # answers the first
    await expect(ask).to_have_count(1)
    await expect(tab.locator(".ask .badge")).to_have_count(0)
    await can_be_answered(tab)
    await tab.keyboard.down("a")  # is a repetition
    await tab.keyboard.up("a")
    await expect(ask).to_be_focused()
    await tab.keyboard.press("d")

    await expect(tab.locator(LAST)).to_contain_text("Done.")
    await expect(tab.locator(".call-state", has_text="done")).to_have_count(1)
    await expect(tab.locator(".call-state", has_text="not allowed")).to_have_count(1)


async def test_arguments_are_changed_before_they_are_allowed(
    start: Start, open_page: Open, upstream: FakeOpenAI
) -> None:
    tab = await open_page(await start(PLAIN_SERVER))
    upstream.will(tool_calls(("plain__echo", {"text": "hi"})), text("Done."))
    await say(tab, "Call it")

    await tab.get_by_role("button", name="Edit arguments").click()
    field = tab.get_by_role("textbox", name="Arguments")
    await field.fill("[1]")
    await tab.get_by_role("button", name="Allow once").click()
    await expect(tab.get_by_role("alertdialog")).to_contain_text("not a JSON object")
    await field.fill('{"text": "changed"}')
    await tab.get_by_role("button", name="Allow once").click()

    await expect(tab.locator(LAST)).to_contain_text("Done.")
    await tab.locator(".call summary").click()
    await expect(tab.locator(".call")).to_contain_text("Arguments as you changed them")
    assert "changed" in str(upstream.bodies[-1]["messages"])


async def test_what_is_denied_is_not_run(
    start: Start, open_page: Open, upstream: FakeOpenAI
) -> None:
    tab = await open_page(await start(PLAIN_SERVER))
    upstream.will(tool_calls(("plain__echo", {"text": "hi"})), text("As you wish."))
    await say(tab, "Call it")

    await tab.get_by_role("button", name="Deny").click()

    await expect(tab.locator(LAST)).to_contain_text("As you wish.")
    await expect(tab.locator(".call-state")).to_contain_text("not allowed")


async def test_conversations_are_found_renamed_pinned_and_deleted(
    app: App, open_page: Open, upstream: FakeOpenAI
) -> None:
    tab = await open_page(app)
    for words in ("About elephants", "About whales"):
        await say(tab, words)
        await expect(tab.locator(LAST)).to_contain_text("Hello.")
        await tab.get_by_role("button", name="New chat").click()

    await tab.keyboard.press("Control+k")
    await tab.keyboard.type("eleph")
    await expect(tab.locator(".hit")).to_have_count(1)
    await tab.locator(".hit").click()
    await expect(tab.locator(".said")).to_have_text("About elephants")
    await tab.get_by_role("searchbox").fill("")

    row = tab.locator("li.current")
    await row.locator("summary").click()
    await row.get_by_role("button", name="Rename").click()
    await tab.get_by_role("textbox", name="Rename").fill("Trunks")
    await tab.keyboard.press("Enter")
    await expect(tab.locator(".chat-head h1")).to_have_text("Trunks")
    await row.locator("summary").click()
    await row.get_by_role("button", name="Pin").click()
    await expect(tab.locator(".list h2").first).to_have_text("Pinned")

    tab.once("dialog", lambda dialog: dialog.accept())
    await row.locator("summary").click()
    await row.get_by_role("button", name="Delete").click()
    await expect(tab.locator(".entry")).to_have_count(1)
    await expect(tab.locator(".said")).to_have_count(0)


async def test_the_first_start_takes_a_key_and_never_shows_it(
    start: Start, open_page: Open, upstream: FakeOpenAI
) -> None:
    app = await start(
        f"providers: {{mine: {{kind: openai, api: chat, base_url: '{upstream.url}'}}}}",
        "chat: {model: mine/gpt-4o-mini}",
    )
    tab = await open_page(app)
    await expect(tab.get_by_role("heading", name="Welcome")).to_be_visible()

    await tab.get_by_role("radio", name=re.compile("mine")).check()
    await tab.get_by_label("Key for mine").fill("sk-of-mine-0123456789")
    await tab.get_by_role("button", name="Store the key").click()
    await expect(tab.get_by_role("heading", name="Welcome")).to_have_count(0)
    await say(tab, "Hello")

    await expect(tab.locator(LAST)).to_contain_text("Hello.")
    assert upstream.requests[-1].headers["authorization"] == "Bearer sk-of-mine-0123456789"
    assert "sk-of-mine" not in await tab.content()


async def test_what_a_provider_says_no_to_can_be_tried_again(
    app: App, open_page: Open, upstream: FakeOpenAI
) -> None:
    upstream.will(status(400, "That is too hard."), text("Easy."))
    tab = await open_page(app)
    await say(tab, "Do it")
    problem = tab.get_by_role("alert")
    await expect(problem).to_contain_text("That is too hard.")

    await problem.get_by_role("button", name="Try again").click()

    await expect(tab.locator(LAST)).to_contain_text("Easy.")
    await expect(tab.locator(".said")).to_have_count(1)


async def test_files_are_attached_and_sent(
    app: App, open_page: Open, upstream: FakeOpenAI, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("The password is swordfish.")
    tab = await open_page(app)

    await tab.locator("input[type=file]").set_input_files(note)
    await expect(tab.locator(".drafts")).to_contain_text("note.txt")
    await say(tab, "What is it?")

    await expect(tab.locator(LAST)).to_contain_text("Hello.")
    await expect(tab.locator(".mine")).to_contain_text("note.txt")
    assert "swordfish" in str(upstream.bodies[-1])


async def test_a_file_dropped_anywhere_is_attached(app: App, open_page: Open) -> None:
    tab = await open_page(app)
    files = await tab.evaluate_handle(
        "() => { const it = new DataTransfer();"
        " it.items.add(new File(['Hi'], 'dropped.txt', {type: 'text/plain'})); return it; }"
    )

    await tab.locator(".sidebar").dispatch_event("drop", {"dataTransfer": files})

    await expect(tab.locator(".drafts")).to_contain_text("dropped.txt")


async def test_the_page_says_when_the_sidecar_is_stopped_and_when_a_tab_has_no_session(
    app: App, open_page: Open
) -> None:
    tab = await open_page(app)
    other = await open_page(app)
    await other.evaluate("sessionStorage.clear()")
    await other.reload()
    await expect(other.get_by_role("heading")).to_have_text("This tab has no session")

    tab.once("dialog", lambda dialog: dialog.accept())
    await tab.get_by_role("button", name="Quit sidecar").click()

    await expect(tab.get_by_role("heading")).to_have_text("sidecar is stopped")

"""The chat page in a real browser, at a real sidecar with a fake vendor behind it."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.app import App
from sidecar.server import page as built
from tests.behaviour.conftest import Join, Start, join, opened, start, upstream

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

__all__ = ["Join", "Start", "join", "opened", "start", "upstream"]

CHROMIUM = os.environ.get("SIDECAR_TEST_CHROMIUM") or shutil.which("chromium")
SHOTS = os.environ.get("SIDECAR_TEST_SCREENSHOTS")  # a folder: what was seen is kept there
PATIENCE_MS = 10_000

Open = Callable[..., Awaitable["Page"]]


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    driver = pytest.importorskip("playwright.async_api", reason="needs `uv sync --group page`")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium, on the PATH or named by SIDECAR_TEST_CHROMIUM")
    if built.folder() == built.PLAIN:
        pytest.skip("needs the page: uv sync --reinstall-package sidecar builds it")
    driver.expect.set_options(timeout=PATIENCE_MS)
    async with driver.async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        yield browser
        await browser.close()


@pytest.fixture
async def context(browser: "Browser") -> "BrowserContext":
    context = await browser.new_context(locale="en-GB", viewport={"width": 1180, "height": 760})
    context.set_default_timeout(PATIENCE_MS)
    return context


@pytest.fixture
async def complaints() -> list[str]:
    """What pages wrote to their consoles as errors, and what scripts of theirs threw."""
    return []


@pytest.fixture
async def open_page(
    request: pytest.FixtureRequest, context: "BrowserContext", complaints: list[str]
) -> AsyncIterator[Open]:
    """Open the page of a sidecar in a new tab; a test in which one complains has failed."""
    from playwright.async_api import expect

    tabs: list[Page] = []

    async def open_page(app: App) -> "Page":
        tab = await context.new_page()
        tabs.append(tab)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "console",
            lambda message: complaints.append(message.text) if message.type == "error" else None,
        )
        await tab.goto(app.page_url())
        await expect(tab.get_by_role("textbox", name="Message")).to_be_visible()
        return tab

    yield open_page
    if SHOTS:
        for number, tab in enumerate(tabs):
            await tab.screenshot(path=Path(SHOTS) / f"{request.node.name}-{number}.png")
    assert complaints == []

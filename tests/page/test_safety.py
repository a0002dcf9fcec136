"""Whatever a model, a tool or a file says stays text, and goes nowhere by itself."""

import re
from typing import TYPE_CHECKING

import pytest

from tests.behaviour.conftest import PLAIN_SERVER
from tests.page.conftest import Open, Start
from tests.page.test_page import say
from tests.support.fake_openai import FakeOpenAI, text, tool_calls

expect = pytest.importorskip("playwright.async_api", reason="needs `uv sync --group page`").expect

if TYPE_CHECKING:
    from playwright.async_api import Page, Request

RUN = "window.top.caught=(window.top.caught||0)+1"
CORPUS = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<iframe srcdoc='<script>{RUN}</script>'></iframe>",
    f'<iframe src="javascript:{RUN}"></iframe>',
    f'<a href="javascript:{RUN}">link</a>',
    f"[link](javascript:{RUN})",
    f"[link](JaVaScRiPt&colon;{RUN})",
    f"[link](data:text/html,<script>{RUN}</script>)",
    f"[link](vbscript:{RUN})",
    f"![image](javascript:{RUN})",
    f'![x" onerror="{RUN}](https://example.com/x.png)',
    f"<details open ontoggle={RUN}>x</details>",
    f"<body onload={RUN}>",
    f"<math><mtext></p><script>{RUN}</script></mtext></math>",
    f'<math><mi//xlink:href="data:x,<script>{RUN}</script>">',
    f"<form action=javascript:{RUN}><input type=submit autofocus onfocus={RUN}></form>",
    f"<style>@import 'javascript:{RUN}';</style>",
    f"<template><script>{RUN}</script></template>",
    f'<noscript><p title="</noscript><img src=x onerror={RUN}>">',
    f"<textarea autofocus onfocus={RUN}></textarea>",
    f'```"><img src=x onerror={RUN}>\ncode\n```',
    f'```python" onmouseover="{RUN}\nprint(1)\n```',
    f"```html\n<script>{RUN}</script>\n```",
    f"$\\href{{javascript:{RUN}}}{{x}}$",
    f"$$\\htmlStyle{{background:url(x)}}{{x}} <img src=x onerror={RUN}>$$",
    f'\\(\\class{{"onload={RUN}"}}{{x}}\\)',
    f"| <img src=x onerror={RUN}> |\n|---|\n| {RUN} |",
    f'<https://example.com/"onmouseover={RUN}>',
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"<<script>{RUN}//<</script>",
    f'<object data="javascript:{RUN}"></object><embed src="javascript:{RUN}">',
    f'<link rel=stylesheet href="javascript:{RUN}"><base href="javascript:{RUN}//">',
    f'<meta http-equiv=refresh content="0;url=javascript:{RUN}">',
]


async def caught(tab: "Page") -> int:
    found: int = await tab.evaluate("window.caught || 0")
    return found


async def test_no_answer_runs_a_script_or_loads_anything(
    start: Start, open_page: Open, upstream: FakeOpenAI
) -> None:
    app = await start()
    upstream.will(text("\n\n".join(CORPUS) + "\n\nThe end."))
    tab = await open_page(app)
    asked: list[Request] = []
    tab.on("request", lambda request: asked.append(request))

    await say(tab, "Break out")
    await expect(tab.locator(".answer")).to_contain_text("The end.")
    await expect(tab.locator(".facts")).to_have_count(1)
    for link in await tab.locator(".answer a").all():
        assert (await link.get_attribute("href") or "https://").startswith(("https://", "http://"))
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    await tab.reload()
    await expect(tab.locator(".answer")).to_contain_text("The end.")

    assert await caught(tab) == 0
    assert {request.url.split("/")[2] for request in asked} <= {app.http.split("/")[2]}
    assert (
        await tab.locator(".prose :is(script, img, svg, iframe, form, style, object)").count() == 0
    )


@pytest.mark.parametrize("hostile", ["<img src=x onerror=alert(1)>", "a\u202egnp.exe\u200b"])
async def test_what_tools_are_given_and_say_is_text(
    start: Start, open_page: Open, upstream: FakeOpenAI, hostile: str
) -> None:
    tab = await open_page(await start(PLAIN_SERVER))
    upstream.will(tool_calls(("plain__echo", {"text": hostile})), text("Done."))
    await say(tab, hostile)

    shown = re.compile(
        re.escape(hostile).replace("\u202e", r"\\+u202e").replace("\u200b", r"\\+u200b")
    )
    await expect(tab.locator(".ask .arguments")).to_contain_text(shown)
    await tab.get_by_role("button", name="Allow once").click()
    await expect(tab.locator(".answer")).to_contain_text("Done.")
    await tab.locator(".call summary").click()

    await expect(tab.locator(".call pre").last).to_contain_text(shown)
    assert await caught(tab) == 0
    assert await tab.locator(".page img").count() == 0


async def test_the_code_is_gone_from_the_address_and_the_token_stays_in_the_tab(
    start: Start, open_page: Open
) -> None:
    app = await start()
    tab = await open_page(app)

    assert tab.url == f"{app.http}/"
    assert await tab.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"
    assert app.token not in await tab.evaluate("JSON.stringify(sessionStorage)")

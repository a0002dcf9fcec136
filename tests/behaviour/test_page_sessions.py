"""The built-in page: how it gets its token, what that opens, and how it loses it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.app import App
from sidecar.client import CannotConnect, connect
from sidecar.protocol.base import CLOSE_SESSION_ENDED
from sidecar.protocol.providers import KeysStatus
from tests.support.world import TOKEN, running, world

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running(world(tmp_path)) as app:
        yield app


@pytest.fixture
async def http(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(app.http, timeout=timeout) as session:
        yield session


async def new_code(http: aiohttp.ClientSession) -> str:
    async with http.post("/api/code", headers=BEARER) as answer:
        code: str = (await answer.json())["code"]
    return code


async def exchange(http: aiohttp.ClientSession, origin: str | None, code: str) -> tuple[int, Any]:
    headers = {} if origin is None else {"Origin": origin}
    async with http.post("/api/session", json={"code": code}, headers=headers) as answer:
        return answer.status, await answer.json()


async def open_session(http: aiohttp.ClientSession, app: App, code: str) -> str:
    status, answer = await exchange(http, app.http, code)
    assert (status, answer.keys()) == (200, {"token"})
    token: str = answer["token"]
    return token


async def ready(http: aiohttp.ClientSession, token: str) -> int:
    async with http.get("/readyz", headers={"Authorization": f"Bearer {token}"}) as answer:
        return answer.status


async def test_a_page_token_opens_what_the_token_of_the_start_opens(
    app: App, http: aiohttp.ClientSession
) -> None:
    token = await open_session(http, app, await new_code(http))

    async with connect(app.url, token) as client:
        await client.request(KeysStatus)
    async with http.ws_connect("/ws/chat", protocols=("sidecar", f"sidecar.token.{token}")) as page:
        assert page.protocol == "sidecar"
    assert await ready(http, token) == 200
    assert await ready(http, TOKEN) == 200


async def test_the_address_that_is_opened_has_a_code(app: App, http: aiohttp.ClientSession) -> None:
    address, _, code = app.page_url().partition("#code=")

    assert address == f"{app.http}/"
    assert await ready(http, await open_session(http, app, code)) == 200


async def test_a_code_is_taken_from_our_own_page_alone(
    app: App, http: aiohttp.ClientSession
) -> None:
    code = await new_code(http)

    for origin in (None, "tauri://localhost", "https://evil.com", "null"):
        status, answer = await exchange(http, origin, code)

        assert (status, answer["error_info"]["code"]) == (403, "origin_not_allowed")
    assert await ready(http, await open_session(http, app, code)) == 200  # nobody has used it


async def test_a_wrong_code_is_told_so(app: App, http: aiohttp.ClientSession) -> None:
    status, answer = await exchange(http, app.http, "x" * 43)

    assert (status, answer["error_info"]["code"]) == (401, "unauthorized")


async def test_a_second_use_of_a_code_closes_the_page_and_no_other(
    app: App, http: aiohttp.ClientSession
) -> None:
    code = await new_code(http)
    token, other = (
        await open_session(http, app, code),
        await open_session(http, app, await new_code(http)),
    )
    offered = ("sidecar", f"sidecar.token.{token}")
    async with (
        connect(app.url, other) as another,
        connect(app.url, TOKEN) as client,
        http.ws_connect("/ws/chat", protocols=offered) as page,
    ):
        reading = asyncio.create_task(page.receive(timeout=10))
        status, _ = await exchange(http, app.http, code)
        await reading

        assert (status, page.close_code) == (401, CLOSE_SESSION_ENDED)
        await another.request(KeysStatus)
        await client.request(KeysStatus)
    assert await ready(http, token) == 401
    with pytest.raises(CannotConnect):
        async with connect(app.url, token):
            pass
    assert await ready(http, other) == 200


@pytest.mark.parametrize("body, status", [(b"no json", 400), (b" " * 5000, 413)])
async def test_a_body_that_is_no_code_is_refused(
    app: App, http: aiohttp.ClientSession, body: bytes, status: int
) -> None:
    async with http.post("/api/session", data=body, headers={"Origin": app.http}) as answer:
        refusal = await answer.json()

    assert (answer.status, refusal["error_info"]["code"]) == (status, "bad_request")

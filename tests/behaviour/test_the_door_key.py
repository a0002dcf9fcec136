"""The door key: what it opens, what it does not, and how a person gets and ends one."""

import json
from asyncio import gather
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from keyring.backends import fail
from yarl import URL

from sidecar.app import App
from sidecar.client import CannotConnect, ask_for_door_key, connect
from sidecar.credentials import Keyring
from tests.support.keyrings import FILE_VARIABLE
from tests.support.processes import run, spawned
from tests.support.world import TOKEN, running, world

DOOR = "/v1/nothing-is-here"
ELSEWHERE = [
    ("GET", "/ws/chat"),
    ("GET", "/readyz"),
    ("POST", "/api/code"),
    ("POST", "/api/door-key"),
    ("POST", "/v1"),
    ("POST", "/v1/../api/code"),
    ("POST", "/v1/%2e%2e/api/door-key"),
    ("POST", "//v1/models"),
]


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running(world(tmp_path)) as app:
        yield app


@pytest.fixture
async def key(app: App) -> str:
    return (await ask_for_door_key(app.http, TOKEN, renew=False)).value


async def ask(app: App, method: str, path: str, bearer: str | None, **headers: str) -> Any:
    """Status and body; the path is sent as it is written."""
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, URL(app.http + path, encoded=True), headers=headers, allow_redirects=False
        ) as response,
    ):
        return response.status, json.loads(await response.read() or b"null")


@pytest.mark.parametrize("bearer", ["the token", "the door key"])
async def test_the_token_and_the_door_key_open_the_door(app: App, key: str, bearer: str) -> None:
    status, body = await ask(app, "GET", DOOR, TOKEN if bearer == "the token" else key)

    assert (status, body["error_info"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("method, path", ELSEWHERE)
async def test_the_door_key_opens_nothing_else(app: App, key: str, method: str, path: str) -> None:
    status, body = await ask(app, method, path, key)

    inside = path.startswith("/v1/")  # where such a path leads nowhere
    assert status == (404 if inside else 401)
    assert body["error_info"]["code"] == ("not_found" if inside else "unauthorized")


async def test_the_door_key_opens_no_socket(app: App, key: str) -> None:
    with pytest.raises(CannotConnect) as refusal:
        async with connect(app.url, key):
            pass

    assert refusal.value.status == 401


@pytest.mark.parametrize("bearer", [None, "", "wrong", "sk-sidecar-wr0ng", "sk-sidecar-ü"])
async def test_who_has_neither_is_told_so_in_openai_s_words(
    app: App, key: str, bearer: str | None
) -> None:
    status, body = await ask(app, "GET", DOOR, bearer)

    assert status == 401
    assert body["error"]["code"] == "invalid_api_key"
    assert body["error"]["type"] == "invalid_request_error"
    assert "sidecar door key" in body["error"]["message"]
    assert body["error_info"]["code"] == "unauthorized"


async def test_host_and_origin_come_first_at_the_door_too(app: App, key: str) -> None:
    strange = await ask(app, "GET", DOOR, key, Host="evil.com")
    page = await ask(app, "GET", DOOR, key, Origin="https://evil.com")

    assert (strange[0], strange[1]["error"]["code"]) == (421, "bad_host")
    assert (page[0], page[1]["error"]["code"]) == (403, "origin_not_allowed")


async def test_a_renewed_key_ends_the_old_one_at_once(app: App, key: str) -> None:
    new = (await ask_for_door_key(app.http, TOKEN, renew=True)).value

    assert (await ask(app, "GET", DOOR, key))[0] == 401
    assert (await ask(app, "GET", DOOR, new))[0] == 404


async def test_without_a_keyring_the_key_is_good_for_this_run(tmp_path: Path) -> None:
    place = replace(world(tmp_path), keyring=Keyring("sidecar", fail.Keyring))
    async with running(place) as app:
        key = await ask_for_door_key(app.http, TOKEN, renew=False)

        assert not key.is_kept
        assert (await ask(app, "GET", DOOR, key.value))[0] == 404


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"renew": "yes"}'])
async def test_what_cannot_be_understood_renews_nothing(app: App, key: str, body: bytes) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=bearer) as session,
        session.post(f"{app.http}/api/door-key", data=body) as response,
    ):
        assert response.status == 400

    assert (await ask(app, "GET", DOOR, key))[0] == 404


# ---- the command ----------------------------------------------------------------------------


def keyring(home: Path) -> dict[str, str]:
    return {
        "PYTHON_KEYRING_BACKEND": "tests.support.keyrings.FileKeyring",
        FILE_VARIABLE: str(home / "keyring.json"),
    }


async def test_the_command_shows_the_same_key_until_it_is_renewed(tmp_path: Path) -> None:
    environ = keyring(tmp_path)

    first = await run(tmp_path, "door", "key", environ=environ)
    again = await run(tmp_path, "door", "key", environ=environ)
    renewed = await run(tmp_path, "door", "key", "--renew", environ=environ)

    assert (first.code, renewed.code) == (0, 0)
    assert first.stdout.startswith("sk-sidecar-")
    assert first.stdout.count("\n") == 1
    assert again.stdout == first.stdout != renewed.stdout
    assert renewed.stdout.strip() in (tmp_path / "keyring.json").read_text()
    assert first.stdout.strip() not in (tmp_path / "keyring.json").read_text()


async def test_profiles_have_keys_of_their_own(tmp_path: Path) -> None:
    environ = keyring(tmp_path)

    one, other = await gather(
        run(tmp_path, "door", "key", environ=environ),
        run(tmp_path, "door", "key", "--profile", "acme", environ=environ),
    )

    assert one.stdout != other.stdout


async def test_with_no_keyring_and_no_sidecar_there_is_none_and_that_is_said(
    tmp_path: Path,
) -> None:
    finished = await run(tmp_path, "door", "key")

    (line,) = finished.stderr.splitlines()
    assert (finished.code, finished.stdout) == (5, "")
    assert "no sidecar is running to hold one" in line


async def test_the_command_asks_the_sidecar_that_runs_and_its_log_has_no_key(
    tmp_path: Path,
) -> None:
    async with spawned(tmp_path, "--port", "0", "--log-level", "DEBUG") as sidecar:
        assert sidecar.process.stdout is not None
        shown = [(await sidecar.process.stdout.readline()).decode() for _ in range(4)]
        address = shown[1].split()[1].rstrip("/")

        first = await run(tmp_path, "door", "key")
        renewed = await run(tmp_path, "door", "key", "--renew")
        keys = [finished.stdout.strip() for finished in (first, renewed)]
        statuses = [await _status(f"{address}{DOOR}", key) for key in keys]
        sidecar.process.terminate()
        await sidecar.ended()

    assert statuses == [401, 404]
    assert f"base URL: {address}/v1\n" in first.stderr
    assert "ends with that sidecar" in first.stderr  # this machine has no keyring
    logs = "".join(path.read_text() for path in tmp_path.rglob("sidecar.log*"))
    assert "listening" in logs
    for key in keys:
        assert key.startswith("sk-sidecar-")
        assert key not in logs + sidecar.stderr


async def _status(url: str, key: str) -> int:
    bearer = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=bearer) as session, session.get(url) as response:
        return response.status

"""Servers that want to know who is asking, as a client and a person in a browser see it."""

import asyncio
import contextlib
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from sidecar.app import TOKENS
from sidecar.client import Client, ServerError, connect
from sidecar.credentials import Keyring
from sidecar.mcp_host import authorizing
from sidecar.protocol.mcp import (
    ApprovePayload,
    AuthorizePayload,
    AuthorizeResult,
    McpServersAdd,
    McpServersApprove,
    McpServersAuthorize,
    McpServersDelete,
    McpServerStateChanged,
    McpServerStatus,
    McpToolsCall,
    OAuthEntry,
    ServerEntry,
    ServerPayload,
    ToolsCallPayload,
    ToolsCallResult,
)
from tests.behaviour import test_mcp_servers as mcp_servers
from tests.behaviour.test_command_line import keyring
from tests.support.authority import Protected, browse, protected
from tests.support.keyrings import MemoryKeyring
from tests.support.processes import run, spawned
from tests.support.world import running, world


class NoKeyring(MemoryKeyring):
    def get_password(self, service: str, username: str) -> str | None:
        raise OSError("there is no D-Bus")


class Home:
    """The folders and the keyring that outlive a sidecar."""

    def __init__(self, folder: Path, keyring: MemoryKeyring) -> None:
        self.folder = folder
        self.keyring = keyring

    @property
    def tokens(self) -> Path:
        return self.folder / "data" / TOKENS

    @contextlib.asynccontextmanager
    async def sidecar(self, *places: Protected, **entry: object) -> AsyncIterator[Client]:
        """One with a server `s`, `s2`, … for each place, and a client of it."""
        names = [f"s{number}" if number > 1 else "s" for number in range(1, len(places) + 1)]
        servers = {
            name: {"url": place.mcp.url, "allow": ["echo"], **entry}
            for name, place in zip(names, places, strict=True)
        }
        settings = json.dumps({"mcp": {"servers": servers}})
        keyring = Keyring("sidecar", lambda: self.keyring)
        async with (
            running(replace(world(self.folder, settings), keyring=keyring)) as app,
            connect(app.url, app.token, events=["mcp"]) as client,
        ):
            yield client


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, MemoryKeyring())


@pytest.fixture
async def place() -> AsyncIterator[Protected]:
    async with protected() as place:
        yield place


async def until(client: Client, *states: str, server: str = "s") -> McpServerStatus:
    async with asyncio.timeout(10):
        return await mcp_servers.until(client, *states, server=server)


async def authorize(client: Client, server: str = "s", **more: str) -> AuthorizeResult:
    payload = AuthorizePayload.model_validate({"server": server, **more})
    return await client.request(McpServersAuthorize, payload)


async def sign_in(client: Client, server: str = "s") -> McpServerStatus:
    await until(client, "needs_auth", server=server)
    invitation = await authorize(client, server)
    page = await browse(invitation.url or "")
    assert "You can close this tab" in page.text
    return await until(client, "ready", server=server)


async def echo(client: Client, text: str = "hi") -> ToolsCallResult:
    payload = ToolsCallPayload(server="s", name="echo", arguments={"text": text})
    return await client.request(McpToolsCall, payload)


# ---- the way in -----------------------------------------------------------------------------


async def test_nothing_happens_before_a_person_asks_for_it(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        status = await until(client, "needs_auth")

    assert status.error_info is not None
    assert status.error_info.code == "mcp_auth_required"
    assert "sidecar mcp authorize s" in (status.error or "")
    assert (place.registered, place.asked, place.exchanges) == ({}, [], [])


async def test_a_person_signs_in_and_the_server_connects_by_itself(
    home: Home, place: Protected
) -> None:
    async with home.sidecar(place) as client:
        status = await sign_in(client)
        result = await echo(client)

    assert status.authorization is not None
    assert status.authorization.issuer == place.url
    assert status.authorization.scopes == ("read",)
    assert status.authorization.kept
    assert result.text == "hi"
    [asked] = place.asked
    assert (asked["scope"], asked["resource"]) == ("read", place.mcp.url)


async def test_the_page_at_the_end_runs_nothing_and_loads_nothing(
    home: Home, place: Protected
) -> None:
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")
        page = await browse((await authorize(client)).url or "")

    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.headers["Cache-Control"] == "no-store"
    assert "<script" not in page.text


async def test_an_authorization_in_the_settings_counts_for_more(
    home: Home, place: Protected
) -> None:
    async with home.sidecar(place, headers={"authorization": "Bearer of-mine"}) as client:
        status = await until(client, "needs_auth")

        with pytest.raises(ServerError) as refused:
            await authorize(client)

    assert "Check the `Authorization` in its `headers`" in (status.error or "")
    assert refused.value.error_info.code == "conflict"


async def test_a_client_that_was_registered_by_hand_is_not_registered_again(
    home: Home, place: Protected
) -> None:
    place.registers, place.client = False, ("me", "s3cret-of-mine")
    oauth = {"client_id": "me", "client_secret": "s3cret-of-mine", "scopes": ["read", "write"]}
    async with home.sidecar(place, oauth=oauth) as client:
        await sign_in(client)

    assert place.asked[0]["scope"] == "read write"
    assert "client_secret" not in place.exchanges[0]


async def test_a_client_that_was_registered_by_hand_comes_over_the_wire_too(
    home: Home, place: Protected
) -> None:
    place.registers, place.client = False, ("me", "s3cret-of-mine")
    oauth = OAuthEntry(client_id="me", client_secret="s3cret-of-mine", scopes=("read",))
    async with home.sidecar() as client:
        entry = ServerEntry(server="s", url=place.mcp.url, oauth=oauth)
        added = await client.request(McpServersAdd, entry)
        agreed = ApprovePayload(server="s", fingerprint=added.fingerprint)
        await client.request(McpServersApprove, agreed)

        await sign_in(client)

    settings = (home.folder / "config" / "config.yaml").read_text()
    assert "client_id: me" in settings
    assert "s3cret-of-mine" not in settings
    assert "s3cret-of-mine" in home.keyring.secrets.values()


async def test_a_client_metadata_document_says_who_we_are(home: Home, place: Protected) -> None:
    document = "https://example.com/sidecar.json"
    place.metadata = {"client_id_metadata_document_supported": True}
    place.registered[document] = {"redirect_uris": ["http://127.0.0.1:0/callback"]}
    oauth = {"client_metadata_url": document}
    async with home.sidecar(place, oauth=oauth) as client:
        await until(client, "needs_auth")
        url = (await authorize(client)).url or ""

    assert parse_qs(urlsplit(url).query)["client_id"] == [document]
    assert list(place.registered) == [document]


async def test_a_server_that_registers_nobody_says_what_to_write(
    home: Home, place: Protected
) -> None:
    place.registers = False
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")

        with pytest.raises(ServerError) as failed:
            await authorize(client)

    assert failed.value.error_info.code == "mcp_auth_required"
    assert "mcp.servers.s.oauth: {client_id: …}" in str(failed.value)


@pytest.mark.parametrize(
    "address",
    ["http://example.com/authorize", "https://me:pw@example.com/", "javascript:alert(1)//"],
)
async def test_no_client_is_sent_to_an_unsafe_address(
    home: Home, place: Protected, address: str
) -> None:
    place.metadata = {"authorization_endpoint": address}
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")

        with pytest.raises(ServerError) as failed:
            await authorize(client)

    assert failed.value.error_info.code == "mcp_auth_required"
    assert "pw" not in str(failed.value)


# ---- what can go wrong in the browser -------------------------------------------------------


async def test_who_says_no_is_believed(home: Home, place: Protected) -> None:
    place.denies = True
    async with home.sidecar(place) as client:
        before = await until(client, "needs_auth")
        page = await browse((await authorize(client)).url or "")
        after = await told_otherwise(client, before)

    assert "Nothing was allowed" in page.text
    assert "access_denied" in (after.error or "")
    assert place.exchanges == []


async def test_an_answer_with_another_state_changes_nothing(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")
        url = (await authorize(client)).url or ""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        forged = urlencode({"code": "c", "state": "guessed", "iss": place.url})
        page = await browse(f"{asked['redirect_uri']}?{forged}")
        assert page.status == 400
        assert place.exchanges == []

        await browse(url)

        await until(client, "ready")


async def test_an_answer_from_another_issuer_is_not_exchanged(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        before = await until(client, "needs_auth")
        url = (await authorize(client)).url or ""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        mixed_up = {"code": "c", "state": asked["state"], "iss": "https://evil.example.com"}
        await browse(f"{asked['redirect_uri']}?{urlencode(mixed_up)}")
        after = await told_otherwise(client, before)

    assert "iss mismatch" in (after.error or "")
    assert place.exchanges == []


async def test_nobody_who_comes_back_is_waited_for_no_longer_than_said(
    home: Home, place: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorizing, "SIGN_IN_S", 0.05)
    async with home.sidecar(place) as client:
        before = await until(client, "needs_auth")
        await authorize(client)
        after = await told_otherwise(client, before)

    assert "nobody came back" in (after.error or "")


async def test_a_second_sign_in_takes_the_place_of_the_first(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")
        first, second = await authorize(client), await authorize(client)

        with contextlib.suppress(OSError):  # nobody listens there, or for another state
            assert (await browse(first.url or "")).status == 400
        await browse(second.url or "")

        await until(client, "ready")


async def test_two_servers_are_signed_in_to_at_the_same_time(home: Home) -> None:
    async with protected() as one, protected() as two, home.sidecar(one, two) as client:
        await until(client, "needs_auth", server="s")
        await until(client, "needs_auth", server="s2")
        first, second = await authorize(client, "s"), await authorize(client, "s2")

        await browse(second.url or "")
        await browse(first.url or "")

        await until(client, "ready", server="s")
        await until(client, "ready", server="s2")


async def test_a_cancelled_sign_in_is_over(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")
        url = (await authorize(client)).url or ""

        await authorize(client, action="cancel")

        with pytest.raises(OSError):
            await browse(url)
        assert (await until(client, "needs_auth")).authorization is None


# ---- afterwards -----------------------------------------------------------------------------


async def test_after_a_restart_a_token_is_renewed_without_a_person(
    home: Home, place: Protected
) -> None:
    place.lives_s = 0
    async with home.sidecar(place) as client:
        await sign_in(client)
    place.lives_s = 3600
    place.exchanges.clear()

    async with home.sidecar(place) as client:
        await until(client, "ready")
        assert (await echo(client)).text == "hi"

    assert len(place.asked) == len(place.registered) == 1
    assert place.grants == ["refresh_token"]


async def test_many_calls_renew_a_token_once(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        await sign_in(client)
        place.tokens.clear()

        results = await asyncio.gather(*(echo(client, str(number)) for number in range(5)))

    assert [result.text for result in results] == ["0", "1", "2", "3", "4"]
    assert place.grants.count("refresh_token") == 1


async def test_a_grant_that_was_taken_back_needs_the_person_again(
    home: Home, place: Protected
) -> None:
    async with home.sidecar(place) as client:
        await sign_in(client)
        place.tokens.clear()
        place.refuses_refresh = True

        result = await echo(client)
        status = await until(client, "needs_auth")
        await sign_in(client)

    assert result.status == "error"
    assert status.authorization is None
    assert place.grants.count("refresh_token") == 1
    assert len(place.registered) == 1  # we are still known there


async def test_an_authorization_server_that_is_down_is_no_reason_to_sign_in_again(
    home: Home, place: Protected
) -> None:
    place.lives_s = 0
    async with home.sidecar(place) as client:
        await sign_in(client)
    place.is_down = True
    async with home.sidecar(place) as client:
        status = await until(client, "backoff")
        place.is_down, place.lives_s = False, 3600
        await until(client, "ready")

    assert "HTTP 503" in (status.error or "")
    assert len(place.asked) == 1


async def test_more_permission_is_asked_for_while_the_server_goes_on(
    home: Home, place: Protected
) -> None:
    place.call_scope = "write"
    async with home.sidecar(place) as client:
        await sign_in(client)
        refused = await echo(client)
        status = await until(client, "degraded")

        await browse((await authorize(client)).url or "")
        status_after = await until(client, "ready")
        result = await echo(client)
        assert len(place.mcp.sessions) == 1

    assert "wants more permission" in refused.text
    assert status.error_info is not None
    assert status.error_info.code == "mcp_auth_required"
    assert place.asked[1]["scope"] == "read write"
    assert status_after.authorization is not None
    assert status_after.authorization.scopes == ("read", "write")
    assert result.text == "hi"


async def test_nobody_is_asked_again_for_what_was_given_and_is_not_enough(
    home: Home, place: Protected
) -> None:
    place.call_scope, place.is_never_enough = "write", True
    async with home.sidecar(place) as client:
        await sign_in(client)
        await echo(client)
        await until(client, "degraded")
        await browse((await authorize(client)).url or "")
        await until(client, "ready")

        refused = await echo(client)

        assert (await until(client, "ready", "degraded")).state == "ready"
    assert "wants more permission" in refused.text
    assert len(place.asked) == 2


async def test_permission_that_is_wanted_for_the_list_of_tools_is_asked_for(
    home: Home, place: Protected
) -> None:
    place.list_scope = "write"
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")
        await browse((await authorize(client)).url or "")
        status = await until(client, "degraded")

        await browse((await authorize(client)).url or "")

        assert (await until(client, "ready")).tools > 0
    assert status.tools == 0
    assert status.error_info is not None
    assert status.error_info.code == "mcp_auth_required"


async def test_nobody_is_asked_again_by_a_server_that_is_never_content(
    home: Home, place: Protected
) -> None:
    place.list_scope, place.is_never_enough = "write", True
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")
        for _ in range(2):
            await browse((await authorize(client)).url or "")
            status = await until(client, "degraded", "ready", "backoff")

        status = await not_asked(client)

    assert status.error_info is not None
    assert status.error_info.code != "mcp_auth_required"
    assert len(place.asked) == 2


async def test_who_signs_out_is_forgotten_here_and_there(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        await sign_in(client)
        [refresh_token] = place.refresh_tokens

        await authorize(client, action="revoke")

        status = await until(client, "needs_auth")
    async with home.sidecar(place) as client:
        await until(client, "needs_auth")

    assert status.authorization is None
    assert place.revoked[0]["token"] == refresh_token


async def test_a_server_that_is_deleted_is_signed_out_of(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        await sign_in(client)
        [refresh_token] = place.refresh_tokens

        await client.request(McpServersDelete, ServerPayload(server="s"))

    assert [said["token"] for said in place.revoked] == [refresh_token]


async def test_a_server_that_was_not_approved_is_not_signed_in_to(
    home: Home, place: Protected
) -> None:
    async with home.sidecar(place, approved="") as client:
        await until(client, "needs_approval")

        with pytest.raises(ServerError) as refused:
            await authorize(client)

    assert refused.value.code == "conflict"
    assert place.registered == {}


async def test_on_the_command_line_a_person_signs_in_once_and_out_again(
    tmp_path: Path, place: Protected
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"mcp": {"servers": {"s": {"url": place.mcp.url}}}}))
    config = ("--config", str(file))
    environ = keyring(tmp_path)
    async with spawned(tmp_path, "mcp", "authorize", *config, "s", environ=environ) as command:
        assert command.process.stdout is not None
        async with asyncio.timeout(30):
            await browse((await command.process.stdout.readline()).decode().strip())
        signed_in, _ = await command.ended()

    listed = await run(tmp_path, "mcp", "list", *config, environ=environ)
    signed_out = await run(tmp_path, "mcp", "authorize", *config, "s", "--revoke", environ=environ)

    assert (signed_in, listed.code, signed_out.code) == (0, 0, 0)
    assert listed.stdout.split()[:2] == ["s", "ready"]
    assert len(place.asked) == len(place.revoked) == 1


# ---- what is kept ---------------------------------------------------------------------------


async def test_what_is_kept_is_encrypted_and_private(home: Home, place: Protected) -> None:
    async with home.sidecar(place) as client:
        await sign_in(client)

    kept = home.tokens.read_bytes()
    assert stat.S_IMODE(home.tokens.stat().st_mode) == 0o600
    for secret in (*place.tokens, *place.refresh_tokens, place.url):
        assert secret.encode() not in kept


async def test_without_a_keyring_nothing_is_kept_and_the_state_says_so(
    tmp_path: Path, place: Protected
) -> None:
    home = Home(tmp_path, NoKeyring())
    async with home.sidecar(place) as client:
        status = await sign_in(client)
        assert (await echo(client)).text == "hi"

    assert status.authorization is not None
    assert not status.authorization.kept
    assert not home.tokens.exists()


async def test_a_damaged_file_is_put_aside_and_the_person_told(
    home: Home, place: Protected
) -> None:
    async with home.sidecar(place) as client:
        await sign_in(client)
    kept = bytearray(home.tokens.read_bytes())
    kept[-1] ^= 1
    home.tokens.write_bytes(kept)

    async with home.sidecar(place) as client:
        status = await until(client, "needs_auth")
        assert "was damaged" in (status.error or "")
        assert (await sign_in(client)).authorization is not None
    async with home.sidecar(place) as client:
        await until(client, "ready")


async def test_a_keyring_that_is_locked_at_the_start_costs_nothing_that_was_kept(
    home: Home, place: Protected
) -> None:
    async with home.sidecar(place) as client:
        await sign_in(client)
    async with Home(home.folder, NoKeyring()).sidecar(place) as client:
        status = await until(client, "needs_auth")
    async with home.sidecar(place) as client:
        await until(client, "ready")

    assert "cannot be read" in (status.error or "")
    assert len(place.asked) == 1


async def test_no_secret_is_in_a_log_an_event_or_an_answer(
    tmp_path: Path, place: Protected
) -> None:
    entry = {"url": place.mcp.url, "allow": ["echo"]}
    settings = json.dumps({"mcp": {"servers": {"s": entry}}})
    arguments = ("--managed", "--log-level", "DEBUG")
    async with spawned(
        tmp_path, *arguments, settings=settings, environ=keyring(tmp_path)
    ) as sidecar:
        await sidecar.first_line()
        async with sidecar.client(events=["mcp"]) as client:
            status = await sign_in(client)
            place.tokens.clear()
            assert (await echo(client)).text == "hi"
            place.tokens.clear()
            place.refuses_refresh = True
            refused = await echo(client)
        sidecar.close_stdin()
        await sidecar.ended()

    names = ("code", "code_verifier", "refresh_token")
    secrets = {*place.tokens, *place.refresh_tokens, *place.issued, place.asked[0]["state"]}
    secrets |= {form[name] for form in place.exchanges for name in names if name in form}
    told = status.model_dump_json() + refused.model_dump_json() + sidecar.stderr
    logs = "".join(file.read_text() for file in tmp_path.rglob("*.log*"))
    for event in ("mcp_sign_in_ended", "mcp_tokens_renewed", "mcp_tokens_refused"):
        assert event in logs
    assert len(secrets) >= 7
    assert not [secret for secret in secrets if secret in told + logs]


async def not_asked(client: Client) -> McpServerStatus:
    """Wait until the server cannot be used, and no longer because nobody has signed in."""
    async with asyncio.timeout(10):
        while True:
            status = await until(client, "degraded", "backoff", "ready")
            if status.error_info is not None and status.error_info.code != "mcp_auth_required":
                return status
            await client.event(McpServerStateChanged)


async def told_otherwise(client: Client, before: McpServerStatus) -> McpServerStatus:
    """Wait until the server says something else of why it cannot be used."""
    async with asyncio.timeout(10):
        while (status := await until(client, "needs_auth")).error == before.error:
            await client.event(McpServerStateChanged)
    return status

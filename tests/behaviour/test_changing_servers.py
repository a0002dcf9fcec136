"""MCP servers come, change and go while the sidecar runs, and start nothing without a person."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import App
from sidecar.client import Client, ServerError
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.mcp import (
    ApprovePayload,
    Masked,
    McpServersAdd,
    McpServersApprove,
    McpServersDelete,
    McpServersDisable,
    McpServersEnable,
    McpServersImport,
    McpServersList,
    McpServerStateChanged,
    McpServerStatus,
    McpServersUpdate,
    McpToolsCall,
    McpToolsList,
    ServerEntry,
    ServerPayload,
    ServersImportPayload,
    ToolsCallPayload,
)
from sidecar.protocol.program import ConfigChanged, ConfigGet
from tests.behaviour.conftest import PLAIN, Join, Start

COMMENTED = "# my own words\nchat: {model: fake/test}  # as I like it\n"
SERVER = f"{{command: '{sys.executable}', args: ['{PLAIN}']}}"


@pytest.fixture
async def app(start: Start) -> App:
    return await start()


@pytest.fixture
async def client(app: App, join: Join) -> Client:
    return await join(app, events=["mcp", "config", "approvals"], answers=["approvals"])


def settings_file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "config.yaml"


def entry(name: str = "plain", **fields: Any) -> ServerEntry:
    given = {"server": name, "command": sys.executable, "args": [str(PLAIN)], **fields}
    return ServerEntry.model_validate(given)


async def until(client: Client, server: str, state: str) -> McpServerStatus:
    async with asyncio.timeout(20):
        while True:
            for status in (await client.request(McpServersList)).items:
                if (status.server, status.state) == (server, state):
                    return status
            await client.event(McpServerStateChanged)


async def approved(client: Client, added: McpServerStatus) -> McpServerStatus:
    agreed = ApprovePayload(server=added.server, fingerprint=added.fingerprint)
    await client.request(McpServersApprove, agreed)
    return await until(client, added.server, "ready")


async def environment(client: Client) -> dict[str, str]:
    calling = asyncio.create_task(
        client.request(McpToolsCall, ToolsCallPayload(server="plain", name="environment"))
    )
    pending = await client.event(ApprovalsPending)
    answer = ApprovalsResolvePayload(approval_id=pending.data.approval_id, decision="allow")
    await client.request(ApprovalsResolve, answer)
    found: dict[str, str] = json.loads((await calling).text)
    return found


async def test_an_added_server_starts_when_a_person_has_agreed_to_it(
    client: Client, tmp_path: Path
) -> None:
    file = settings_file(tmp_path)
    file.write_text(COMMENTED + file.read_text().replace("chat: {model: fake/test}", ""))

    added = await client.request(McpServersAdd, entry())
    assert added.state == "needs_approval"
    assert added.pid is None
    assert added.error is not None and "approve" in added.error

    ready = await approved(client, added)

    assert ready.tools > 3
    text = file.read_text()
    assert "# my own words" in text and "# as I like it" in text
    assert added.fingerprint in text


async def test_what_was_approved_starts_again_at_the_next_start(
    start: Start, join: Join, opened: object, tmp_path: Path
) -> None:
    client = await join(await start(), events=["mcp"])
    await approved(client, await client.request(McpServersAdd, entry()))
    written = settings_file(tmp_path).read_text()
    await opened.aclose()  # type: ignore[attr-defined]
    assert "approved:" in written

    again = await join(await start(*written.splitlines()), events=["mcp"])

    await until(again, "plain", "ready")


async def test_a_fingerprint_that_is_not_the_present_one_approves_nothing(client: Client) -> None:
    added = await client.request(McpServersAdd, entry())
    changed = await client.request(McpServersUpdate, entry(args=[str(PLAIN), "--more"]))
    assert changed.fingerprint != added.fingerprint

    with pytest.raises(ServerError) as refused:
        await client.request(
            McpServersApprove, ApprovePayload(server="plain", fingerprint=added.fingerprint)
        )

    assert refused.value.code == "conflict"
    [status] = (await client.request(McpServersList)).items
    assert status.state == "needs_approval"


async def test_a_changed_server_is_ended_and_waits_for_a_person_again(client: Client) -> None:
    ready = await approved(client, await client.request(McpServersAdd, entry()))

    changed = await client.request(McpServersUpdate, entry(args=[str(PLAIN), "x"]))

    assert (changed.state, changed.pid) == ("needs_approval", None)
    assert (await client.request(McpToolsList)).items == ()
    again = await approved(client, changed)
    assert again.pid != ready.pid


async def test_secrets_go_to_the_keyring_and_to_the_server_and_nowhere_else(
    client: Client, tmp_path: Path
) -> None:
    added = await client.request(
        McpServersAdd, entry(env={"API_TOKEN": "hush-hush-1", "LITERAL": "${HOME}"})
    )
    await approved(client, added)

    given = await environment(client)
    assert (given["API_TOKEN"], given["LITERAL"]) == ("hush-hush-1", "${HOME}")
    assert "hush-hush-1" not in settings_file(tmp_path).read_text()
    shown = await client.request(ConfigGet)
    assert "hush-hush-1" not in shown.model_dump_json()

    kept = entry(env={"API_TOKEN": Masked(masked=True)}, args=[str(PLAIN), "y"])
    await approved(client, await client.request(McpServersUpdate, kept))
    given = await environment(client)
    assert given["API_TOKEN"] == "hush-hush-1" and "LITERAL" not in given


async def test_what_comes_over_the_wire_is_never_replaced_by_the_environment(
    client: Client,
) -> None:
    """`start` has KEY in its environment: it must not reach the command of a stranger."""
    added = await client.request(McpServersAdd, entry(args=[str(PLAIN), "${KEY}", "$${KEY}"]))

    settings = (await client.request(ConfigGet)).settings
    assert '"${KEY}"' in json.dumps(settings) and '"$${KEY}"' in json.dumps(settings)
    assert "sk-test" not in json.dumps(settings)
    assert added.state == "needs_approval"


async def test_an_entry_cannot_ask_for_a_secret_that_is_not_its_own(
    start: Start, join: Join
) -> None:
    thief = f"{{command: '{sys.executable}', args: ['{PLAIN}'], env: {{K: '${{keyring:openai}}'}}}}"
    client = await join(await start(f"mcp: {{servers: {{plain: {thief}}}}}"), events=["mcp"])

    failed = await until(client, "plain", "failed")

    assert failed.error is not None and "not its own" in failed.error


async def test_a_server_is_disabled_and_enabled(start: Start, join: Join) -> None:
    app = await start(f"mcp:\n  servers:\n    plain: {SERVER}  # mine")
    client = await join(app, events=["mcp"])
    before = await until(client, "plain", "ready")

    off = await client.request(McpServersDisable, ServerPayload(server="plain"))
    assert (off.state, off.pid) == ("disabled", None)
    await client.request(McpServersEnable, ServerPayload(server="plain"))

    after = await until(client, "plain", "ready")
    assert after.pid != before.pid


async def test_a_deleted_server_is_gone_with_its_tools(client: Client, tmp_path: Path) -> None:
    await approved(client, await client.request(McpServersAdd, entry()))

    await client.request(McpServersDelete, ServerPayload(server="plain"))

    assert (await client.request(McpServersList)).items == ()
    assert (await client.request(McpToolsList)).items == ()
    assert "plain" not in settings_file(tmp_path).read_text()
    with pytest.raises(ServerError) as refused:
        await client.request(McpServersDelete, ServerPayload(server="plain"))
    assert refused.value.code == "not_found"


async def test_a_change_of_the_file_touches_only_what_changed(
    start: Start, join: Join, tmp_path: Path
) -> None:
    servers = f"mcp:\n  servers:\n    same: {SERVER}\n    other: {SERVER}"
    client = await join(await start(servers), events=["mcp", "config"])
    same, other = [await until(client, name, "ready") for name in ("same", "other")]
    file = settings_file(tmp_path)

    changed = servers.replace(f"other: {SERVER}", f"third: {SERVER}")
    file.write_text(file.read_text().replace(servers, changed))
    async with asyncio.timeout(20):
        await client.event(ConfigChanged)
    third = await until(client, "third", "ready")

    now = {status.server: status for status in (await client.request(McpServersList)).items}
    assert now.keys() == {"same", "third"}
    assert now["same"].pid == same.pid
    assert third.pid != other.pid


async def test_a_file_that_became_invalid_changes_nothing(
    start: Start, join: Join, tmp_path: Path
) -> None:
    servers = f"mcp:\n  servers:\n    plain: {SERVER}"
    app = await start(servers)
    client = await join(app, events=["mcp", "config"])
    before = await until(client, "plain", "ready")
    file = settings_file(tmp_path)
    valid = file.read_text()

    file.write_text("mcp: [")
    async with asyncio.timeout(20):
        while app.settings.problem is None:  # noqa: ASYNC110  # what changes nothing is no event
            await asyncio.sleep(0.05)
    [still] = (await client.request(McpServersList)).items
    assert still == before

    with pytest.raises(ServerError) as refused:
        await client.request(McpServersAdd, entry("more"))
    assert refused.value.code == "config_invalid"
    assert file.read_text() == "mcp: ["
    file.write_text(valid)
    async with asyncio.timeout(20):
        while app.settings.problem is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": "http://127.0.0.1:1/mcp"}, "config_invalid"),
        ({"command": None}, "config_invalid"),
        ({"env": {"A": {"masked": True}}}, "bad_request"),
    ],
)
async def test_an_entry_that_cannot_be_is_refused_and_not_written(
    client: Client, tmp_path: Path, fields: dict[str, Any], code: str
) -> None:
    before = settings_file(tmp_path).read_text()

    with pytest.raises(ServerError) as refused:
        await client.request(McpServersAdd, entry(**fields))

    assert refused.value.code == code
    assert settings_file(tmp_path).read_text() == before


async def test_a_name_is_taken_once(client: Client) -> None:
    await client.request(McpServersAdd, entry())

    with pytest.raises(ServerError) as refused:
        await client.request(McpServersAdd, entry())

    assert refused.value.code == "conflict"


OTHERS = """{
  // as Claude Desktop has it
  "mcpServers": {
    "plain": {"command": "PYTHON", "args": ["SERVER"], "env": {"API_TOKEN": "hush-hush-2"}},
    "newest": {"command": "npx", "args": ["-y", "some-server"]},
  }
}"""


async def test_other_programs_servers_are_shown_and_the_accepted_ones_stored(
    client: Client, tmp_path: Path
) -> None:
    text = OTHERS.replace("PYTHON", sys.executable).replace("SERVER", str(PLAIN))

    seen = await client.request(McpServersImport, ServersImportPayload(text=text))
    assert {item.server: item.env_names for item in seen.items} == {
        "plain": ("API_TOKEN",),
        "newest": (),
    }
    assert [item.server for item in seen.items if item.warnings] == ["newest"]
    assert (await client.request(McpServersList)).items == ()

    stored = await client.request(
        McpServersImport, ServersImportPayload(text=text, accept=("plain",))
    )
    [status] = stored.stored
    assert status.state == "needs_approval"
    assert "hush-hush-2" not in settings_file(tmp_path).read_text()
    await approved(client, status)
    assert (await environment(client))["API_TOKEN"] == "hush-hush-2"


async def test_a_server_that_is_not_in_the_text_cannot_be_accepted(client: Client) -> None:
    with pytest.raises(ServerError) as refused:
        await client.request(McpServersImport, ServersImportPayload(text=OTHERS, accept=("other",)))

    assert refused.value.code == "not_found"

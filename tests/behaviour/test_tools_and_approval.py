"""A model calls tools, and a person decides whether they run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import App
from sidecar.client import Client, Run, ServerError
from sidecar.protocol.approvals import (
    Approval,
    ApprovalsPending,
    ApprovalsResolve,
    ApprovalsResolved,
    ApprovalsResolvePayload,
    ApprovalsRulesDelete,
    ApprovalsRulesList,
    RulesDeletePayload,
)
from sidecar.protocol.chat import Cancel, CancelPayload
from sidecar.protocol.chunks import ToolCallChunk, ToolResultChunk
from sidecar.protocol.mcp import McpToolsCall, McpToolsChanged, McpToolsList, ToolsCallPayload
from tests.behaviour.conftest import PLAIN_SERVER, Join, Start
from tests.support.fake_openai import Answer, FakeOpenAI, chunk, ending, text, tool_calls

ECHO = "plain__echo"


@pytest.fixture
async def app(start: Start) -> App:
    return await start(PLAIN_SERVER)


@pytest.fixture
async def client(app: App, join: Join) -> Client:
    """Somebody who can be asked."""
    return await join(app, answers=["approvals"], events=["mcp"])


async def ready(client: Client) -> None:
    """Wait until the server's tools are there."""
    while not (await client.request(McpToolsList)).items:
        await client.event(McpToolsChanged)


async def asked(client: Client) -> Approval:
    async with asyncio.timeout(20):
        return (await client.event(ApprovalsPending)).data


async def answer(client: Client, approval: Approval, decision: str, **fields: Any) -> bool:
    payload = ApprovalsResolvePayload.model_validate(
        {"approval_id": approval.approval_id, "decision": decision, **fields}
    )
    return (await client.request(ApprovalsResolve, payload)).applied


async def results(run: Run) -> list[tuple[str, str]]:
    await run.finished()
    return [
        (chunk.metadata.status, chunk.data)
        async for chunk in run
        if isinstance(chunk, ToolResultChunk)
    ]


def told_model(upstream: FakeOpenAI, step: int) -> list[str]:
    messages = upstream.bodies[step]["messages"]
    return [message["content"] for message in messages if message["role"] == "tool"]


async def test_a_tool_runs_when_the_person_allows_it_and_the_model_reads_its_result(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("It said hi."))
    run = await client.chat("Say hi")

    approval = await asked(client)
    assert (approval.server, approval.name) == ("plain", "echo")
    assert approval.arguments == {"text": "hi"}
    assert await answer(client, approval, "allow")

    assert await results(run) == [("ok", "hi")]
    assert told_model(upstream, 1) == ["hi"]
    assert run.text == "It said hi."


async def test_a_denied_call_is_told_to_the_model_and_the_turn_goes_on(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("As you wish."))
    run = await client.chat("Say hi")

    await answer(client, await asked(client), "deny")

    [(status, told)] = await results(run)
    assert status == "denied"
    assert told_model(upstream, 1) == [told]
    assert run.text == "As you wish."


async def test_without_anybody_to_ask_a_call_is_denied_at_once(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start(PLAIN_SERVER), events=["*"])
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("Then not."))
    run = await client.chat("Say hi")

    [(status, _)] = await results(run)
    assert status == "denied"
    [chunk] = [chunk async for chunk in run if isinstance(chunk, ToolResultChunk)]
    assert chunk.metadata.reason == "unanswered"


async def test_an_approval_that_nobody_answers_expires_as_denied(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    impatient = PLAIN_SERVER.replace("mcp: {", "mcp: {approval_timeout_s: 0.05, ")
    client = await join(await start(impatient), answers=["approvals"])
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("Then not."))
    run = await client.chat("Say hi")

    assert [status for status, _ in await results(run)] == ["denied"]
    assert (await client.event(ApprovalsResolved)).data.by == "timeout"


async def test_all_who_can_answer_are_asked_and_the_first_answer_wins(
    app: App, client: Client, join: Join, upstream: FakeOpenAI
) -> None:
    other = await join(app, answers=["approvals"])
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("Done."))
    run = await client.chat("Say hi")
    approval = await asked(client)
    assert await asked(other) == approval

    assert await answer(other, approval, "allow")
    assert not await answer(client, approval, "deny")

    assert await results(run) == [("ok", "hi")]


async def test_an_answer_for_always_outlives_the_sidecar(
    start: Start, join: Join, upstream: FakeOpenAI, tmp_path: Path
) -> None:
    client = await join(await start(PLAIN_SERVER), answers=["approvals"])
    upstream.will(
        tool_calls((ECHO, {"text": "1"})), text("."), tool_calls((ECHO, {"text": "2"})), text(".")
    )
    run = await client.chat("Say 1")
    await answer(client, await asked(client), "allow", duration="always")
    await run.finished()

    again = await join(await start(PLAIN_SERVER))  # nobody there can be asked

    assert await results(await again.chat("Say 2")) == [("ok", "2")]
    assert (tmp_path / "data" / "rules.json").stat().st_mode & 0o777 == 0o600


async def test_an_answer_for_a_conversation_holds_there_only(
    client: Client, upstream: FakeOpenAI
) -> None:
    call = tool_calls((ECHO, {"text": "hi"}))
    upstream.will(call, text("."), call, text("."), call, text("."))
    run = await client.chat("Say hi")
    await answer(client, await asked(client), "allow", duration="conversation")
    conversation_id = (await run.finished()).conversation_id

    same = await client.chat("Again", conversation_id=conversation_id)
    assert await results(same) == [("ok", "hi")]

    elsewhere = await client.chat("Say hi")
    await answer(client, await asked(client), "deny")
    assert [status for status, _ in await results(elsewhere)] == ["denied"]


async def test_an_answer_for_a_server_covers_its_other_tools_and_those_already_asked_for(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "hi"}), ("plain__structured", {})), text("Both ran."))
    run = await client.chat("Use two tools")
    first = await asked(client)
    await asked(client)

    await answer(client, first, "allow", duration="conversation", scope="server")

    assert [status for status, _ in await results(run)] == ["ok", "ok"]


async def test_remembered_answers_can_be_listed_and_revoked(
    client: Client, upstream: FakeOpenAI
) -> None:
    call = tool_calls((ECHO, {"text": "hi"}))
    upstream.will(call, text("."), call, text("."))
    run = await client.chat("Say hi")
    await answer(client, await asked(client), "deny", duration="always")
    await run.finished()

    [rule] = (await client.request(ApprovalsRulesList)).items
    assert (rule.decision, rule.server, rule.name) == ("deny", "plain", "echo")
    deleted = await client.request(ApprovalsRulesDelete, RulesDeletePayload(rule_id=rule.rule_id))
    assert deleted.deleted == 1

    again = await client.chat("Say hi")
    await answer(client, await asked(client), "allow")
    assert await results(again) == [("ok", "hi")]


async def test_arguments_can_be_changed_by_whoever_allows_the_call(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "rm -rf"})), text("."))
    run = await client.chat("Say it")

    await answer(client, await asked(client), "allow", arguments={"text": "ls"})

    assert await results(run) == [("ok", "ls")]
    [chunk] = [chunk async for chunk in run if isinstance(chunk, ToolResultChunk)]
    assert chunk.metadata.arguments_used == {"text": "ls"}


async def test_changed_arguments_go_with_allowing_once_only(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("."))
    run = await client.chat("Say it")
    approval = await asked(client)

    with pytest.raises(ServerError) as caught:
        await answer(client, approval, "allow", duration="always", arguments={"text": "ls"})
    assert caught.value.code == "bad_request"

    assert await answer(client, approval, "deny")
    assert [status for status, _ in await results(run)] == ["denied"]


async def test_cancelling_the_turn_takes_the_question_back(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("."))
    run = await client.chat("Say hi")
    approval = await asked(client)

    await client.cancel(run)

    assert (await run.finished()).finish_reason == "cancelled"
    resolved = (await client.event(ApprovalsResolved)).data
    assert (resolved.approval_id, resolved.by) == (approval.approval_id, "cancel")
    assert not await answer(client, approval, "allow")


async def test_a_window_that_reloads_finds_the_open_question(
    app: App, client: Client, join: Join, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "hi"})), text("."))
    run = await client.chat("Say hi")
    approval = await asked(client)

    reloaded = await join(app, answers=["approvals"])

    assert reloaded.hello is not None
    assert reloaded.hello.pending.approvals == (approval,)
    assert await answer(reloaded, approval, "allow")
    assert await results(run) == [("ok", "hi")]


async def test_parallel_calls_of_one_step_run_side_by_side(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "1"}), (ECHO, {"text": "2"})), text("."))
    run = await client.chat("Say both")
    first, second = await asked(client), await asked(client)

    await answer(client, second, "allow")
    await answer(client, first, "allow")

    assert sorted(await results(run)) == [("ok", "1"), ("ok", "2")]
    assert told_model(upstream, 1) == ["1", "2"]  # in the order of the calls, for the vendor


async def test_one_call_can_be_stopped_and_the_turn_goes_on(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls(("plain__hang", {})), text("It took too long."))
    run = await client.chat("Wait")
    approval = await asked(client)
    await answer(client, approval, "allow")

    cancel = {"run_id": run.run_id, "tool_call_id": approval.tool_call_id}
    result = await client.request(Cancel, CancelPayload.model_validate(cancel))

    assert result.cancelled
    assert [status for status, _ in await results(run)] == ["cancelled"]
    assert run.text == "It took too long."


async def test_with_tools_off_the_model_is_offered_none(
    client: Client, upstream: FakeOpenAI
) -> None:
    await (await client.chat("Hi", tools={"mode": "off"})).finished()

    assert "tools" not in upstream.bodies[0]


async def test_a_turn_can_be_kept_to_some_servers_and_tools(
    client: Client, upstream: FakeOpenAI
) -> None:
    await (await client.chat("Hi", tools={"deny": ["plain/echo"]})).finished()
    await (await client.chat("Hi", tools={"servers": ["other"]})).finished()

    offered = [tool["function"]["name"] for tool in upstream.bodies[0]["tools"]]
    assert ECHO not in offered
    assert "plain__structured" in offered
    assert "tools" not in upstream.bodies[1]


async def test_a_tool_that_there_is_not_is_an_error_that_the_model_reads(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls(("made__up", {"x": 1})), text("Sorry."))
    run = await client.chat("Do it")

    [(status, told)] = await results(run)
    assert status == "error"
    assert "made__up" in told
    [call] = [chunk async for chunk in run if isinstance(chunk, ToolCallChunk)]
    assert (call.metadata.server, call.metadata.name) == (None, "made__up")
    assert run.text == "Sorry."


async def test_arguments_that_are_no_json_are_an_error_that_the_model_reads(
    client: Client, upstream: FakeOpenAI
) -> None:
    broken = [{"index": 0, "id": "c", "function": {"name": ECHO, "arguments": '{"text": '}}]
    upstream.will(Answer([chunk(tool_calls=broken), ending("tool_calls")]), text("Sorry."))
    run = await client.chat("Do it")

    assert [status for status, _ in await results(run)] == ["error"]
    assert run.text == "Sorry."


async def test_a_model_that_never_stops_calling_is_stopped_after_the_last_step(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    settings = ("chat: {model: fake/test, max_steps: 3}", PLAIN_SERVER)
    client = await join(await start(*settings))
    upstream.will(tool_calls((ECHO, {"text": "again"})))
    run = await client.chat("Go on for ever")

    assert (await run.finished()).finish_reason == "step_limit"
    assert len(upstream.requests) == 3
    ids = [chunk.metadata.tool_call_id async for chunk in run if isinstance(chunk, ToolCallChunk)]
    assert len(set(ids)) == 3


async def test_a_tool_can_be_called_without_a_model_with_the_same_consent(
    client: Client, upstream: FakeOpenAI
) -> None:
    async with asyncio.TaskGroup() as group:
        payload = ToolsCallPayload(server="plain", name="echo", arguments={"text": "hi"})
        await ready(client)
        calling = group.create_task(client.request(McpToolsCall, payload))
        approval = await asked(client)
        await answer(client, approval, "allow")

    assert approval.run_id is None
    assert (calling.result().status, calling.result().text) == ("ok", "hi")


async def test_the_list_of_tools_says_what_each_would_need(client: Client) -> None:
    await ready(client)
    listing = await client.request(McpToolsList)

    echo = next(tool for tool in listing.items if tool.name == "echo")
    assert (echo.server, echo.offered_as, echo.permission) == ("plain", ECHO, "ask")


async def test_hidden_characters_of_a_call_are_shown_escaped_to_who_decides(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls((ECHO, {"text": "a\u202eb\u001b[2J"})), text("."))
    run = await client.chat("Say it")
    approval = await asked(client)

    assert approval.arguments == {"text": "a\\u202eb\\u001b[2J"}
    await answer(client, approval, "deny")
    await run.finished()


async def test_an_argument_cut_for_the_question_says_that_it_is(
    client: Client, upstream: FakeOpenAI
) -> None:
    command = "echo ok" + " " * 9000 + "; rm -rf ~"
    upstream.will(tool_calls((ECHO, {"text": command})), text("."))
    run = await client.chat("Say it")

    approval = await asked(client)

    assert approval.arguments_truncated
    await answer(client, approval, "deny")
    await run.finished()


async def test_large_open_questions_do_not_keep_a_window_from_connecting(
    app: App, client: Client, join: Join, upstream: FakeOpenAI
) -> None:
    large = {f"k{n}": "x" * 7000 for n in range(8)}
    upstream.will(tool_calls(*[(ECHO, large)] * 12), text("."))
    run = await client.chat("Say a lot")
    for _ in range(12):
        await asked(client)

    window = await join(app, answers=["approvals"])

    assert window.hello is not None
    pending = window.hello.pending.approvals
    assert len(pending) == 12
    assert pending[0].arguments == large
    assert pending[-1].arguments_truncated
    await client.cancel(run)
    await run.finished()


async def test_an_answer_that_cannot_be_written_down_holds_until_the_end_and_says_so(
    client: Client, upstream: FakeOpenAI, tmp_path: Path
) -> None:
    call = (ECHO, {"text": "hi"})
    upstream.will(tool_calls(call, call), text("."))
    run = await client.chat("Say it twice")
    first = await asked(client)
    await asked(client)
    (tmp_path / "data").rename(tmp_path / "elsewhere")

    with pytest.raises(ServerError) as caught:
        await answer(client, first, "allow", duration="always")

    assert caught.value.code == "storage_locked"
    assert [status for status, _ in await results(run)] == ["ok", "ok"]

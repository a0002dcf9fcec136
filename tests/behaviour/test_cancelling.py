"""Stopping a turn keeps what was shown and leaves a history that a vendor accepts."""

import asyncio

import pytest

from sidecar.client import Client, ServerError
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from tests.behaviour.conftest import PLAIN_SERVER, Join, Start
from tests.support.fake_openai import (
    HANG,
    Answer,
    FakeOpenAI,
    text,
    tool_calls,
    unfinished_text,
)


async def test_cancelling_a_turn_keeps_the_text_already_shown(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished_text("Once upon ", then=HANG), text("Fine."))
    run = await client.chat("tell me a story")
    await run.text_so_far("Once upon ")

    assert await client.cancel(run)

    outcome = await run.finished()
    assert outcome.finish_reason == "cancelled"
    await (await client.chat("thanks", conversation_id=outcome.conversation_id)).finished()
    said = [message["content"] for message in upstream.bodies[1]["messages"][1:]]
    assert said == ["tell me a story", "Once upon ", "thanks"]


async def test_cancelling_closes_the_vendors_stream_at_once(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))
    run = await client.chat("tell me a story")
    await run.text_so_far("Once ")

    await client.cancel(run)

    async with asyncio.timeout(5):
        await upstream.hung_up.wait()


async def test_a_turn_can_be_cancelled_before_the_vendor_says_anything(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(Answer([HANG]))
    run = await client.chat("hello?")
    await run.started()

    assert await client.cancel(run)

    assert (await run.finished()).finish_reason == "cancelled"


async def test_a_call_cut_by_a_cancel_is_answered_in_the_history(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start(PLAIN_SERVER), answers=["approvals"])
    upstream.will(tool_calls(("plain__hang", {}), ("plain__echo", {"text": "hi"})), text("Fine."))
    run = await client.chat("wait")
    for _ in range(2):
        approval = (await client.event(ApprovalsPending)).data
        allow = ApprovalsResolvePayload(approval_id=approval.approval_id, decision="allow")
        await client.request(ApprovalsResolve, allow)
    async for shown in run:
        if shown.type == "tool_result":
            break

    await client.cancel(run)

    outcome = await run.finished()
    assert outcome.finish_reason == "cancelled"
    statuses = sorted([shown.metadata.status async for shown in run if shown.type == "tool_result"])
    assert statuses == ["cancelled", "ok"]
    await (await client.chat("never mind", conversation_id=outcome.conversation_id)).finished()
    roles = [message["role"] for message in upstream.bodies[1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]


async def test_cancelling_what_has_ended_says_so(client: Client, upstream: FakeOpenAI) -> None:
    run = await client.chat("hi")
    await run.finished()

    assert not await client.cancel(run)


async def test_a_second_turn_in_a_busy_conversation_is_refused(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))
    run = await client.chat("tell me a story")
    conversation_id = (await run.started()).conversation_id

    second = await client.chat("quick", conversation_id=conversation_id)

    with pytest.raises(ServerError) as caught:
        await second.finished()
    assert caught.value.code == "busy"
    assert await client.cancel(run)

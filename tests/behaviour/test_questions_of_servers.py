"""An MCP server asks a person something in the middle of a call, as clients see it."""

import asyncio
import json
from typing import Any

import pytest

from sidecar.app import App
from sidecar.client import Client, ServerError
from sidecar.messages import JsonObject
from sidecar.protocol.elicitations import (
    Elicitation,
    ElicitationsPending,
    ElicitationsResolve,
    ElicitationsResolved,
    ElicitationsResolvePayload,
)
from sidecar.protocol.mcp import McpToolsCall, ToolsCallPayload, ToolsCallResult
from tests.behaviour.conftest import PLAIN_SERVER, Join, Start
from tests.support.fake_openai import FakeOpenAI, text, tool_calls

ALLOWED = PLAIN_SERVER.replace("args:", "allow: [ask], args:")
FORM: JsonObject = {
    "message": "Who are you?\u202e",
    "requestedSchema": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 2},
            "age": {"type": "integer", "default": 36},
        },
        "required": ["name"],
    },
}


@pytest.fixture
async def app(start: Start) -> App:
    return await ready(await start(ALLOWED))


async def ready(app: App) -> App:
    async with asyncio.timeout(10):
        await app.host.settled()
    return app


@pytest.fixture
async def client(app: App, join: Join) -> Client:
    return await join(app, answers=["elicitations"])


async def call(client: Client, arguments: JsonObject = FORM) -> asyncio.Task[ToolsCallResult]:
    payload = ToolsCallPayload(server="plain", name="ask", arguments=arguments)
    return asyncio.create_task(client.request(McpToolsCall, payload))


async def asked(client: Client) -> Elicitation:
    async with asyncio.timeout(10):
        return (await client.event(ElicitationsPending)).data


async def answer(client: Client, elicitation: Elicitation, action: str, **fields: Any) -> Any:
    given = {"elicitation_id": elicitation.elicitation_id, "action": action, **fields}
    payload = ElicitationsResolvePayload.model_validate(given)
    return await client.request(ElicitationsResolve, payload)


def told(result: ToolsCallResult) -> Any:
    """What the server was told."""
    return json.loads(result.text)


async def test_a_form_is_shown_filled_in_and_given_to_the_server(client: Client) -> None:
    calling = await call(client)
    form = await asked(client)
    assert (form.server, form.mode, form.message) == ("plain", "form", "Who are you?\\u202e")
    assert form.requested_schema == FORM["requestedSchema"]

    result = await answer(client, form, "accept", content={"name": "Ada"})

    assert (result.applied, result.action) == (True, "accept")
    content = {"name": "Ada", "age": 36}  # what was left out has its default
    assert told(await calling) == {"action": "accept", "content": content}
    resolved = (await client.event(ElicitationsResolved)).data
    assert (resolved.action, resolved.elicitation_id) == ("accept", form.elicitation_id)


async def test_the_form_s_name_on_the_wire_is_schema(app: App, join: Join) -> None:
    frames: list[JsonObject] = []
    client = await join(app, answers=["elicitations"], on_frame=frames.append)
    calling = await call(client)
    form = await asked(client)
    await answer(client, form, "cancel")
    await calling

    [event] = [frame["event"] for frame in frames if frame["status"] == "event"][:1]
    assert isinstance(event, dict) and isinstance(event["data"], dict)
    assert event["data"]["schema"] == FORM["requestedSchema"]
    assert "url" not in event["data"]


async def test_what_does_not_fit_is_refused_and_the_question_stays(client: Client) -> None:
    calling = await call(client)
    form = await asked(client)

    with pytest.raises(ServerError, match=r"content\.name: 'A' is too short") as refused:
        await answer(client, form, "accept", content={"name": "A"})
    assert refused.value.code == "bad_request"
    with pytest.raises(ServerError, match="'name' is a required property"):
        await answer(client, form, "accept")
    with pytest.raises(ServerError, match="accepting a form only"):
        await answer(client, form, "decline", content={"name": "Ada"})

    await answer(client, form, "decline")
    assert told(await calling) == {"action": "decline"}


async def test_the_first_answer_wins_and_a_late_one_reads_it(
    app: App, client: Client, join: Join
) -> None:
    other = await join(app, answers=["elicitations"])
    calling = await call(client)
    form = await asked(client)
    assert (await asked(other)) == form

    await answer(other, form, "decline")
    late = await answer(client, form, "accept", content={"name": "Ada"})

    assert (late.applied, late.action) == (False, "decline")
    assert told(await calling) == {"action": "decline"}


async def test_a_new_window_is_told_what_waits(app: App, client: Client, join: Join) -> None:
    calling = await call(client)
    form = await asked(client)

    other = await join(app, answers=["elicitations"])

    assert other.hello is not None
    assert other.hello.pending.elicitations == (form,)
    await answer(other, form, "cancel")
    assert told(await calling) == {"action": "cancel"}


async def test_where_nobody_can_answer_it_is_dismissed_at_once(app: App, join: Join) -> None:
    client = await join(app, answers=["approvals"])

    assert told(await (await call(client))) == {"action": "cancel"}


async def test_an_unanswered_question_is_dismissed_in_time(start: Start, join: Join) -> None:
    mcp = ALLOWED.replace("mcp: {", "mcp: {approval_timeout_s: 0.2, ")
    client = await join(await ready(await start(mcp)), answers=["elicitations"])

    calling = await call(client)

    await asked(client)
    assert (await client.event(ElicitationsResolved)).data.by == "timeout"
    assert told(await calling) == {"action": "cancel"}


async def test_a_cancelled_turn_takes_its_question_back(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(tool_calls(("plain__ask", FORM)), text("Done."))
    run = await client.chat("ask me")
    await asked(client)

    await client.cancel(run)

    assert (await client.event(ElicitationsResolved)).data.action == "cancel"
    assert (await run.finished()).finish_reason == "cancelled"


async def test_an_address_is_for_the_client_to_open(client: Client) -> None:
    url = "https://example.com/sign?id=1"
    arguments: JsonObject = {"mode": "url", "message": "Sign.", "url": url, "elicitationId": "1"}
    calling = await call(client, arguments)
    link = await asked(client)
    assert (link.mode, link.url, link.requested_schema) == ("url", url, None)

    await answer(client, link, "accept")

    assert told(await calling) == {"action": "accept"}


async def test_an_answer_to_nothing_is_not_found(client: Client) -> None:
    payload = ElicitationsResolvePayload(elicitation_id="none", action="accept")

    with pytest.raises(ServerError) as failed:
        await client.request(ElicitationsResolve, payload)

    assert failed.value.code == "not_found"


async def test_nobody_answers_what_is_never_asked(app: App, join: Join) -> None:
    with pytest.raises(ServerError, match="there are: approvals, elicitations") as refused:
        await join(app, answers=["aproval"])

    assert refused.value.code == "bad_request"

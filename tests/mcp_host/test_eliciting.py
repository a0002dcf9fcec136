"""Servers that ask a person something, in both ways that MCP has for it."""

import asyncio
import json
from typing import Any

import pytest

from sidecar.mcp_host.asking import Question, Reply
from sidecar.mcp_host.eliciting import form_problem, url_problem
from tests.support.bridge import TRANSPORTS, modern_over_http, served
from tests.support.hosts import WatchedHost, modern, plain, running

FORM: dict[str, Any] = {
    "message": "Your name?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}


def with_answer(host: WatchedHost, reply: Reply) -> None:
    async def answer(question: Question) -> Reply:
        return reply

    host.answer = answer


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_a_person_filled_in_goes_back_to_the_server(transport: str) -> None:
    async with served(transport) as config, running(s=config) as host:
        await host.state("ready")
        with_answer(host, Reply("accept", {"name": "Ada"}))

        result = await host.call("ask", **FORM)

    assert json.loads(result.text) == {"action": "accept", "content": {"name": "Ada"}}
    [question] = host.questions
    assert (question.server, question.message) == ("s", "Your name?")
    assert question.schema == FORM["requestedSchema"]


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_modern_server_asks_by_its_result_and_is_called_again(transport: str) -> None:
    async with modern_over_http("asking") as url:
        config = url if transport == "http" else modern("asking")
        async with running(s=config) as host:
            await host.state("ready")
            with_answer(host, Reply("accept", {"count": 2, "window": False}))
            booked = await host.call("book", town="Oslo")
            with_answer(host, Reply("decline"))
            declined = await host.call("book", town="Oslo")

            assert host.status().era == "2026-07-28"

    assert booked.text == "accept: count=2 window=False"
    assert declined.text == "decline: None"
    assert host.questions[0].message == "How many seats to Oslo\\u202e?"
    fields = (host.questions[0].schema or {})["properties"]
    assert isinstance(fields, dict)
    assert list(fields) == ["count", "window"]


async def test_nobody_is_asked_for_what_could_deceive() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        nested = {"a": {"type": "object", "properties": {}}}
        form = {"message": "m", "requestedSchema": {"type": "object", "properties": nested}}
        link = {"mode": "url", "message": "m", "url": "http://example.com/", "elicitationId": "1"}

        answers = [await host.call("ask", **asked) for asked in (form, link)]

    assert [json.loads(answer.text) for answer in answers] == [{"action": "decline"}] * 2
    assert host.questions == []


async def test_an_address_is_asked_about_and_not_opened() -> None:
    async with running(s=plain()) as host:
        await host.state("ready")
        with_answer(host, Reply("accept"))
        url = "https://example.com/sign?id=1"

        result = await host.call("ask", mode="url", message="Sign", url=url, elicitationId="1")

    assert json.loads(result.text) == {"action": "accept"}
    assert host.questions == [Question("s", "Sign", url=url)]


async def test_a_question_is_taken_back_when_its_call_is_cancelled() -> None:
    taken_back = asyncio.Event()

    async def wait(question: Question) -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            taken_back.set()
        raise AssertionError

    async with running(s=plain()) as host:
        await host.state("ready")
        host.answer = wait
        call = asyncio.create_task(host.call("ask", **FORM))
        await host.said("asking")
        await host.until(lambda: len(host.questions) > 0)

        call.cancel()

        async with asyncio.timeout(5):
            await taken_back.wait()
        assert host.status().state == "ready"


async def test_the_clock_of_a_call_stands_still_while_a_person_thinks() -> None:
    meanwhile: list[str] = []

    async def think(question: Question) -> Reply:
        """Longer than a call may take: another server's takes all of that time."""
        other = await host.call("hang", server="other")
        meanwhile.append(other.status)
        return Reply("accept", {"name": "Ada"})

    impatient = plain(call_timeout_s=0.3)
    async with running(s=impatient, other=impatient) as host:
        await host.state("ready")
        await host.state("ready", server="other")
        host.answer = think

        result = await host.call("ask", **FORM)

    assert meanwhile == ["timeout"]
    assert result.status == "ok"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://localhost:8000/",
        "https://me:pw@example.com/",
        "https:///path",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://example.com/" + "x" * 2048,
        "https://example.com/\u202egnp",
    ],
)
def test_addresses_that_nobody_should_open(url: str) -> None:
    assert url_problem(url) is not None


@pytest.mark.parametrize(
    "url", ["https://example.com/a?b=c", "http://127.0.0.1:8000/", "http://[::1]:1/"]
)
def test_addresses_that_a_person_may_open(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object"}}}},
        {"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(101)}},
        {"type": "object", "properties": {"a": {"type": "string", "title": "x" * 70_000}}},
    ],
)
def test_forms_that_are_more_than_forms(schema: Any) -> None:
    assert form_problem(schema) is not None


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "format": "email"},
        {"type": "string", "oneOf": [{"const": "a", "title": "A"}]},
        {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        {"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}},
    ],
)
def test_forms_with_choices(field: Any) -> None:
    assert form_problem({"type": "object", "properties": {"a": field}}) is None

"""Anthropic over HTTP: what it is sent, how a turn goes on, what its errors mean."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from sidecar import errors
from sidecar.config import ProviderKind
from sidecar.errors import ProviderError
from sidecar.messages import (
    JsonObject,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    VendorContent,
)
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelRequest,
    Params,
    Provider,
    Retrying,
    TextDelta,
    ToolCall,
    UsageReport,
    Verbatim,
)
from sidecar.providers.failures import Vendor
from tests.providers.conftest import Open, asking, message, user
from tests.providers.test_messages_request import check_published
from tests.support.anthropic_stream import answer, block, called, said, start, thought, wire
from tests.support.fake_openai import HANG, Answer, FakeOpenAI, stream

MODEL = "claude-sonnet-4-5"
KEY = "sk-ant-test-0123456789"


@pytest.fixture
def kind() -> ProviderKind:
    return "anthropic"


def refusal(status: int, error: dict[str, Any], **headers: str) -> Answer:
    body = json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()
    return Answer([body], status, headers, "application/json")


async def all_of(events: AsyncGenerator[ModelEvent, None]) -> list[ModelEvent]:
    async with asyncio.timeout(10), aclosing(events):
        return [event async for event in events]


async def failure(provider: Provider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await all_of(provider.stream(asking(model=MODEL)))
    return caught.value


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_in_v1_or_not(
    end: str, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(stream(answer(*said("Hi"))))
    provider = open_it(base_url=upstream.url.removesuffix("/v1") + end, key=KEY)

    await all_of(provider.stream(asking(model=MODEL)))
    await provider.models()

    assert [(request.path, request.query) for request in upstream.requests] == [
        ("/v1/messages", ""),
        ("/v1/models", "limit=1000"),
    ]


async def test_the_key_goes_into_the_vendors_own_header(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(stream(answer(*said("Hi"))))

    await all_of(open_it(key=KEY).stream(asking(model=MODEL)))

    (request,) = upstream.requests
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in request.headers


async def test_the_settings_may_name_another_version_and_another_login(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(stream(answer(*said("Hi"))))
    headers = {"Anthropic-Version": "2026-10-21", "Authorization": "Bearer of-a-proxy"}

    await all_of(open_it(key=None, headers=headers).stream(asking(model=MODEL)))

    (request,) = upstream.requests
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert request.headers["authorization"] == "Bearer of-a-proxy"
    assert "x-api-key" not in request.headers


async def test_a_missing_key_is_said_with_where_it_usually_is(open_it: Open) -> None:
    error = await failure(open_it(key=None))

    assert isinstance(error, errors.KeyMissing)
    assert "ANTHROPIC_API_KEY" in str(error)


async def test_a_tool_loop_carries_thinking_and_its_signature_back(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    first = answer(
        *thought("Two places.", "c2ln"),
        *said("Let me look.", index=1),
        *called("toolu_1", "s_f", '{"city": "Oslo"}', index=2),
        *called("toolu_2", "s_f", index=3),
        stop="tool_use",
    )
    upstream.will(stream(first), stream(answer(*said("Cold."))))
    provider = open_it(key=KEY)
    params = Params(reasoning_effort="low")
    question = user("How is the weather?")

    step = await all_of(provider.stream(ModelRequest(MODEL, [question], params=params)))
    (own,) = (event for event in step if isinstance(event, Verbatim))
    calls = [event for event in step if isinstance(event, ToolCall)]
    parts: list[Part] = [
        TextPart(text="Let me look."),
        *map(call_part, calls),
        *map(result_part, calls),
    ]
    content = VendorContent("acme", MODEL, own.format, 0, 3, own.content)
    said_so_far = message("assistant", *parts).model_copy(update={"vendor_content": (content,)})
    history = [question, said_so_far]
    last = await all_of(provider.stream(ModelRequest(MODEL, history, params=params)))

    body = upstream.bodies[1]
    check_published(body)
    assert body["messages"][1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Two places.", "signature": "c2ln"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "toolu_1", "name": "s_f", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "toolu_2", "name": "s_f", "input": {}},
        ],
    }
    assert [
        (result["type"], result["tool_use_id"], result["content"])
        for result in body["messages"][2]["content"]
    ] == [
        ("tool_result", "toolu_1", "result of toolu_1"),
        ("tool_result", "toolu_2", "result of toolu_2"),
    ]
    assert last[-1] == Finished("stop", "end_turn")


def call_part(call: ToolCall) -> ToolCallPart:
    return ToolCallPart(
        tool_call_id=call.call_id,
        server="s",
        name="f",
        offered_as=call.name,
        arguments=call.arguments or {},
    )


def result_part(call: ToolCall) -> ToolResultPart:
    text = f"result of {call.call_id}"
    return ToolResultPart(tool_call_id=call.call_id, status="ok", text=text, duration_ms=1)


async def test_a_paused_turn_is_asked_to_go_on_and_is_one_answer(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    search = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}
    upstream.will(
        stream(answer(*said("Let me see."), *block(search, index=1), stop="pause_turn")),
        stream(answer(*block(found), *said(" So it is.", index=1), message_id="msg_2")),
    )

    events = await all_of(open_it(key=KEY).stream(asking(model=MODEL)))

    first, second = upstream.bodies
    check_published(second)
    assert second["messages"][:-1] == first["messages"]
    assert second["messages"][-1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "Let me see."}, search],
    }
    assert [event.text for event in events if isinstance(event, TextDelta)] == [
        "Let me see.",
        " So it is.",
    ]
    assert [event for event in events if isinstance(event, UsageReport)] == [
        UsageReport(Usage(input=20, output=10))
    ]
    assert [event for event in events if isinstance(event, Finished)] == [events[-1]]


async def test_a_parameter_that_a_model_refuses_is_left_out_from_then_on(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    words = "`temperature` is deprecated for this model."
    upstream.will(
        refusal(400, {"type": "invalid_request_error", "message": words}),
        stream(answer(*said("Hi"))),
    )
    provider = open_it(key=KEY)
    request = ModelRequest(MODEL, [user("Hi")], params=Params(temperature=0.5))

    await all_of(provider.stream(request))
    await all_of(provider.stream(request))

    assert ["temperature" in body for body in upstream.bodies] == [True, False, False]


async def test_overload_that_is_the_first_thing_in_the_stream_is_tried_again(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.will(stream(wire(overloaded)), stream(answer(*said("Hi"))))

    events = await all_of(open_it(key=KEY, max_retries=1).stream(asking(model=MODEL)))

    assert isinstance(events[0], Retrying)
    assert isinstance(events[0].error, errors.ProviderOverloaded)
    assert events[1] == TextDelta("Hi")


async def test_overload_after_the_first_words_is_not_tried_again(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.will(stream(wire(start(), *said("Hi"), overloaded)))

    error = await failure(open_it(key=KEY, max_retries=1))

    assert isinstance(error, errors.ProviderOverloaded)
    assert len(upstream.requests) == 1


async def test_closing_the_stream_closes_the_connection(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(stream(wire(start(), *said("Once upon")), HANG))
    events = open_it(key=KEY).stream(asking(model=MODEL))

    assert await anext(events) == TextDelta("Once upon")
    await events.aclose()

    async with asyncio.timeout(5):
        await upstream.hung_up.wait()


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, ("invalid_request_error", "messages: field required"), ProviderError),
        (
            400,
            ("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
            errors.ContextTooLong,
        ),
        (
            400,
            (
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 188240 + 64000 > 200000",
            ),
            errors.ContextTooLong,
        ),
        (
            400,
            (
                "invalid_request_error",
                "Your credit balance is too low to access the Anthropic API. Please go to Plans "
                "& Billing to upgrade or purchase credits.",
            ),
            errors.QuotaExhausted,
        ),
        (
            400,
            (
                "invalid_request_error",
                "You have reached your specified API usage limits. You will regain access on "
                "2026-12-01 at 00:00 UTC.",
            ),
            errors.QuotaExhausted,
        ),
        (401, ("authentication_error", "invalid x-api-key"), errors.KeyRejected),
        (402, ("billing_error", "Your payment failed"), errors.QuotaExhausted),
        (403, ("permission_error", "Your API key has no permission"), errors.KeyRejected),
        (404, ("not_found_error", "model: claude-sonet-4-5"), errors.ModelNotFound),
        (413, ("request_too_large", "Request exceeds the maximum size"), errors.ContextTooLong),
        (429, ("rate_limit_error", "This would exceed the rate limit"), errors.RateLimited),
        (500, ("api_error", "Internal server error"), errors.ProviderFailed),
        (504, ("timeout_error", "Request timed out"), errors.ProviderFailed),
        (529, ("overloaded_error", "Overloaded"), errors.ProviderOverloaded),
    ],
)
def test_every_documented_error_has_its_class_with_a_status_and_inside_a_stream(
    status: int, error: tuple[str, str], kind: type[ProviderError]
) -> None:
    code, words = error
    told: JsonObject = {"type": code, "message": words}
    vendor = Vendor("acme", "http://acme/v1", KEY, MODEL)

    refused = vendor.refused(status, {}, json.dumps({"type": "error", "error": told}).encode())
    reported = vendor.reported(told)

    assert (type(refused), type(reported)) == (kind, kind)
    assert refused.http_status == status
    assert words[:40] in str(refused)
    assert words[:40] in str(reported)


async def test_a_rate_limit_says_how_long_to_wait(upstream: FakeOpenAI, open_it: Open) -> None:
    error = {"type": "rate_limit_error", "message": "Slow down"}
    upstream.will(refusal(429, error, **{"retry-after": "41"}))

    limited = await failure(open_it(key=KEY))

    assert isinstance(limited, errors.RateLimited)
    assert limited.retry_after_s == 41


def test_anthropic_is_asked_without_its_sdk() -> None:
    program = """
import asyncio, sys
from sidecar.config import NetworkConfig, ProviderConfig, TimeoutsConfig
from sidecar.providers import open_provider
from sidecar.providers.http import Http
from tests.providers.conftest import asking, nothing
from tests.support.anthropic_stream import answer, said
from tests.support.fake_openai import FakeOpenAI, stream

async def main():
    async def key(): return "sk-ant-x"
    http = Http(NetworkConfig(proxy=None, ca_bundle=None, trust_os_store=True))
    timeouts = TimeoutsConfig(connect_s=5, first_byte_s=5, silence_s=5, total_s=None)
    async with FakeOpenAI() as upstream:
        upstream.will(stream(answer(*said("Hi"))))
        section = ProviderConfig(kind="anthropic", base_url=upstream.url)
        provider = open_provider(
            "a", section, http=http, key=key, timeouts=timeouts, max_retries=0, find_local=nothing
        )
        print([type(event).__name__ async for event in provider.stream(asking())])
        await http.close()

asyncio.run(main())
print(sorted({"anthropic", "openai", "httpx2"} & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    events, imported = run.stdout.splitlines()
    assert events == "['TextDelta', 'UsageReport', 'Finished']"
    assert imported == "[]"

"""A provider over HTTP: what it sends, how long it waits, when it asks again, what it says."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import structlog.testing

from sidecar import errors
from sidecar.config import ProviderConfig, ProviderKind, TimeoutsConfig
from sidecar.errors import ProviderError
from sidecar.providers import endpoint, open_provider
from sidecar.providers import http as http_module
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelRequest,
    Notice,
    Params,
    Provider,
    Retrying,
    TextDelta,
    ToolCall,
    UsageReport,
)
from sidecar.providers.http import Http
from tests.providers.conftest import CHAT, PATIENT, STREAMS, Open, asking, nothing, user
from tests.support.fake_openai import (
    CUT,
    HANG,
    Answer,
    FakeOpenAI,
    Fault,
    chunk,
    ending,
    status,
    stream,
    text,
    tool_calls,
    unfinished_text,
)

KEY = "sk-test-0123456789"


async def all_of(events: AsyncGenerator[ModelEvent, None]) -> list[ModelEvent]:
    async with asyncio.timeout(10), aclosing(events):
        return [event async for event in events]


async def said(provider: Provider) -> str:
    events = await all_of(provider.stream(asking()))
    assert isinstance(events[-1], Finished)
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def failure(provider: Provider, request: ModelRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await all_of(provider.stream(request or asking()))
    return caught.value


def impatient(**limits: float) -> TimeoutsConfig:
    return PATIENT.model_copy(update=limits)


async def test_a_request_carries_the_key_and_the_headers_of_the_settings(
    upstream: FakeOpenAI, open_it: Open, kind: ProviderKind
) -> None:
    provider = open_it(headers={"X-Team": "blue"})
    params = Params(max_tokens=5)

    await all_of(provider.stream(ModelRequest("gpt-4o-mini", [user("Hi")], params=params)))

    (request,) = upstream.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-team"] == "blue"
    limit = "max_completion_tokens" if kind == "openai" else "max_tokens"
    assert request.body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        limit: 5,
    }


async def test_openai_variables_of_the_environment_change_nothing(
    upstream: FakeOpenAI, open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Spy: of-the-environment")

    assert await said(open_it()) == "Hello."

    assert "of-the-environment" not in repr(upstream.requests)


async def test_answers_follow_each_other_on_one_connection(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    provider = open_it()

    for _ in range(3):
        await said(provider)

    assert len(upstream.connections) == 1


async def test_parallel_tool_calls_arrive_whole(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.will(tool_calls(("a", {"x": 1}), ("b", {})))

    events = await all_of(open_it().stream(asking()))

    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [(call.name, call.arguments) for call in calls] == [("a", {"x": 1}), ("b", {})]
    assert events[-1] == Finished("tool_calls", "tool_calls")


@pytest.mark.parametrize("name", ["text", "tool_call", "reasoning", "noise"])
async def test_our_own_streams_arrive_byte_by_byte(
    name: str, upstream: FakeOpenAI, open_it: Open
) -> None:
    body = (STREAMS / f"{name}.sse").read_bytes()
    upstream.will(stream(body), stream(body, cut_at=range(1, len(body))))
    provider = open_it()

    assert await all_of(provider.stream(asking())) == await all_of(provider.stream(asking()))


async def test_cancelling_the_reader_closes_the_connection_at_once(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(unfinished_text("Once ", "upon ", then=HANG))
    events = open_it().stream(asking())
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(events):
            async for _ in events:
                begun.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        await begun.wait()
        reading.cancel()
        async with asyncio.timeout(1):
            await upstream.hung_up.wait()


async def test_closing_the_stream_early_closes_the_connection(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))

    async with asyncio.timeout(10):
        async with aclosing(open_it().stream(asking())) as events:
            assert await anext(events) == TextDelta("Once ")
        await upstream.hung_up.wait()


async def test_a_server_that_does_not_close_after_the_end_keeps_nobody_waiting(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(Answer([chunk(content="Hi"), ending("stop"), HANG]))

    assert await said(open_it()) == "Hi"


@pytest.mark.parametrize("fault", [CUT, HANG])
async def test_a_complete_answer_needs_neither_usage_nor_a_tidy_end(
    fault: Fault, upstream: FakeOpenAI, open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "LAST_EVENTS_S", 0.2)
    upstream.will(Answer([chunk(content="Hi"), chunk("stop"), fault]))

    assert await said(open_it(timeouts=impatient(silence_s=60))) == "Hi"


async def test_usage_that_comes_a_moment_after_the_answer_is_waited_for(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    shown, ended = asyncio.Event(), ending("stop", prompt_tokens=7)
    upstream.will(Answer([chunk("stop", content="Hi"), shown, ended]))
    events = open_it().stream(asking())

    async with asyncio.timeout(10):
        first = await anext(events)
        shown.set()
        rest = [event async for event in events]

    assert first == TextDelta("Hi")
    assert isinstance(rest[0], UsageReport) and rest[0].usage.input == 7


async def test_a_refusal_that_never_ends_is_told_from_its_beginning(
    upstream: FakeOpenAI, open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "ERROR_BODY_S", 0.2)
    upstream.will(Answer([b'{"error":{"code":"insufficient_quota","message":"no"}', HANG], 429))

    assert isinstance(await failure(open_it(max_retries=3)), errors.QuotaExhausted)
    assert len(upstream.requests) == 1


async def test_no_more_of_a_refusal_is_read_than_is_shown(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(Answer([b"x" * 2**20] * 64, 500))

    error = await failure(open_it())

    assert isinstance(error, errors.ProviderFailed)
    await asyncio.wait_for(upstream.hung_up.wait(), 5)


async def test_a_name_that_no_resolver_takes_is_a_dns_error(
    open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(*args: object) -> None:
        raise UnicodeError("label empty or too long")

    monkeypatch.setattr(socket, "getaddrinfo", too_long)

    error = await failure(open_it(base_url="http://vendor.example/v1"))

    assert isinstance(error, errors.DnsFailed)


async def test_all_attempts_and_their_pauses_share_one_limit(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(500, "oops", {"retry-after": "0.9"}), Answer([HANG]))
    provider = open_it(timeouts=impatient(total_s=1.0), max_retries=3)
    started = asyncio.get_running_loop().time()

    error = await failure(provider)

    assert str(error) == "acme did not end its answer within 1 s."
    assert asyncio.get_running_loop().time() - started < 1.7, "1.9 with a clock for each attempt"


async def test_a_pause_that_leaves_no_time_for_another_attempt_is_not_begun(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(500, "oops", {"retry-after": "20"}))

    error = await failure(open_it(timeouts=impatient(total_s=5.0), max_retries=3))

    assert isinstance(error, errors.ProviderFailed)
    assert len(upstream.requests) == 1


async def test_a_server_that_cannot_be_reached_in_time_is_given_up(
    open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    forever = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: forever.wait())
    provider = open_it(base_url="http://vendor.example/v1", timeouts=impatient(connect_s=0.1))

    error = await failure(provider)
    forever.set()

    assert isinstance(error, errors.ProviderTimeout)
    assert str(error) == "acme could not be reached within 0.1 s."


async def test_a_server_that_never_answers_is_given_up(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.will(Answer([HANG]))

    error = await failure(open_it(timeouts=impatient(first_byte_s=0.1)))

    assert isinstance(error, errors.ProviderTimeout)
    assert str(error) == "acme did not begin to answer within 0.1 s."
    await asyncio.wait_for(upstream.hung_up.wait(), 5)


async def test_a_server_that_falls_silent_is_given_up(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))

    error = await failure(open_it(timeouts=impatient(silence_s=0.1)))

    assert isinstance(error, errors.ProviderTimeout)
    assert str(error) == "acme said nothing for 0.1 s."


async def test_a_comment_breaks_the_silence(upstream: FakeOpenAI, open_it: Open) -> None:
    gate = asyncio.Event()
    upstream.will(Answer([b": thinking\n\n", gate, chunk(content="Hi"), ending("stop")]))
    events = open_it(timeouts=impatient(first_byte_s=0.5, silence_s=9)).stream(asking())

    async with asyncio.timeout(10):
        waiting = asyncio.ensure_future(anext(events))
        done, _ = await asyncio.wait([waiting], timeout=0.6)
        assert not done, "the first byte was a comment, so its limit is over"
        gate.set()
        assert await waiting == TextDelta("Hi")
        await events.aclose()


async def test_an_answer_that_takes_too_long_as_a_whole_is_given_up(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(unfinished_text("Once ", then=HANG))

    error = await failure(open_it(timeouts=impatient(total_s=0.2)))

    assert str(error) == "acme did not end its answer within 0.2 s."


async def test_a_dropped_connection_is_an_error_after_the_text_that_came(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(unfinished_text("Once ", then=CUT))
    events = open_it(max_retries=3).stream(asking())

    async with asyncio.timeout(10):
        assert await anext(events) == TextDelta("Once ")
        with pytest.raises(errors.NetworkUnreachable, match="broke off"):
            await anext(events)
    assert len(upstream.requests) == 1


async def test_an_answer_that_just_ends_is_an_error(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.will(Answer([chunk(content="Once ")]))

    assert isinstance(await failure(open_it()), errors.ProviderBadResponse)


async def test_a_local_server_that_is_not_running_is_named(
    open_it: Open, unused_tcp_port: int
) -> None:
    error = await failure(open_it(base_url=f"http://127.0.0.1:{unused_tcp_port}/v1", max_retries=3))

    assert isinstance(error, errors.LocalServerDown)
    assert str(error) == f"Nothing answers at http://127.0.0.1:{unused_tcp_port} — is acme running?"


async def test_a_name_that_does_not_exist_is_a_dns_error(
    open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*args: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)

    error = await failure(open_it(base_url="http://no-such-host.invalid/v1"))

    assert isinstance(error, errors.DnsFailed)
    assert "no-such-host.invalid" in str(error)


REFUSALS: list[tuple[Answer, type[ProviderError], str]] = [
    (status(401, "Bad key"), errors.KeyRejected, "`sidecar keys set acme`: Bad key"),
    (status(403, "No"), errors.KeyRejected, "refused the API key"),
    (status(402, "Pay"), errors.QuotaExhausted, "no quota or credit left: Pay"),
    (status(429, "x", code="insufficient_quota"), errors.QuotaExhausted, "no quota"),
    (status(429, "x", type="exceeded_current_quota_error"), errors.QuotaExhausted, "no quota"),
    (status(404, "m", code="model_not_found"), errors.ModelNotFound, "has no model gpt-4o-mini"),
    (status(400, "m", code="model_not_found"), errors.ModelNotFound, "has no model"),
    (Answer([b"404 page not found"], 404), ProviderError, "is `base_url` complete?"),
    (status(408, "late"), errors.ProviderFailed, "failed (HTTP 408): late"),
    (status(413, "big"), errors.ContextTooLong, "too long for gpt-4o-mini: big"),
    (status(400, "m", code="context_length_exceeded"), errors.ContextTooLong, "too long"),
    (status(400, "m", type="exceed_context_size_error"), errors.ContextTooLong, "too long"),
    (status(400, "prompt is too long: 9 > 8"), errors.ContextTooLong, "9 > 8"),
    (status(400, "m", code="content_filter"), errors.ContentFiltered, "filtered the request"),
    (status(400, "m does not support tools"), errors.ModelNoTools, "cannot call tools"),
    (status(404, "No endpoints found that support tool use"), errors.ModelNoTools, "cannot call"),
    (status(429, "slow", {"retry-after": "21"}), errors.RateLimited, "try again in 21 s: slow"),
    (status(500, "oops"), errors.ProviderFailed, "failed (HTTP 500): oops"),
    (status(503, "busy"), errors.ProviderOverloaded, "overloaded"),
    (status(529, "busy"), errors.ProviderOverloaded, "overloaded"),
    (status(422, "odd"), ProviderError, "refused the request (HTTP 422): odd"),
    (Answer([b'{"error": "just text"}'], 400), ProviderError, "just text"),
    (Answer([b'[{"error": {"message": "in a list"}}]'], 400), ProviderError, "in a list"),
    (Answer([b'{"object":"error","message":"flat"}'], 400), ProviderError, "flat"),
    (Answer([b"[" * 60_000], 500), errors.ProviderFailed, "failed (HTTP 500): [["),
    (Answer([b'{"error": {"message": "\\ud800"}}'], 400), ProviderError, "\ufffd"),
    (Answer([b'{"error":', CUT], 500), errors.ProviderFailed, "failed (HTTP 500)"),
    (
        Answer([b'{"error":{"code":"insufficient_quota","message":"no', CUT], 429),
        errors.QuotaExhausted,
        "no quota",
    ),
    (Answer([b"<html>gateway</html>"], 502), errors.ProviderFailed, "a web page"),
    (Answer([], 307, {"location": "https://x/v1"}), ProviderError, "redirects to https://x/v1"),
]


@pytest.mark.parametrize(("answer", "expected", "words"), REFUSALS)
async def test_a_refusal_becomes_the_error_that_says_what_to_do(
    answer: Answer, expected: type[ProviderError], words: str, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(answer)

    error = await failure(open_it())

    assert type(error) is expected
    assert words in str(error)
    assert (error.provider, error.http_status) == ("acme", answer.status)


@pytest.mark.parametrize(
    "words",
    [f"Incorrect API key provided: {KEY}.", "Incorrect key: sk-te**********6789", "Bearer xyz"],
)
async def test_a_key_in_a_vendors_message_is_not_repeated(
    words: str, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(401, words, param=words))

    error = await failure(open_it())

    assert "[key]" in str(error)
    assert not any(part in f"{error} {error.detail}" for part in (KEY, "6789", "xyz"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2030 00:00:00 +99999999999"}, None),
        ({}, None),
    ],
)
async def test_the_time_to_wait_is_read_in_every_form(
    headers: dict[str, str], seconds: float | None, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(429, "slow down", headers))

    assert (await failure(open_it())).retry_after_s == seconds


async def test_a_passing_failure_is_repeated_and_announced(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(429, "slow", {"retry-after": "0"}), text("Hi"))

    events = await all_of(open_it(max_retries=3).stream(asking()))

    retry, *rest = events
    assert isinstance(retry, Retrying)
    assert (retry.attempt, retry.limit, retry.delay_s) == (1, 3, 0)
    assert isinstance(retry.error, errors.RateLimited)
    assert rest[0] == TextDelta("Hi")


async def test_after_the_last_repetition_the_failure_is_told(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(500, "oops", {"retry-after": "0"}))

    assert isinstance(await failure(open_it(max_retries=2)), errors.ProviderFailed)
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        status(429, "quota", code="insufficient_quota"),
        status(401, "no"),
        status(400, "no"),
        status(429, "later", {"retry-after": "31"}),
        Answer([b'{"choices": []}'], content_type="application/json"),  # made, and paid for
    ],
)
async def test_what_a_repetition_cannot_help_is_told_at_once(
    answer: Answer, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(answer, text("Hi"))

    await failure(open_it(max_retries=3))

    assert len(upstream.requests) == 1


async def test_nothing_is_repeated_once_a_word_was_seen(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    overloaded = b'data: {"error": {"message": "busy", "code": 503}}\n\n'
    upstream.will(Answer([chunk(content="So"), overloaded]), text("Hi"))

    assert isinstance(await failure(open_it(max_retries=3)), errors.ProviderOverloaded)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("complaint", "params", "dropped", "kept"),
    [
        ("Unknown parameter: 'stream_options'", Params(), "stream_options", None),
        (
            "Unsupported value: 'temperature' does not support 0.5",
            Params(temperature=0.5, top_p=0.1),
            "temperature",
            "top_p",
        ),
        (
            "'max_tokens' is not supported with this model, use 'max_completion_tokens'",
            Params(max_tokens=9),
            "max_tokens",
            "max_completion_tokens",
        ),
    ],
)
async def test_a_parameter_that_the_server_does_not_take_is_left_out_from_then_on(
    complaint: str,
    params: Params,
    dropped: str,
    kept: str | None,
    upstream: FakeOpenAI,
    open_it: Open,
    kind: ProviderKind,
) -> None:
    if kind == "openai":
        complaint = complaint.replace("'max_tokens'", "'max_completion_tokens'", 1)
    request = ModelRequest("gpt-4o-mini", [user("Hi")], params=params)
    provider = open_it()
    upstream.will(status(400, complaint), text("Hi"))

    with structlog.testing.capture_logs() as logged:
        told = await all_of(provider.stream(request))
        told_again = await all_of(provider.stream(request))

    assert [line["event"] for line in logged] == ["parameter_dropped"]
    assert isinstance(told[0], Notice)
    assert told[0].code == "parameter_dropped"
    assert told_again == told[1:]
    first, second, third = upstream.bodies
    assert first != second
    assert second == third
    if kind != "openai":
        assert dropped in first
        assert dropped not in second
        assert kept is None or kept in second


async def test_two_first_questions_at_once_both_get_past_a_parameter_that_is_not_taken(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    request = ModelRequest("gpt-4o-mini", [user("Hi")], params=Params(temperature=0.5))
    complaint = status(400, "Unsupported value: 'temperature' does not support 0.5")
    both_are_here = asyncio.Event()

    def answer(body: dict[str, Any]) -> Answer:
        if "temperature" not in body:
            return text("Hi")
        if len(upstream.bodies) == 2:
            both_are_here.set()
        return replace(complaint, steps=[both_are_here, *complaint.steps])

    upstream.will_choose(answer)
    provider = open_it()

    async with asyncio.timeout(10):
        one, other = await asyncio.gather(*(all_of(provider.stream(request)) for _ in range(2)))

    assert isinstance(one[-1], Finished)
    assert isinstance(other[-1], Finished)
    assert len(upstream.bodies) == 4


async def test_a_value_that_the_server_refuses_is_told_and_not_dropped(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(400, "temperature must be at most 1"), text("Hi"))
    request = ModelRequest("gpt-4o-mini", [user("Hi")], params=Params(temperature=2.0))

    assert "at most 1" in str(await failure(open_it(), request))


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (Answer([b"<html>hotel"], content_type="text/html"), errors.ProviderBadResponse, "text/h"),
        (
            Answer([b'{"error": {"message": "odd"}}'], content_type="application/json"),
            ProviderError,
            "odd",
        ),
        (
            Answer([b'{"choices": []}'], content_type="application/json"),
            errors.ProviderBadResponse,
            "application/json instead of a stream",
        ),
    ],
)
async def test_a_success_that_is_no_stream_is_an_error(
    answer: Answer, expected: type[ProviderError], words: str, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(answer)

    error = await failure(open_it())

    assert type(error) is expected
    assert words in str(error)


async def test_models_are_listed(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.models = [{"id": "b"}, {"id": "a", "name": "A"}, {"id": "whisper-1"}]

    models = await open_it().models()

    assert [(info.model, info.name) for info in models] == [("a", "A"), ("b", "b")]
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_list_of_models_that_cannot_be_had_says_why(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    provider = open_it()

    upstream.will_list(status(401, "Bad key"))
    with pytest.raises(errors.KeyRejected):
        await provider.models()
    for body in (b"<html>", b"[" * 200_000):
        upstream.will_list(Answer([body]))
        with pytest.raises(errors.ProviderBadResponse, match="something else than its models"):
            await provider.models()


async def test_an_authorization_in_the_headers_stands_in_for_a_key(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    provider = open_it(key=None, headers={"Authorization": "Basic a2ltOng="})

    assert await said(provider) == "Hello."

    assert upstream.requests[0].headers["authorization"] == "Basic a2ltOng="


async def test_without_a_key_openai_says_how_to_get_on_and_others_are_just_asked(
    upstream: FakeOpenAI, open_it: Open, kind: ProviderKind
) -> None:
    provider = open_it(key=None)
    upstream.will(status(401, "Who are you?"))

    error = await failure(provider)

    if kind == "openai":
        assert isinstance(error, errors.KeyMissing)
        for way in ("`sidecar keys set acme`", "OPENAI_API_KEY", "--demo"):
            assert way in str(error)
        assert upstream.requests == []
    else:
        assert isinstance(error, errors.KeyRejected)
        assert "wants an API key (`sidecar keys set acme`)" in str(error)
        assert "authorization" not in upstream.requests[0].headers


async def test_a_key_that_changes_is_used_from_the_next_request_on(
    upstream: FakeOpenAI, http: Http, kind: ProviderKind
) -> None:
    keys = ["sk-first", "sk-second"]

    async def key() -> str:
        return keys.pop(0)

    section = ProviderConfig(kind=kind, base_url=upstream.url, api=CHAT[kind])
    provider = open_provider(
        "a", section, http=http, key=key, timeouts=PATIENT, max_retries=0, find_local=nothing
    )

    await said(provider)
    await said(provider)

    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Bearer sk-first", "Bearer sk-second"]


def test_an_address_with_a_login_is_refused_without_repeating_it(open_it: Open) -> None:
    with pytest.raises(
        ProviderError, match=r"`providers\.acme\.base_url` must hold no login"
    ) as no:
        open_it(base_url="https://kim:secret@vendor.example/v1")

    assert "secret" not in str(no.value)


@pytest.mark.parametrize("key", ["sk-new\nline", "schlüssel"])
async def test_a_key_that_cannot_be_sent_is_refused_before_anyone_is_asked(
    key: str, upstream: FakeOpenAI, open_it: Open
) -> None:
    error = await failure(open_it(key=key))

    assert isinstance(error, errors.KeyRejected)
    assert key not in str(error)
    assert upstream.requests == []


def test_a_compatible_provider_never_imports_the_sdk() -> None:
    program = """
import asyncio, sys
from sidecar.config import NetworkConfig, ProviderConfig, TimeoutsConfig
from sidecar.providers import open_provider
from sidecar.providers.http import Http
from tests.providers.conftest import asking, nothing
from tests.support.fake_openai import FakeOpenAI

async def main():
    async def key(): return None
    http = Http(NetworkConfig(proxy=None, ca_bundle=None, trust_os_store=True))
    timeouts = TimeoutsConfig(connect_s=5, first_byte_s=5, silence_s=5, total_s=None)
    async with FakeOpenAI() as upstream:
        section = ProviderConfig(kind="openai_compatible", base_url=upstream.url)
        provider = open_provider(
            "a", section, http=http, key=key, timeouts=timeouts, max_retries=0, find_local=nothing
        )
        print([type(event).__name__ async for event in provider.stream(asking())])
        await http.close()

asyncio.run(main())
print(sorted({"openai", "httpx2", "httpcore2"} & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    events, imported = run.stdout.splitlines()
    assert events == "['TextDelta', 'UsageReport', 'Finished']"
    assert imported == "[]"

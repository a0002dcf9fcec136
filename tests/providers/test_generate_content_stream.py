"""What a generateContent stream means, and a tool loop with Gemini over real HTTP."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from sidecar import errors
from sidecar.config import ProviderKind
from sidecar.errors import ProviderBadResponse, ProviderError, ProviderOverloaded
from sidecar.messages import (
    Message,
    Part,
    ToolCallPart,
    ToolResultPart,
    Usage,
    VendorContent,
)
from sidecar.providers.base import (
    Citation,
    Finished,
    Media,
    ModelEvent,
    ModelRequest,
    Notice,
    Params,
    ProviderItem,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCall,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.generate_content_stream import FORMAT, GenerateContentStream
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseDecoder
from tests.providers.conftest import Open, asking, message, user
from tests.support.fake_openai import HANG, Answer, FakeOpenAI, event, status

SIGNATURE = base64.b64encode(b"thoughts").decode()


@pytest.fixture
def kind() -> ProviderKind:
    return "gemini"


def feed(*chunks: Any) -> tuple[list[ModelEvent], ProviderError | None]:
    """What the stream told, and how it failed."""
    stream, told = GenerateContentStream(Vendor("acme", "http://acme")), list[ModelEvent]()
    try:
        for sent in SseDecoder().feed(b"".join(map(event, chunks))):
            for one in stream.feed(sent):
                told.append(one)
        for one in stream.end():
            told.append(one)
    except ProviderError as error:
        return told, error
    return told, None


def read(*chunks: Any) -> list[ModelEvent]:
    told, error = feed(*chunks)
    assert error is None
    return told


def parts(*said: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk in which the model says these parts."""
    candidate = {"content": {"role": "model", "parts": list(said)}, "index": 0, **more}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate]}


def call(name: str = "f", **args: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args}}


def calls(told: list[ModelEvent]) -> list[ToolCall]:
    return [one for one in told if isinstance(one, ToolCall)]


def verbatim(told: list[ModelEvent]) -> Any:
    (own,) = [one for one in told if isinstance(one, Verbatim)]
    assert own.format == FORMAT
    return own.content


def streamed(*pieces: Any) -> list[dict[str, Any]]:
    """A call `f` whose arguments come as these `partialArgs`."""
    middle = [{"functionCall": {"partialArgs": [one], "willContinue": True}} for one in pieces]
    head = {"functionCall": {"name": "f", "willContinue": True}}
    return [parts(one) for one in (head, *middle, {"functionCall": {}})]


STOP = parts(finish="STOP")


def test_text_and_thoughts_are_told_piece_by_piece_and_then_the_end() -> None:
    assert read(
        parts({"text": "Let me see.", "thought": True}),
        parts({"text": "Grüße, "}),
        parts({"text": "世界"}, finish="STOP"),
    ) == [
        ReasoningDelta("Let me see."),
        TextDelta("Grüße, "),
        TextDelta("世界"),
        Verbatim(FORMAT, [{"text": "Let me see.", "thought": True}, {"text": "Grüße, 世界"}]),
        Finished("stop", "STOP"),
    ]


def test_plain_text_needs_no_words_of_the_vendor_s_own() -> None:
    assert read(parts({"text": "Hi"}), STOP) == [TextDelta("Hi"), Finished("stop", "STOP")]


def test_a_signature_stays_on_the_part_it_came_with() -> None:
    told = read(
        parts({"text": "A", "thoughtSignature": SIGNATURE}),
        parts({"text": "B"}),
        parts({"text": "C"}),
        parts({"text": "", "thoughtSignature": SIGNATURE}, finish="STOP"),
    )

    assert verbatim(told) == [
        {"text": "A", "thoughtSignature": SIGNATURE},
        {"text": "BC"},
        {"text": "", "thoughtSignature": SIGNATURE},
    ]


def test_a_signature_that_comes_alone_is_kept_with_an_empty_text() -> None:
    told = read(parts({"text": "A"}), parts({"thoughtSignature": SIGNATURE}, finish="STOP"))

    assert verbatim(told) == [{"text": "A"}, {"text": "", "thoughtSignature": SIGNATURE}]


def test_calls_without_ids_get_ids_of_their_own() -> None:
    told = read(parts(call(x=1), call(x=1)), parts(call("g"), finish="STOP"))

    made = calls(told)
    assert [(one.name, one.arguments) for one in made] == [
        ("f", {"x": 1}),
        ("f", {"x": 1}),
        ("g", {}),
    ]
    assert len({one.call_id for one in made} - {""}) == 3
    assert told[-1] == Finished("tool_calls", "STOP")


def test_an_id_that_gemini_gives_is_kept_and_one_given_twice_is_not() -> None:
    twice = {"functionCall": {"name": "f", "args": {}, "id": "g1"}}

    told = read(parts(twice, twice, finish="STOP"))

    first, second = calls(told)
    assert first.call_id == "g1" != second.call_id
    assert verbatim(told) == [twice, twice]


def test_of_parallel_calls_only_the_first_has_the_signature() -> None:
    told = read(parts({**call(x=1), "thoughtSignature": SIGNATURE}, call(x=2), finish="STOP"))

    assert verbatim(told) == [{**call(x=1), "thoughtSignature": SIGNATURE}, call(x=2)]


@pytest.mark.parametrize(
    ("pieces", "arguments"),
    [
        ([{"jsonPath": "$.a", "stringValue": "x"}], {"a": "x"}),
        (
            [
                {"jsonPath": "$.a", "stringValue": "Bos", "willContinue": True},
                {"jsonPath": "$.n", "numberValue": 2},
                {"jsonPath": "$.a", "stringValue": "ton"},
            ],
            {"a": "Boston", "n": 2},
        ),
        (
            [
                {"jsonPath": "$.a.b[0].c", "boolValue": True},
                {"jsonPath": "$.a.b[1]", "nullValue": "NULL_VALUE"},
                {"jsonPath": "$['it''s']", "stringValue": "skipped"},
                {"jsonPath": "$", "numberValue": 1},
                {"jsonPath": "$['a b'][\"c.d\"]", "numberValue": 0.5},
            ],
            {"a": {"b": [{"c": True}, None]}, "a b": {"c.d": 0.5}},
        ),
        ([{"jsonPath": "$.list[99999]", "numberValue": 1}], {"list": [1]}),
        (
            [{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a.b", "numberValue": 2}],
            {"a": {"b": 2}},
        ),
        ([None, 7, {}, {"jsonPath": 5}, {"jsonPath": "a"}, {"jsonPath": "$.a"}], {}),
        ([], {}),
    ],
)
def test_streamed_arguments_are_put_together_by_their_paths(
    pieces: list[Any], arguments: dict[str, Any]
) -> None:
    (made,) = calls(read(*streamed(*pieces), STOP))

    assert made.arguments == arguments
    assert json.loads(made.raw) == arguments


def test_streamed_calls_that_follow_each_other_are_two_and_go_back_whole() -> None:
    one, two = ({"jsonPath": "$.x", "stringValue": value} for value in "ab")

    told = read(*streamed(one), *streamed(two), STOP)

    assert [made.arguments for made in calls(told)] == [{"x": "a"}, {"x": "b"}]
    assert len(told) == 3  # no Verbatim: there was nothing that our parts cannot say


def test_a_streamed_call_keeps_its_signature_and_loses_its_pieces() -> None:
    head: Any = {"functionCall": {"name": "f", "willContinue": True}}
    rest: Any = {"functionCall": {"partialArgs": [{"jsonPath": "$.x", "stringValue": "a"}]}}
    signed = {"thoughtSignature": SIGNATURE}

    early = read(parts(head | signed), parts(rest), STOP)
    late = read(parts(head), parts(rest | signed), STOP)

    assert verbatim(early) == verbatim(late) == [call(x="a") | signed]


def test_a_call_that_was_cut_in_its_arguments_is_not_run() -> None:
    cut = streamed({"jsonPath": "$.x", "stringValue": "half"})[:-1]

    told = read(*cut, parts(finish="MAX_TOKENS"))

    (made,) = calls(told)
    assert (made.arguments, json.loads(made.raw)) == (None, {"x": "half"})
    assert told[-1] == Finished("tool_calls", "MAX_TOKENS")


def test_arguments_that_are_no_object_are_told_as_such() -> None:
    (made,) = calls(read(parts({"functionCall": {"name": "f", "args": [1]}}, finish="STOP")))

    assert (made.arguments, made.raw) == (None, "[1]")


def test_a_call_without_a_name_is_an_error() -> None:
    _, error = feed(parts({"functionCall": {"args": {"x": 1}}}), STOP)

    assert isinstance(error, ProviderBadResponse)


def test_a_picture_is_told_once_and_kept_without_its_data() -> None:
    blob = {"mimeType": "image/png", "data": base64.b64encode(b"PNG").decode()}

    told = read(parts({"inlineData": blob, "thoughtSignature": SIGNATURE}, finish="STOP"))

    assert told[0] == Media("image/png", b"PNG")
    assert verbatim(told) == [
        {"inlineData": {"mimeType": "image/png"}, "thoughtSignature": SIGNATURE}
    ]


def test_a_picture_that_was_only_thought_of_is_not_shown() -> None:
    blob = {"mimeType": "image/png", "data": "AAAA"}

    assert read(parts({"inlineData": blob, "thought": True}), STOP) == [Finished("stop", "STOP")]


@pytest.mark.parametrize("blob", [{"mimeType": "image/png", "data": "?"}, {"data": "AAAA"}, {}])
def test_a_picture_that_is_none_is_skipped(blob: Any) -> None:
    assert read(parts({"inlineData": blob}), STOP) == [Finished("stop", "STOP")]


@pytest.mark.parametrize(
    "kind", ["executableCode", "codeExecutionResult", "toolCall", "toolResponse", "fileData"]
)
def test_what_google_did_itself_is_named_and_goes_back(kind: str) -> None:
    part = {kind: {"id": "1"}, "thoughtSignature": SIGNATURE}

    told = read(parts(part, finish="STOP"))

    assert told[0] == ProviderItem(kind)
    assert verbatim(told) == [part]


def test_sources_are_cited_once_however_often_they_are_sent() -> None:
    chunks = [
        {"web": {"uri": "https://a.example", "title": "A"}},
        {"retrievedContext": {"title": "Notes"}},
        {"maps": {"uri": "https://maps.example", "title": "Place"}},
        {"image": {"sourceUri": "https://i.example"}},
        {"web": {}},
    ]
    grounding: Any = {"groundingMetadata": {"groundingChunks": chunks}}
    cited: Any = {"citationMetadata": {"citationSources": [{"uri": "https://c.example"}]}}
    got, lost = "URL_RETRIEVAL_STATUS_SUCCESS", "URL_RETRIEVAL_STATUS_ERROR"
    pages = [
        {"retrievedUrl": "https://p.example", "urlRetrievalStatus": got},
        {"retrievedUrl": "https://q.example", "urlRetrievalStatus": lost},
    ]

    told = read(
        parts({"text": "So."}, **grounding),
        parts(**grounding, **cited, urlContextMetadata={"urlMetadata": pages}, finish="STOP"),
    )

    assert [one for one in told if isinstance(one, Citation)] == [
        Citation("https://a.example", "A"),
        Citation(None, "Notes"),
        Citation("https://maps.example", "Place"),
        Citation("https://i.example", None),
        Citation("https://c.example", None),
        Citation("https://p.example", None),
    ]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("STOP", "stop"),
        ("OTHER", "stop"),
        ("SOMETHING_NEW", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        *(
            (name, "content_filter")
            for name in (
                "SAFETY",
                "RECITATION",
                "LANGUAGE",
                "BLOCKLIST",
                "PROHIBITED_CONTENT",
                "SPII",
                "IMAGE_SAFETY",
                "IMAGE_PROHIBITED_CONTENT",
                "IMAGE_RECITATION",
            )
        ),
    ],
)
def test_every_finish_reason_has_its_meaning(finish: str, reason: StopReason) -> None:
    assert read(parts({"text": "So"}, finish=finish))[-1] == Finished(reason, finish)


@pytest.mark.parametrize(
    "finish",
    [
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
    ],
)
def test_an_answer_that_gemini_gave_up_on_is_an_error_with_its_words(finish: str) -> None:
    counts = {"usageMetadata": {"promptTokenCount": 3}}

    told, error = feed(parts(finish=finish, finishMessage="print(f(") | counts)

    assert told == [UsageReport(Usage(input=3))]
    assert isinstance(error, ProviderBadResponse)
    assert f"{finish}: print(f(" in str(error)


def test_a_blocked_prompt_is_filtered_without_any_candidate() -> None:
    assert read({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}) == [
        Finished("content_filter", "PROHIBITED_CONTENT")
    ]


@pytest.mark.parametrize(
    "chunk",
    [
        parts(finish="SAFETY", finishMessage="It is about attacks."),
        {
            "promptFeedback": {
                "blockReason": "SAFETY",
                "blockReasonMessage": "It is about attacks.",
            }
        },
    ],
)
def test_why_an_answer_was_filtered_is_told_in_google_s_words(chunk: Any) -> None:
    assert read(chunk) == [
        Notice("content_filter", "acme stopped this answer: It is about attacks."),
        Finished("content_filter", "SAFETY"),
    ]


@pytest.mark.parametrize("chunks", [[], [parts({"text": "So"})], [parts(call())]])
def test_a_stream_without_its_terminal_is_an_error(chunks: list[Any]) -> None:
    told, error = feed(*chunks)

    assert isinstance(error, ProviderBadResponse)
    assert not [one for one in told if isinstance(one, Finished)]


def test_the_last_usage_counts_and_thoughts_and_the_own_tools_input_belong_to_it() -> None:
    early = {"usageMetadata": {"promptTokenCount": 50, "totalTokenCount": 50}}
    last = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 20,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 4,
        "cachedContentTokenCount": 5,
    }
    empty = {"usageMetadata": {"trafficType": "ON_DEMAND"}}

    told = read(parts({"text": "So"}) | early, STOP | {"usageMetadata": last}, empty)

    assert told[-2] == UsageReport(Usage(input=30, output=7, cached=5, reasoning=4))


def test_what_comes_after_the_finish_reason_is_still_read() -> None:
    told = read(STOP, parts({"text": "", "thoughtSignature": SIGNATURE}), parts({"text": "More"}))

    assert told[0] == TextDelta("More")
    assert told[-1] == Finished("stop", "STOP")


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: [error]])
def test_an_error_inside_the_stream_is_raised_after_what_came_before_it(wrap: Any) -> None:
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}

    told, failure = feed(parts({"text": "So"}), wrap(error))

    assert told == [TextDelta("So")]
    assert isinstance(failure, ProviderOverloaded)


def test_other_candidates_than_the_first_are_not_mixed_in() -> None:
    second = {"index": 1, "content": {"parts": [{"text": "Other"}]}, "finishReason": "SAFETY"}
    both = {"candidates": [second, *STOP["candidates"]]}

    assert read(both) == [Finished("stop", "STOP")]


@pytest.mark.parametrize(
    "chunk",
    [
        None,
        [],
        "x",
        {"candidates": {}},
        {"candidates": [None]},
        {"candidates": [{"content": []}]},
        {"candidates": [{"content": {"parts": {}}}]},
        parts(None, 7, [], {}),
        parts({"text": 7}, {"functionCall": []}, {"inlineData": 1}, {"executableCode": "x"}),
        parts({"functionCall": {}}, {"functionCall": {"willContinue": True}}),
        parts(groundingMetadata={"groundingChunks": [1, {"web": []}]}),
        parts(citationMetadata=[], urlContextMetadata={"urlMetadata": 5}, finishReason=5),
        {"usageMetadata": {"promptTokenCount": "many"}, "promptFeedback": []},
        {"promptFeedback": {"blockReason": 5}},
    ],
)
def test_whatever_has_another_form_is_skipped(chunk: Any) -> None:
    told = read(parts({"text": "So"}), chunk, STOP)

    assert (told[0], told[-1]) == (TextDelta("So"), Finished("stop", "STOP"))
    assert not [one for one in told if isinstance(one, Verbatim)]


def test_an_unknown_part_is_skipped_and_goes_back() -> None:
    told = read(parts({"hologram": {"data": "x"}}, finish="STOP"))

    assert told == [Verbatim(FORMAT, [{"hologram": {"data": "x"}}]), Finished("stop", "STOP")]


def test_a_piece_that_is_no_json_is_an_error() -> None:
    stream = GenerateContentStream(Vendor("acme", "http://acme"))

    with pytest.raises(ProviderBadResponse, match="no JSON"):
        list(stream.feed(SseDecoder().feed(b"data: {nope\n\n")[0]))


# Over HTTP.


async def all_of(events: AsyncGenerator[ModelEvent, None]) -> list[ModelEvent]:
    async with asyncio.timeout(10), aclosing(events):
        return [one async for one in events]


def answer(*chunks: Any) -> Answer:
    return Answer([event(chunk) for chunk in chunks])


def as_message(told: list[ModelEvent], *results: str) -> Message:
    """What is stored of a step and its results."""
    made = [one for one in told if isinstance(one, ToolCall)]
    said: list[Part] = [
        ToolCallPart(
            tool_call_id=one.call_id,
            server="s",
            name=one.name,
            offered_as=one.name,
            arguments=one.arguments or {},
        )
        for one in made
    ]
    said += [
        ToolResultPart(tool_call_id=one.call_id, status="ok", text=text, duration_ms=1)
        for one, text in zip(made, results, strict=True)
    ]
    own = VendorContent("acme", "gemini-3-pro", FORMAT, 0, len(made), verbatim(told))
    return message("assistant", *said).model_copy(update={"vendor_content": (own,)})


async def test_a_tool_loop_carries_signatures_back_on_the_parts_they_came_with(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    from google.genai import types

    said = [{**call(city="Oslo"), "thoughtSignature": SIGNATURE}, call(city="Rome")]
    upstream.will(answer(parts(*said, finish="STOP")), answer(parts({"text": "12"}), STOP))
    provider, request = open_it(), asking("Weather?", model="gemini-3-pro")

    first = await all_of(provider.stream(request))
    history = [*request.history, as_message(first, "4°", "8°")]
    second = await all_of(provider.stream(replace(request, history=history)))

    assert second == [TextDelta("12"), Finished("stop", "STOP")]
    sent = upstream.bodies[1]["contents"]
    assert sent == [
        {"role": "user", "parts": [{"text": "Weather?"}]},
        {"role": "model", "parts": said},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": "4°"}}},
                {"functionResponse": {"name": "f", "response": {"result": "8°"}}},
            ],
        },
    ]
    for content in sent:
        types.Content.model_validate(content)


@pytest.mark.parametrize("ending", ["", "/", "/v1beta", "/v1beta/"])
async def test_the_key_goes_into_a_header_and_never_into_the_address(
    ending: str, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(answer(parts({"text": "Hi"}), STOP))
    base_url = upstream.url.removesuffix("/v1") + ending

    await all_of(open_it(base_url=base_url, key="AIza-test").stream(asking(model="gemini-x")))

    (request,) = upstream.requests
    assert request.path == "/v1beta/models/gemini-x:streamGenerateContent"
    assert request.query == "alt=sse"
    assert request.headers["x-goog-api-key"] == "AIza-test"
    assert "authorization" not in request.headers


async def test_models_are_asked_for_all_at_once(upstream: FakeOpenAI, open_it: Open) -> None:
    row = {"name": "models/gemini-x", "supportedGenerationMethods": ["generateContent"]}
    body = json.dumps({"models": [row]}).encode()
    upstream.will_list(Answer([body], content_type="application/json"))

    listed = await open_it().models()

    assert [info.model for info in listed] == ["gemini-x"]
    assert upstream.requests[0].query == "pageSize=1000"


async def test_a_missing_key_names_google_s_variable(open_it: Open) -> None:
    with pytest.raises(errors.KeyMissing, match="GEMINI_API_KEY"):
        await all_of(open_it(key=None).stream(asking()))


async def test_a_key_among_the_headers_is_key_enough(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.will(answer(STOP))

    await all_of(open_it(key=None, headers={"X-Goog-Api-Key": "mine"}).stream(asking()))

    assert upstream.requests[0].headers["x-goog-api-key"] == "mine"


async def test_cancelling_closes_the_http_response(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.will(Answer([event(parts({"text": "Once"})), HANG]))

    async with aclosing(open_it().stream(asking())) as events:
        assert await anext(events) == TextDelta("Once")

    await asyncio.wait_for(upstream.hung_up.wait(), 5)


async def test_a_refused_parameter_is_left_out_from_then_on(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    refusal = status(400, "Thinking level is not supported for this model.")
    upstream.will(refusal, answer(STOP))
    params = Params(reasoning_effort="low", temperature=0.5)
    request = replace(asking(model="gemini-3-pro"), params=params)
    provider = open_it()

    await all_of(provider.stream(request))
    await all_of(provider.stream(request))

    told = [body["generationConfig"] for body in upstream.bodies]
    whole = {"includeThoughts": True, "thinkingLevel": "LOW"}
    assert [one["thinkingConfig"] for one in told] == [whole] + [{"includeThoughts": True}] * 2
    assert all(one["temperature"] == 0.5 for one in told)


async def test_an_answer_that_was_cut_off_is_an_error(upstream: FakeOpenAI, open_it: Open) -> None:
    upstream.will(answer(parts({"text": "Once"})))

    with pytest.raises(ProviderBadResponse):
        await all_of(open_it().stream(ModelRequest("gemini-x", [user("Hi")])))

"""What a Messages stream means, for the ways in which Anthropic and others write it."""

import json
import random
from typing import Any, TypeVar

import pytest

from sidecar.errors import ProviderBadResponse, ProviderError, ProviderOverloaded, RateLimited
from sidecar.messages import JsonObject, Usage
from sidecar.providers.base import (
    Citation,
    Finished,
    ModelEvent,
    Notice,
    ProviderItem,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolCall,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.messages_stream import MAX_SEQUELS, MessagesStream
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseDecoder
from tests.providers.test_invariants import broken
from tests.support.anthropic_stream import (
    Event,
    answer,
    block,
    called,
    ending,
    said,
    start,
    thought,
    wire,
)

T = TypeVar("T")

ASKED: JsonObject = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}
STOP = {"type": "message_stop"}


def open_stream() -> MessagesStream:
    return MessagesStream(Vendor("acme", "http://acme/v1"), ASKED)


def read(body: bytes, stream: MessagesStream | None = None) -> list[ModelEvent]:
    stream = stream or open_stream()
    decoder = SseDecoder()
    events = [event for sent in decoder.feed(body) for event in stream.feed(sent)]
    events += [event for sent in decoder.end() for event in stream.feed(sent)]
    return events + list(stream.end())


def only(kind: type[T], events: list[ModelEvent]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]


def verbatim(events: list[ModelEvent]) -> Any:
    """What is to go back; None if there is nothing."""
    return next((event.content for event in only(Verbatim, events)), None)


def usage(events: list[ModelEvent]) -> Usage:
    (report,) = only(UsageReport, events)
    return report.usage


def test_text_is_told_piece_by_piece_and_then_usage_and_the_end() -> None:
    assert read(answer(*said("Grüße,", " 世界 \u2028 👋"), stop="end_turn")) == [
        TextDelta("Grüße,"),
        TextDelta(" 世界 \u2028 👋"),
        UsageReport(Usage(input=10, output=5)),
        Finished("stop", "end_turn"),
    ]


def test_events_go_by_their_type_and_need_no_name() -> None:
    events = [start(), *said("Hi"), ending("end_turn"), STOP]

    assert read(wire(*events, named=False)) == read(wire(*events))


def test_thinking_is_told_and_goes_back_with_its_signature() -> None:
    body = answer(*thought("Hm.", "c2ln"), *said("Hi", index=1))

    events = read(body)

    assert events[:2] == [ReasoningDelta("Hm."), TextDelta("Hi")]
    assert verbatim(events) == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "text", "text": "Hi"},
    ]


def test_redacted_and_omitted_thinking_are_empty_reasoning_and_go_back_unchanged() -> None:
    redacted = {"type": "redacted_thinking", "data": "AAAA"}
    omitted = {"type": "thinking", "thinking": "", "signature": ""}
    signature = {"type": "signature_delta", "signature": "c2ln"}

    events = read(
        answer(*block(redacted), *block(omitted, signature, index=1), *said("Hi", index=2))
    )

    assert events[:3] == [ReasoningDelta(""), ReasoningDelta(""), TextDelta("Hi")]
    assert verbatim(events)[:2] == [redacted, omitted | {"signature": "c2ln"}]


def test_a_call_is_shown_as_it_is_written_and_told_once_when_it_is_complete() -> None:
    assert read(answer(*called("toolu_1", "f", "", '{"x"', ": 1}"), stop="tool_use")) == [
        ToolArguments("toolu_1", "f", '{"x"'),
        ToolArguments("toolu_1", "f", ": 1}"),
        ToolCall("toolu_1", "f", {"x": 1}, '{"x": 1}'),
        UsageReport(Usage(input=10, output=5)),
        Finished("tool_calls", "tool_use"),
    ]


def test_interleaved_blocks_are_put_together_by_their_index() -> None:
    one, two = called("a", "f", '{"x"', ":1}"), called("b", "g", '{"y"', ":2}", index=1)
    woven = [event for pair in zip(one, two, strict=True) for event in pair]

    calls = only(ToolCall, read(answer(*woven, stop="tool_use")))

    assert [(call.call_id, call.arguments) for call in calls] == [("a", {"x": 1}), ("b", {"y": 2})]


@pytest.mark.parametrize(
    ("given", "pieces", "arguments"),
    [
        ({}, [], {}),
        ({}, [""], {}),
        ({}, ["{}"], {}),
        ({"x": 1}, [], {"x": 1}),  # whole, in the block's start
        ({"x": 1}, ['{"x":2}'], {"x": 2}),
        (None, [], {}),
        ({}, ['{"x":'], None),
        ({}, ["[1]"], None),
        ([1], [], None),
    ],
)
def test_arguments_may_be_missing_or_come_with_the_start_of_the_call(
    given: Any, pieces: list[str], arguments: Any
) -> None:
    events = read(answer(*called("a", "f", *pieces, input=given), stop="tool_use"))

    (call,) = only(ToolCall, events)
    assert call.arguments == arguments


def test_a_call_that_was_cut_off_before_its_arguments_is_not_one_without_arguments() -> None:
    events = read(answer(*called("a", "f"), stop="max_tokens"))

    (call,) = only(ToolCall, events)
    assert call.arguments is None
    assert events[-1] == Finished("tool_calls", "max_tokens")


def test_calls_without_an_id_or_with_a_used_one_get_one_of_their_own() -> None:
    body = answer(
        *called("a", "f"), *called("a", "g", index=1), *block({"type": "tool_use", "name": "h"}),
        *thought("Hm.", "c2ln", index=3), *said("Hi", index=4), stop="tool_use",
    )  # fmt: skip

    events = read(body)

    ids = [call.call_id for call in only(ToolCall, events)]
    assert ids[0] == "a"
    assert len(set(ids)) == 3
    sent_back = [part["id"] for part in verbatim(events) if part["type"] == "tool_use"]
    assert sent_back == ids


def test_a_call_without_a_name_is_a_bad_answer() -> None:
    with pytest.raises(ProviderBadResponse, match="without naming it"):
        read(answer(*block({"type": "tool_use", "id": "a"}), stop="tool_use"))


def test_what_the_vendor_did_itself_is_told_and_goes_back_unchanged() -> None:
    query = {"type": "input_json_delta", "partial_json": '{"query": "x"}'}

    events = read(
        answer(*block(SEARCH, query), *block(FOUND, index=1), *said("So it is.", index=2))
    )

    items = [item.kind for item in only(ProviderItem, events)]
    assert items == ["server_tool_use:web_search", "web_search_tool_result"]
    assert not only(ToolArguments, events)
    assert verbatim(events) == [
        SEARCH | {"input": {"query": "x"}},
        FOUND,
        {"type": "text", "text": "So it is."},
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": []},
        {"type": "bash_code_execution_tool_result", "tool_use_id": "s", "content": {}},
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
        {"type": "of_next_year", "depth": {"x": [1]}},
    ],
)
def test_a_block_of_any_other_type_is_told_by_its_type_and_goes_back_unchanged(
    content: Event,
) -> None:
    events = read(answer(*block(content), *said("Hi", index=1)))

    assert only(ProviderItem, events) == [ProviderItem(content["type"])]
    assert verbatim(events)[0] == content


def test_a_compaction_goes_back_whole() -> None:
    deltas = [
        {"type": "compaction_delta", "content": "In short", "encrypted_content": "AAAA"},
        {"type": "compaction_delta", "content": " …"},
    ]

    events = read(
        answer(*block({"type": "compaction", "content": None}, *deltas), *said("Hi", index=1))
    )

    compaction = {"type": "compaction", "content": "In short …", "encrypted_content": "AAAA"}
    assert verbatim(events)[0] == compaction


def test_citations_are_told_after_their_text_once_for_each_page() -> None:
    page = {"type": "web_search_result_location", "url": "https://a.example", "title": "A"}
    deltas: list[Event] = [
        {"type": "citations_delta", "citation": page | {"cited_text": "1"}},
        {"type": "text_delta", "text": "So it is."},
        {"type": "citations_delta", "citation": page | {"cited_text": "2"}},
    ]

    events = read(answer(*block({"type": "text", "text": "", "citations": []}, *deltas)))

    assert events[:2] == [TextDelta("So it is."), Citation("https://a.example", "A")]
    assert len(only(Citation, events)) == 1
    (text,) = verbatim(events)
    assert [cited["cited_text"] for cited in text["citations"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("cited", "told"),
    [
        ({"type": "page_location", "document_title": "Report"}, [Citation(None, "Report")]),
        ({"source": "https://b.example", "title": ""}, [Citation("https://b.example", None)]),
        ({"source": "kb/12", "title": "Twelve"}, [Citation(None, "Twelve")]),
        ({"source": "kb/12"}, [Citation(None, "kb/12")]),
        ({"type": "char_location", "document_title": None}, []),
        ("a text", []),
        (None, []),
    ],
)
def test_a_citation_says_what_it_has(cited: Any, told: list[Citation]) -> None:
    delta = {"type": "citations_delta", "citation": cited}

    events = read(answer(*block({"type": "text", "text": "x", "citations": None}, delta)))

    assert only(Citation, events) == told


@pytest.mark.parametrize(
    "delta",
    [
        {"type": "citations_delta", "citation": {"url": "https://a.example"}},
        {"type": "signature_delta", "signature": 5},
    ],
)
def test_what_does_not_belong_to_a_block_does_not_go_back_with_it(delta: Event) -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}

    events = read(answer(*block(thinking, delta), *said("Hi", index=1)))

    assert verbatim(events)[0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
        ("of_next_year", "stop"),
        (None, "stop"),
    ],
)
def test_every_stop_reason_has_a_meaning(stop: str | None, reason: StopReason) -> None:
    assert read(answer(*said("Hi"), stop=stop))[-1] == Finished(reason, stop)


def test_nothing_of_a_refused_answer_is_done_or_sent_back() -> None:
    body = answer(*thought("Hm.", "c2ln"), *called("a", "f", '{"x":1}', index=1), stop="refusal")

    events = read(body)

    assert not only(ToolCall, events)
    assert verbatim(events) is None
    assert events[-1] == Finished("refusal", "refusal")


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (
            {"type": "refusal", "category": "cyber", "explanation": "It is about attacks."},
            ["acme stopped this answer: It is about attacks."],
        ),
        (
            {"type": "refusal", "category": "cyber", "explanation": None},
            ["acme stopped this answer: cyber"],
        ),
        ({"type": "refusal", "category": None}, []),
        ("cyber", []),
        (None, []),
    ],
)
def test_why_an_answer_was_refused_is_told_in_the_vendors_words(
    details: Any, told: list[str]
) -> None:
    refused = ending("refusal")
    refused["delta"]["stop_details"] = details

    events = read(wire(start(), *said("Hi"), refused, STOP))

    assert only(Notice, events) == [Notice("refusal", text) for text in told]
    assert events[-1] == Finished("refusal", "refusal")


def test_input_is_what_was_read_and_what_came_from_and_went_into_the_cache() -> None:
    body = wire(
        start(input_tokens=10, cache_read_input_tokens=100, cache_creation_input_tokens=1000),
        *said("Hi"),
        ending("end_turn", output_tokens=7),
        STOP,
    )

    assert usage(read(body)) == Usage(input=1110, output=7, cached=100, cache_written=1000)


def test_usage_is_cumulative_and_what_is_repeated_last_counts() -> None:
    body = wire(
        start(input_tokens=43, output_tokens=3),
        *said("Hi"),
        ending(None, input_tokens=50, output_tokens=4),
        ending("end_turn", input_tokens=61, output_tokens=9, cache_read_input_tokens=2),
        STOP,
    )

    assert usage(read(body)) == Usage(input=63, output=9, cached=2)


def test_zeros_at_the_end_do_not_undo_what_was_counted_at_the_start() -> None:
    body = wire(start(input_tokens=43), ending("end_turn", input_tokens=0), STOP)

    assert usage(read(body)).input == 43


def test_reasoning_is_counted_where_the_vendor_counts_it() -> None:
    last = ending("end_turn")
    last["usage"]["output_tokens_details"] = {"thinking_tokens": 4}

    assert usage(read(wire(start(), last, STOP))).reasoning == 4


def test_a_second_message_start_changes_nothing() -> None:
    body = wire(start(), *said("a"), start(), *said("b", index=1), ending("end_turn"), STOP)

    assert only(TextDelta, read(body)) == [TextDelta("a"), TextDelta("b")]


def test_an_answer_spliced_into_another_uses_its_indexes_again() -> None:
    body = wire(
        start("msg_1"), *said("a")[:-1],
        start("msg_2"), *called("t", "f", '{"x":1}'),
        ending("tool_use"), STOP,
    )  # fmt: skip

    events = read(body)

    assert only(TextDelta, events) == [TextDelta("a")]
    assert [call.arguments for call in only(ToolCall, events)] == [{"x": 1}]


def test_blocks_inside_message_start_are_complete_and_told_once() -> None:
    content = [
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
    ]
    whole = start(content=content)
    whole["message"]["stop_reason"] = "tool_use"

    events = read(wire(whole, whole, STOP))

    assert events[-1] == Finished("tool_calls", "tool_use")
    assert only(TextDelta, events) == [TextDelta("Hi")]
    assert [call.arguments for call in only(ToolCall, events)] == [{"x": 1}]


def test_deltas_of_a_block_that_nobody_began_are_read_all_the_same() -> None:
    deltas = [
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
    ]

    events = read(wire(*deltas, ending("end_turn"), STOP))

    assert events[:2] == [ReasoningDelta("Hm."), TextDelta("Hi")]
    assert verbatim(events) == [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "Hi"},
    ]


@pytest.mark.parametrize("seed", range(300))
def test_what_is_broken_around_a_search_of_the_vendors_is_an_answer_or_an_error_of_ours(
    seed: int,
) -> None:
    chance = random.Random(seed)
    events: list[Any] = [
        start(), *thought("Hm.", "c2ln"), *said("a", index=1), *block(SEARCH, index=2),
        *called("t", "f", '{"x":1}', index=3), ending("tool_use"), STOP,
    ]  # fmt: skip
    for _ in range(3):
        index = chance.randrange(len(events))
        events[index] = broken(events[index], chance)
        events.insert(chance.randrange(len(events)), chance.choice(events))

    try:
        told = read(b"".join(b"data: " + json.dumps(row).encode() + b"\n\n" for row in events))
    except ProviderError:
        return

    calls = only(ToolCall, told)
    assert len({call.call_id for call in calls}) == len(calls)
    assert only(Finished, told) == [told[-1]]
    assert (only(Finished, told)[0].reason == "tool_calls") == bool(calls)
    sent_back = [part["id"] for part in verbatim(told) or [] if part["type"] == "tool_use"]
    assert sent_back in ([call.call_id for call in calls], [])


def test_empty_text_does_not_go_back_for_it_is_refused() -> None:
    events = read(
        answer(*thought("Hm.", "c2ln"), *said("\n\n", index=1), *called("a", "f", index=2))
    )

    assert [part["type"] for part in verbatim(events)] == ["thinking", "tool_use"]


def test_reasoning_that_was_cut_off_does_not_go_back() -> None:
    events = read(answer(*thought("Hm, so", ""), stop="max_tokens"))

    assert verbatim(events) is None
    assert events[-1] == Finished("length", "max_tokens")


def test_a_search_without_its_result_does_not_go_back() -> None:
    events = read(answer(*thought("Hm.", "s"), *said("I", index=1), *block(SEARCH, index=2)))

    assert [part["type"] for part in verbatim(events)] == ["thinking", "text"]


def test_a_tool_of_the_vendor_that_waits_for_our_call_goes_back() -> None:
    events = read(answer(*block(SEARCH), *called("a", "f", index=1), stop="tool_use"))

    assert [part["type"] for part in verbatim(events)] == ["server_tool_use", "tool_use"]


def test_plain_text_and_calls_need_no_words_of_the_vendor() -> None:
    events = read(answer(*said("Hi"), *called("a", "f", index=1), stop="tool_use"))

    assert verbatim(events) is None


def test_a_paused_turn_goes_on_with_the_answer_so_far_and_its_usage_adds_up() -> None:
    stream = open_stream()
    first = read(answer(*said("Let me see. "), *block(SEARCH, index=1), stop="pause_turn"), stream)
    sequel = stream.sequel
    second = read(answer(*block(FOUND), *said("So.", index=1), message_id="msg_2"), stream)

    assert not only(Finished, first)
    assert sequel == ASKED | {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "text", "text": "Let me see. "}, SEARCH]},
        ]
    }
    assert stream.sequel is None
    assert usage(second) == Usage(input=20, output=10)
    assert [part["type"] for part in verbatim(second)] == [
        "text", "server_tool_use", "web_search_tool_result", "text",
    ]  # fmt: skip
    assert second[-1] == Finished("stop", "end_turn")


def test_a_sequel_that_says_no_reason_is_not_paused() -> None:
    stream = open_stream()
    read(answer(*block(SEARCH), stop="pause_turn"), stream)

    events = read(answer(*said("So."), stop=None), stream)

    assert events[-1] == Finished("stop", None)


def test_a_sequel_never_ends_in_white_space_for_it_is_refused() -> None:
    stream = open_stream()

    read(answer(*said("Let me see. \n"), stop="pause_turn"), stream)

    assert stream.sequel is not None
    assert json.dumps(stream.sequel).endswith('"Let me see."}]}]}')


def test_a_turn_that_is_paused_for_ever_ends() -> None:
    stream = open_stream()
    for number in range(MAX_SEQUELS):
        read(answer(*block(SEARCH), stop="pause_turn", message_id=str(number)), stream)
        assert stream.sequel is not None

    events = read(answer(*said("Still."), stop="pause_turn"), stream)

    assert stream.sequel is None
    assert events[-1] == Finished("length", "pause_turn")


@pytest.mark.parametrize("kept", range(6))
def test_a_stream_without_its_end_is_no_success(kept: int) -> None:
    whole = [start(), *said("Hi"), ending("end_turn"), STOP]

    with pytest.raises(ProviderBadResponse, match="ended its answer in the middle"):
        read(wire(*whole[:kept]))


def test_a_broken_piece_is_no_success() -> None:
    with pytest.raises(ProviderBadResponse, match="no JSON"):
        read(wire(start()) + b'data: {"type": "content_block_de\n\n')


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, ProviderOverloaded),
        ({"type": "rate_limit_error", "message": "Slow down"}, RateLimited),
        ("Overloaded", ProviderError),
        (None, ProviderError),
    ],
)
@pytest.mark.parametrize("before", [[], [start(), *said("Hi")]])
def test_an_error_inside_the_stream_is_raised_as_the_vendor_told_it(
    error: Any, kind: type[ProviderError], before: list[Event]
) -> None:
    with pytest.raises(kind):
        read(wire(*before, {"type": "error", "error": error}))


def test_the_usage_before_an_error_is_told() -> None:
    stream, decoder = open_stream(), SseDecoder()
    told = []

    with pytest.raises(ProviderOverloaded):
        for sent in decoder.feed(
            wire(start(), {"type": "error", "error": {"type": "overloaded_error"}})
        ):
            for event in stream.feed(sent):
                told.append(event)

    assert told == [UsageReport(Usage(input=10, output=1))]


def test_an_error_that_is_no_json_keeps_its_words() -> None:
    with pytest.raises(ProviderError, match="upstream gone"):
        read(b"event: error\ndata: upstream gone\n\n")


@pytest.mark.parametrize(
    "noise",
    [
        {"type": "ping"},
        {"type": "of_next_year", "index": [], "error": None},
        {"type": ["content_block_delta"]},
        {"type": "content_block_start"},
        {"type": "content_block_start", "index": 7, "content_block": []},
        {"type": "content_block_start", "index": {}, "content_block": {"type": 3}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "of_next_year", "x": 1}},
        {"type": "content_block_delta", "index": "0", "delta": {"type": "input_json_delta"}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "signature_delta"}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "citations_delta"}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": 1}},
        {"type": "content_block_delta", "index": 7, "delta": "text"},
        {"type": "content_block_stop", "index": 99},
        {"type": "message_start", "message": "msg"},
        {"type": "message_start", "message": {"id": [], "usage": [], "content": [1, {}]}},
        {"type": "message_delta", "usage": {"input_tokens": "many"}, "delta": {"stop_reason": 5}},
        {"type": "message_delta"},
    ],
)
def test_what_is_unknown_or_of_another_type_is_skipped(noise: Event) -> None:
    before, after = said("a"), said("b", index=1)

    events = read(wire(start(), *before, noise, *after, ending("end_turn"), STOP))

    assert only(TextDelta, events) == [TextDelta("a"), TextDelta("b")]
    assert usage(events) == Usage(input=10, output=5)
    assert events[-1] == Finished("stop", "end_turn")


def test_nothing_after_the_end_is_read() -> None:
    events = read(answer(*said("a")) + b"data: [DONE]\n\n" + wire(*said("b", index=1)))

    assert only(TextDelta, events) == [TextDelta("a")]


def test_the_end_mark_of_another_format_is_skipped() -> None:
    body = wire(start(), *said("a")) + b"data: [DONE]\n\n" + wire(ending("end_turn"), STOP)

    assert read(body)[-1] == Finished("stop", "end_turn")

"""What a chat completions stream means, for the many ways in which servers write it."""

import json
import time
from typing import Any

import pytest

from sidecar.errors import (
    ContextTooLong,
    ProviderBadResponse,
    ProviderError,
    ProviderOverloaded,
    RateLimited,
)
from sidecar.messages import Cost, JsonObject, Usage
from sidecar.providers.base import (
    Citation,
    Finished,
    Media,
    ModelEvent,
    Notice,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolCall,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.chat_completions_stream import ChatCompletionsStream
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseDecoder, SseEvent
from tests.providers.conftest import STREAMS

ACME = Vendor("acme", "http://acme/v1")


def read(body: bytes) -> list[ModelEvent]:
    decoder, stream = SseDecoder(), ChatCompletionsStream(ACME, {})
    events = [event for sent in decoder.feed(body) for event in stream.feed(sent)]
    events += [event for sent in decoder.end() for event in stream.feed(sent)]
    return events + list(stream.end())


def own(name: str) -> list[ModelEvent]:
    return read((STREAMS / f"{name}.sse").read_bytes())


def chunks(*deltas: dict[str, Any], finish: str | None = "tool_calls") -> bytes:
    rows = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    rows.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return b"".join(b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows)


def piece(
    arguments: Any = None, *, name: str | None = None, call_id: Any = None, index: Any = None
) -> dict[str, Any]:
    """A delta with one tool call, with only the fields that are given."""
    function = {"name": name, "arguments": arguments}
    call = {"id": call_id, "index": index, "function": function}
    return {"tool_calls": [{key: value for key, value in call.items() if value is not None}]}


def calls(*deltas: dict[str, Any], finish: str = "tool_calls") -> list[tuple[str, Any]]:
    events = read(chunks(*deltas, finish=finish))
    return [(event.name, event.arguments) for event in events if isinstance(event, ToolCall)]


def test_text_is_told_piece_by_piece_and_then_usage_and_the_end() -> None:
    assert own("text") == [
        TextDelta("Grüße,"),
        TextDelta(" 世界 \u2028 👋"),
        UsageReport(Usage(input=9, output=4, cached=3)),
        Finished("stop", "stop"),
    ]


def test_a_tool_call_is_shown_as_it_is_written_and_told_once_when_it_is_complete() -> None:
    raw = '{"city":"Oslo"}'

    assert own("tool_call") == [
        ToolArguments("call_a", "get_weather", '{"ci'),
        ToolArguments("call_a", "get_weather", 'ty":"Os'),
        ToolArguments("call_a", "get_weather", 'lo"}'),
        ToolCall("call_a", "get_weather", {"city": "Oslo"}, raw),
        Finished("tool_calls", "tool_calls"),
    ]


def test_interleaved_calls_are_put_together_by_their_index() -> None:
    told = [event for event in own("parallel_calls") if isinstance(event, ToolCall)]

    assert told == [
        ToolCall("call_a", "get_weather", {"city": "Oslo"}, '{"city":"Oslo"}'),
        ToolCall("call_b", "get_time", {}, ""),
    ]


def test_reasoning_sent_under_two_names_is_told_once() -> None:
    assert own("reasoning") == [
        ReasoningDelta("Let me "),
        ReasoningDelta("see."),
        TextDelta("4"),
        UsageReport(Usage(input=5, output=8, reasoning=7)),  # reasoning was left out of "output"
        Finished("stop", "stop"),
    ]


def test_reasoning_between_tags_at_the_start_of_the_text_is_told_as_reasoning() -> None:
    pieces = ["\n<th", "ink>", "\nLet me see.", "\n</thi", "nk>\n\n", "4", " <think>"]

    assert read(chunks(*({"content": piece} for piece in pieces), finish="stop")) == [
        ReasoningDelta("Let me see."),
        ReasoningDelta("\n"),
        TextDelta("4"),
        TextDelta(" <think>"),
        Finished("stop", "stop"),
    ]


def test_what_may_have_been_a_tag_is_told_before_the_calls() -> None:
    events = read(chunks({"content": "<thi"}, piece("{}", name="f", call_id="a")))

    assert events[-3:] == [
        TextDelta("<thi"),
        ToolCall("a", "f", {}, "{}"),
        Finished("tool_calls", "tool_calls"),
    ]


def test_where_reasoning_has_a_field_of_its_own_a_tag_is_text() -> None:
    said = {"content": "<think>is a tag"}

    assert read(chunks({"reasoning": "Hm."}, said, finish="stop"))[:2] == [
        ReasoningDelta("Hm."),
        TextDelta("<think>is a tag"),
    ]


def test_a_question_that_was_read_in_part_is_noticed() -> None:
    usage = {"prompt_tokens": 4096, "completion_tokens": 1}
    asked: JsonObject = {"messages": [{"role": "user", "content": "A word, a dream. " * 5000}]}
    stream = ChatCompletionsStream(ACME, asked)
    row = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}

    told = [*stream.feed(SseEvent("", json.dumps(row))), *stream.end()]

    assert [event.code for event in told if isinstance(event, Notice)] == ["context_cut"]
    assert isinstance(told[-1], Finished)


def test_a_refusal_is_text_that_ends_as_a_refusal() -> None:
    assert own("refusal") == [
        TextDelta("I cannot "),
        TextDelta("help with that."),
        Finished("refusal", "stop"),
    ]


def test_comments_ids_and_unknown_events_do_not_disturb() -> None:
    assert own("noise") == [TextDelta("Hel"), TextDelta("lo"), Finished("stop", "stop")]


def test_an_error_event_is_raised_after_what_came_before_it() -> None:
    stream = ChatCompletionsStream(ACME, {})
    first, second = SseDecoder().feed((STREAMS / "error_in_stream.sse").read_bytes())

    assert list(stream.feed(first)) == [TextDelta("So")]
    with pytest.raises(ProviderOverloaded, match=r"acme is overloaded.*: Overloaded, sorry"):
        list(stream.feed(second))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 429, "message": "slow down"}, RateLimited),
        ({"code": "context_length_exceeded", "message": "too long"}, ContextTooLong),
        ({"message": "This model's maximum context length is 8 tokens"}, ContextTooLong),
    ],
)
def test_an_error_inside_the_stream_is_judged_as_if_it_had_come_as_a_status(
    error: JsonObject, expected: type[ProviderError]
) -> None:
    body = b"data: " + json.dumps({"error": error, "choices": []}).encode() + b"\n\n"

    with pytest.raises(expected):
        read(body)


def test_the_usage_beside_an_error_is_told() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 1}
    row = {"error": {"code": 400, "message": "no"}, "choices": [], "usage": usage}
    stream = ChatCompletionsStream(ACME, {})

    first = next(stream.feed(SseEvent("", json.dumps(row))))

    assert first == UsageReport(Usage(input=4, output=1))


def test_a_stream_without_its_end_is_never_a_success() -> None:
    with pytest.raises(ProviderBadResponse, match="in the middle"):
        own("cut_short")


@pytest.mark.parametrize("body", [b"", b": nothing\n\n", b'data: {"id":"x"}\n\n'])
def test_a_stream_without_an_answer_is_never_a_success(body: bytes) -> None:
    with pytest.raises(ProviderBadResponse):
        read(body)


def test_an_event_that_was_cut_is_an_error() -> None:
    with pytest.raises(ProviderBadResponse, match="no JSON"):
        read(chunks({"content": "Hi"}, finish=None) + b'data: {"choices": [{"del')


def test_a_complete_answer_does_not_fail_for_usage_that_was_cut_off() -> None:
    told = read(chunks({"content": "Hi"}, finish="stop") + b'data: {"usage": {"prom')

    assert told == [TextDelta("Hi"), Finished("stop", "stop")]


@pytest.mark.parametrize(
    "finish",
    [
        "error",
        "insufficient_system_resource",
        "abort",
        "network_error",
        "function_call_filter: MALFORMED_FUNCTION_CALL",
    ],
)
def test_an_answer_that_the_vendor_gave_up_is_no_success(finish: str) -> None:
    with pytest.raises(ProviderBadResponse, match=f"gave up on its answer .{finish}"):
        read(chunks({"content": "Half an ans"}, finish=finish))


def test_a_count_that_nobody_can_mean_is_left_out_and_the_answer_stays() -> None:
    usage = b'data: {"usage":{"prompt_tokens":1e999,"completion_tokens":-1,"total_tokens":NUL}}\n\n'

    told = read(chunks({"content": "Hi"}, finish="stop") + usage.replace(b"NUL", b"9" * 400))

    assert told[1:] == [UsageReport(Usage(input=0, output=0)), Finished("stop", "stop")]


def test_arguments_of_a_server_that_repeats_the_name_cost_each_piece_once() -> None:
    pieces = ['{"rows": [', *['{"}": "\\"}"}, '] * 40_000, "0]}", '{"next": 1}']
    body = chunks(*(piece(part, name="f", index=0) for part in pieces))

    started = time.process_time()
    events = read(body)
    spent_s = time.process_time() - started

    first, second = [event for event in events if isinstance(event, ToolCall)]
    assert first.arguments is not None and second.arguments == {"next": 1}
    assert spent_s < 10, "parsing all that came at each piece takes minutes"


@pytest.mark.parametrize(
    "raw", ['{"a":"}"}', '{"a":"\\"}{"}', '{"a":{"b":"\\\\"},"c":[{}]}', '{"a":"\\\\\\"}"}']
)
def test_where_arguments_end_is_found_however_they_are_cut(raw: str) -> None:
    deltas = [piece(letter, name="f", index=0) for letter in raw]

    assert calls(*deltas, piece("{}", name="f", index=0)) == [("f", json.loads(raw)), ("f", {})]


def test_done_alone_is_an_end() -> None:
    assert read(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n') == [
        TextDelta("Hi"),
        Finished("stop", None),
    ]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("length", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
        ("content_filter: SAFETY", "content_filter"),
        ("tool_calls", "stop"),  # it called none
        ("eos", "stop"),
    ],
)
def test_the_vendors_finish_reason_is_translated_and_kept(finish: str, reason: StopReason) -> None:
    assert read(chunks({"content": "Hi"}, finish=finish))[-1] == Finished(reason, finish)


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "length"])
def test_an_answer_with_a_call_ends_as_tool_calls_whatever_the_vendor_says(finish: str) -> None:
    events = read(chunks(piece("{}", name="f", call_id="a", index=0), finish=finish))

    assert events[-1] == Finished("tool_calls", finish)


def test_content_may_be_a_list_of_text_and_thinking_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    parts = [thinking, {"type": "text", "text": "Hi"}, {"type": "reference", "ids": [1]}]

    events = read(chunks({"content": parts}, finish="stop"))

    assert events[:-1] == [ReasoningDelta("Hm"), TextDelta("Hi")]


def test_tokens_that_went_into_the_cache_are_counted_where_the_vendor_says_them() -> None:
    details = {"cached_tokens": 1, "cache_write_tokens": 5}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": details}
    row = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()

    told = read(chunks({"content": "Hi"}, finish="stop") + row)

    assert UsageReport(Usage(input=9, output=2, cached=1, cache_written=5)) in told


def test_the_usage_of_groq_and_of_moonshot_is_found_where_it_is() -> None:
    choice: Any = {"delta": {}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    rows = [
        {"choices": [choice], "x_groq": {"usage": usage}},
        {"choices": [{**choice, "usage": usage}]},
    ]

    for row in rows:
        told = read(b"data: " + json.dumps(row).encode() + b"\n\n")
        assert told[0] == UsageReport(Usage(input=3, output=2))


def test_a_new_id_opens_a_new_call_even_at_a_used_index() -> None:
    assert calls(
        piece('{"n":1}', name="f", call_id="a", index=0),
        piece('{"n":2}', name="f", call_id="b", index=0),
    ) == [("f", {"n": 1}), ("f", {"n": 2})]


def test_the_rest_of_a_call_under_a_number_that_nobody_has_belongs_to_the_open_call() -> None:
    assert calls(
        piece('{"n":1}', name="f", call_id="a", index=0),
        piece('{"n":', name="g", call_id="b", index=0),
        piece("2}", index=1),
    ) == [("f", {"n": 1}), ("g", {"n": 2})]


def test_a_known_id_wins_over_its_index() -> None:
    assert calls(
        piece('{"n":', name="f", call_id="a", index=0),
        piece('{"n":', name="g", call_id="b", index=1),
        piece("1}", name="f", call_id="a", index=1),
        piece("2}", name="g", call_id="b", index=0),
    ) == [("f", {"n": 1}), ("g", {"n": 2})]


def test_deltas_without_id_and_index_belong_to_the_open_call() -> None:
    assert calls(piece('{"n":', name="f"), piece("1}")) == [("f", {"n": 1})]


def test_whole_calls_without_ids_under_one_index_stay_apart() -> None:
    assert calls(
        piece('{"n":1}', name="f", index=0),
        piece('{"n":2}', name="f", index=0),
        piece("", name="g", index=0),
    ) == [("f", {"n": 1}), ("f", {"n": 2}), ("g", {})]


def test_arguments_before_the_name_are_held_back_until_it_is_known() -> None:
    events = read(
        chunks(
            piece('{"n"', call_id="a", index=0),
            piece(":1", index=0),
            piece("}", name="f", index=0),
        )
    )

    assert events[0] == ToolArguments("a", "f", '{"n":1}')


def test_an_id_that_comes_after_the_name_does_not_open_a_second_call() -> None:
    assert calls(piece(name="f", index=0), piece('{"n":1}', call_id="a", index=0)) == [
        ("f", {"n": 1})
    ]


def test_arguments_may_be_an_object() -> None:
    assert calls(piece({"n": 1}, name="f", call_id="a")) == [("f", {"n": 1})]


def test_every_call_has_an_id_of_its_own_even_if_the_vendor_gives_none() -> None:
    deltas = [piece("{}", name="f", index=0), piece("{}", name="g", index=1)]

    ids = {event.call_id for event in read(chunks(*deltas)) if isinstance(event, ToolCall)}

    assert len(ids) == 2
    assert all(ids)


@pytest.mark.parametrize("raw", ['{"n":', "[1]", "nonsense", '{"n":NaN}', '{"n":' + "[" * 99999])
def test_arguments_that_are_no_object_are_told_as_written(raw: str) -> None:
    events = read(chunks(piece(raw, name="f", call_id="a")))

    assert ToolCall("a", "f", None, raw) in events


def test_half_a_character_does_not_spoil_the_text() -> None:
    events = read(
        chunks({"content": "a \ud83d"}, piece('{"n":"\\ud83d"}', name="f"), finish="stop")
    )

    assert events[0] == TextDelta("a \ufffd")
    assert ToolCall(events[1].call_id, "f", {"n": "\ufffd"}, '{"n":"\\ud83d"}') in events  # type: ignore[union-attr]


def test_no_arguments_are_an_empty_object_unless_the_answer_was_cut_off_there() -> None:
    assert calls(piece(name="f", call_id="a")) == [("f", {})]
    assert calls(piece(name="f", call_id="a"), finish="length") == [("f", None)]


def test_a_call_without_a_name_is_an_error() -> None:
    with pytest.raises(ProviderBadResponse, match="without naming it"):
        read(chunks(piece("{}", call_id="a")))


@pytest.mark.parametrize(
    "row",
    [
        "[]",
        '"text"',
        '{"choices": null}',
        '{"choices": [null]}',
        '{"choices": [{"delta": null}]}',
        '{"choices": [{"delta": {"content": 1, "tool_calls": [null, {"function": null}]}}]}',
        '{"usage": {"prompt_tokens": null}}',
    ],
)
def test_values_of_unexpected_types_are_skipped(row: str) -> None:
    ended = chunks({"content": "Hi"}, finish="stop")

    events = read(b"data: " + row.encode() + b"\n\n" + ended)

    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("Hi")]
    assert isinstance(events[-1], Finished)


def verbatim(*deltas: dict[str, Any], finish: str = "stop") -> Any:
    found = [event for event in read(chunks(*deltas, finish=finish)) if isinstance(event, Verbatim)]
    return found[0].content if found else None


def test_details_of_reasoning_that_come_in_pieces_are_one() -> None:
    def detail(**more: str) -> dict[str, Any]:
        return {"reasoning_details": [{"type": "reasoning.text", "index": 0, **more}]}

    said = verbatim(detail(text=""), detail(text="I "), detail(text="think"), detail(signature="s"))

    whole = {"type": "reasoning.text", "index": 0, "text": "I think", "signature": "s"}
    assert said == {"reasoning_details": [whole]}


def thinking(*texts: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text} for text in texts]}


@pytest.mark.parametrize(
    ("deltas", "kept"),
    [
        ([{"reasoning_content": "h"}, {"reasoning_content": "m"}], {"reasoning_content": "hm"}),
        ([{"reasoning": "hm"}, {"content": "Yes."}], {"reasoning": "hm"}),
        ([{"reasoning": "hm", "reasoning_content": "hm"}], {"reasoning_content": "hm"}),
        (
            [{"content": "<think>hm</th"}, {"content": "ink>Yes."}],
            {"content": "<think>hm</think>Yes."},
        ),
        (
            [{"content": [thinking("h", "m"), thinking()]}, {"content": "Yes."}],
            {"content": [thinking("hm"), {"type": "text", "text": "Yes."}]},
        ),
        ([{"content": [thinking("hm")]}], {"content": [thinking("hm")]}),
    ],
)
def test_plain_reasoning_is_kept_where_it_was_for_the_answer_to_a_call_and_not_otherwise(
    deltas: list[dict[str, Any]], kept: Any
) -> None:
    assert verbatim(*deltas, piece("{}", name="f", call_id="a"), finish="tool_calls") == kept
    assert verbatim(*deltas) is None


def test_what_gemini_puts_beside_a_call_is_kept_for_that_call() -> None:
    signed = piece("{}", name="f", call_id="a")
    signed["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "s"}}

    said = verbatim(piece("{}", name="g", call_id="b"), signed, finish="tool_calls")

    assert said == {"tool_calls": [{}, {"extra_content": {"google": {"thought_signature": "s"}}}]}


def test_pages_that_are_cited_and_images_that_are_made_are_told() -> None:
    url = {"url": "https://example.com/a", "title": "A"}
    image = {"image_url": {"url": "data:image/png;base64,iVBORw=="}}
    broken = {"image_url": {"url": "data:image/png;base64,***"}}

    events = read(
        chunks(
            {"annotations": [{"type": "url_citation", "url_citation": url}, {"type": "other"}]},
            {"images": [image, broken]},
            finish="stop",
        )
    )

    assert Citation("https://example.com/a", "A") in events
    assert [event.data for event in events if isinstance(event, Media)] == [b"\x89PNG"]


def test_a_cost_that_the_vendor_names_is_no_estimate() -> None:
    row = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.5}}
    body = b"data: " + json.dumps(row).encode() + b"\n\n" + chunks(finish="stop")

    [report] = [event for event in read(body) if isinstance(event, UsageReport)]

    assert report.usage.cost == Cost(amount=0.5, estimated=False)

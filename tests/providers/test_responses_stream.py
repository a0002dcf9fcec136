"""What every event of a Responses stream means, and what is made of a stream that lacks some."""

import base64
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from pydantic import JsonValue

from sidecar import errors
from sidecar.providers.base import (
    Citation,
    Finished,
    Media,
    ModelEvent,
    ProviderItem,
    ReasoningDelta,
    TextDelta,
    ToolArguments,
    ToolCall,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.responses_stream import ResponsesStream
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseEvent

Event = dict[str, Any]


def read(*events: Event | str, name: str = "") -> list[ModelEvent]:
    machine = ResponsesStream(Vendor("acme", "http://acme/v1"))
    told: list[ModelEvent] = []
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        told += machine.feed(SseEvent(name, data))
    return [*told, *machine.end()]


def added(index: int | None, type: str, **item: Any) -> Event:
    return {"type": "response.output_item.added"} | _item(index, type, item)


def done(index: int | None, type: str, **item: Any) -> Event:
    return {"type": "response.output_item.done"} | _item(index, type, item)


def _item(index: int | None, type: str, item: Event) -> Event:
    return {"output_index": index, "item": {"type": type, **item}}


def delta(kind: str, index: int | None, text: Any, **more: Any) -> Event:
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": text, **more}


def ended(status: str = "completed", **response: Any) -> Event:
    return {"type": f"response.{status}", "response": {"status": status, **response}}


def spoken(text: str, *annotations: Event, **more: Any) -> Event:
    part = {"type": "output_text", "text": text, "annotations": list(annotations)}
    return {"role": "assistant", "content": [part], **more}


def asked(call_id: str = "call_1", arguments: Any = "{}", **more: Any) -> Event:
    return {"call_id": call_id, "name": "f", "arguments": arguments, **more}


def text_of(events: Iterable[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def reasoning_of(events: Iterable[ModelEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, ReasoningDelta)]


def calls_of(events: Iterable[ModelEvent]) -> list[ToolCall]:
    return [event for event in events if isinstance(event, ToolCall)]


def verbatim_of(events: Iterable[ModelEvent]) -> Any:
    (found,) = [event for event in events if isinstance(event, Verbatim)]
    assert found.format == "responses"
    return found.content


def test_text_comes_as_it_is_written_and_not_again_in_its_repetitions() -> None:
    message = spoken("Hello.", id="msg_1")

    events = read(
        added(0, "message", id="msg_1"),
        delta("output_text", 0, "Hel"),
        delta("output_text", 0, "lo."),
        {"type": "response.output_text.done", "output_index": 0, "text": "Hello."},
        done(0, "message", **message),
        ended(output=[{"type": "message", **message}]),
    )

    assert events == [TextDelta("Hel"), TextDelta("lo."), Finished("stop", "completed")]


@pytest.mark.parametrize(
    "rest",
    [
        [{"type": "response.output_text.done", "output_index": 0, "text": "Hello."}],
        [done(0, "message", **spoken("Hello."))],
        [added(0, "message"), done(0, "message", **spoken("Hello."))],
        [],
    ],
)
def test_text_without_deltas_is_told_by_whatever_has_it(rest: list[Event]) -> None:
    events = read(*rest, ended(output=[{"type": "message", **spoken("Hello.")}]))

    assert events == [TextDelta("Hello."), Finished("stop", "completed")]


def test_deltas_that_stop_early_are_completed_from_the_final_item() -> None:
    parts = [{"type": "output_text", "text": "Hello, "}, {"type": "output_text", "text": "you."}]

    events = read(
        delta("output_text", 0, "Hel"),
        done(0, "message", content=parts),
        ended(),
    )

    assert [event.text for event in events if isinstance(event, TextDelta)] == [
        "Hel",
        "lo, ",
        "you.",
    ]


def test_a_final_text_that_differs_from_its_deltas_is_not_told_beside_them() -> None:
    events = read(delta("output_text", 0, "Hello"), done(0, "message", **spoken("Bye")), ended())

    assert text_of(events) == "Hello"


def test_a_last_event_without_output_takes_nothing_back() -> None:
    assert text_of(read(done(0, "message", **spoken("Hello.")), ended(output=[]))) == "Hello."


def test_items_whose_ids_change_on_the_way_are_known_by_their_place() -> None:
    events = read(
        added(0, "message", id="a"),
        delta("output_text", 0, "Hi", item_id="b"),
        done(0, "message", **spoken("Hi", id="c")),
        added(1, "function_call", **asked(id="d", arguments="")),
        delta("function_call_arguments", 1, '{"x":', item_id="e"),
        delta("function_call_arguments", 1, "1}", item_id="f"),
        done(1, "function_call", **asked(id="g", arguments='{"x":1}')),
        ended(
            output=[
                {"type": "message", **spoken("Hi", id="h")},
                {"type": "function_call", **asked(id="i", arguments='{"x":1}')},
            ]
        ),
    )

    assert text_of(events) == "Hi"
    assert calls_of(events) == [ToolCall("call_1", "f", {"x": 1}, '{"x":1}')]


def test_items_that_all_have_the_same_place_are_told_apart() -> None:
    events = read(
        added(0, "message", id="m"),
        delta("output_text", 0, "Hi"),
        done(0, "message", **spoken("Hi", id="m")),
        done(0, "function_call", **asked("call_1", id="a")),
        done(0, "function_call", **asked("call_2", id="b")),
        done(0, "function_call", **asked("call_2", id="b")),
        ended(),
    )

    assert text_of(events) == "Hi"
    assert [call.call_id for call in calls_of(events)] == ["call_1", "call_2"]


def test_items_without_a_place_are_known_by_their_ids() -> None:
    events = read(
        added(None, "function_call", **asked("call_1", id="a", arguments="")),
        added(None, "function_call", **asked("call_2", id="b", arguments="")),
        delta("function_call_arguments", None, '{"x":1}', item_id="a"),
        delta("function_call_arguments", None, '{"x":2}', item_id="b"),
        ended(),
    )

    assert [(call.call_id, call.arguments) for call in calls_of(events)] == [
        ("call_1", {"x": 1}),
        ("call_2", {"x": 2}),
    ]


def test_a_call_is_shown_as_it_is_written_and_told_when_it_is_done() -> None:
    events = read(
        added(0, "function_call", **asked(arguments="")),
        delta("function_call_arguments", 0, '{"x":'),
        delta("function_call_arguments", 0, "1}"),
        done(0, "function_call", **asked(arguments='{"x":1}')),
        ended(),
    )

    assert events == [
        ToolArguments("call_1", "f", '{"x":'),
        ToolArguments("call_1", "f", "1}"),
        ToolCall("call_1", "f", {"x": 1}, '{"x":1}'),
        Finished("tool_calls", "completed"),
    ]


def test_parallel_calls_may_be_written_at_the_same_time() -> None:
    events = read(
        added(0, "function_call", **asked("call_1", arguments="")),
        added(1, "function_call", **asked("call_2", arguments="")),
        delta("function_call_arguments", 1, '{"b":'),
        delta("function_call_arguments", 0, '{"a":1}'),
        delta("function_call_arguments", 1, "2}"),
        done(1, "function_call", **asked("call_2", '{"b":2}')),
        done(0, "function_call", **asked("call_1", '{"a":1}')),
        ended(),
    )

    assert {call.call_id: call.arguments for call in calls_of(events)} == {
        "call_1": {"a": 1},
        "call_2": {"b": 2},
    }


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [("", {}), ("{}", {}), ({"x": 1}, {"x": 1}), (None, {}), ("[1]", None), ('{"x":', None)],
)
def test_arguments_may_be_missing_an_object_or_no_object(arguments: Any, parsed: Any) -> None:
    (call,) = calls_of(read(done(0, "function_call", **asked(arguments=arguments)), ended()))

    assert call.arguments == parsed


def test_a_call_that_only_deltas_told_is_told_at_the_end() -> None:
    events = read(
        added(0, "function_call", **asked(arguments="")),
        delta("function_call_arguments", 0, '{"x":1}'),
        ended(),
    )

    assert calls_of(events) == [ToolCall("call_1", "f", {"x": 1}, '{"x":1}')]


def test_a_call_that_was_cut_before_its_arguments_does_not_run_without_them() -> None:
    events = read(
        added(0, "function_call", **asked(arguments="")),
        ended("incomplete", incomplete_details={"reason": "max_output_tokens"}),
    )

    assert calls_of(events) == [ToolCall("call_1", "f", None, "")]


def test_calls_that_share_an_id_or_have_none_get_their_own() -> None:
    events = read(
        done(0, "function_call", **asked("call_1")),
        done(1, "function_call", **asked("call_1")),
        done(2, "function_call", name="f", arguments="{}", id="fc_2"),
        done(3, "function_call", name="f", arguments="{}"),
        ended(),
    )

    ids = [call.call_id for call in calls_of(events)]
    assert len(set(ids)) == 4
    assert ids[0] == "call_1" and ids[2] == "fc_2" and all(ids)


def test_a_call_without_a_name_is_an_error() -> None:
    with pytest.raises(errors.ProviderBadResponse, match="without naming it"):
        read(done(0, "function_call", call_id="call_1", arguments="{}"), ended())


def test_a_custom_tools_input_is_no_object_even_where_it_looks_like_one() -> None:
    item = {"call_id": "call_1", "name": "sql", "input": "{}"}

    events = read(
        added(0, "custom_tool_call", call_id="call_1", name="sql", input=""),
        delta("custom_tool_call_input", 0, "{}"),
        done(0, "custom_tool_call", **item),
        ended(),
    )

    assert events[0] == ToolArguments("call_1", "sql", "{}")
    assert calls_of(events) == [ToolCall("call_1", "sql", None, "{}")]
    assert verbatim_of(events) == [{"type": "custom_tool_call", **item}]


def test_the_parts_of_a_summary_are_a_blank_line_apart() -> None:
    summary = [{"type": "summary_text", "text": text} for text in ("One.", "Two.", "Three.")]

    events = read(
        added(0, "reasoning", id="rs_1"),
        delta("reasoning_summary_text", 0, "One", summary_index=0),
        delta("reasoning_summary_text", 0, ".", summary_index=0),
        delta("reasoning_summary_text", 0, "Two.", summary_index=1),
        done(0, "reasoning", id="rs_1", summary=summary, encrypted_content="gAAA"),
        ended(),
    )

    assert reasoning_of(events) == ["One", ".", "\n\n", "Two.", "\n\n", "Three."]


def test_reasoning_is_set_apart_from_reasoning_and_from_nothing_else() -> None:
    events = read(
        delta("reasoning_text", 0, "Hm."),
        delta("reasoning_text", 1, "Ah."),
        delta("output_text", 2, "So: "),
        delta("reasoning_text", 3, "Oh."),
        ended(),
    )

    assert reasoning_of(events) == ["Hm.", "\n\n", "Ah.", "Oh."]


@pytest.mark.parametrize(
    "item",
    [
        {"summary": [{"text": "Hm."}], "content": [{"text": "The long of it."}]},
        {"summary": [], "content": [{"text": "Hm."}]},
        {"content": [{"text": "Hm."}]},
        {"summary": [{"text": ""}], "content": [{"text": "Hm."}]},
    ],
)
def test_reasoning_without_deltas_is_the_summary_or_else_the_text(item: Event) -> None:
    assert reasoning_of(read(done(0, "reasoning", **item), ended())) == ["Hm."]


def test_raw_reasoning_that_was_told_is_not_told_again_as_a_summary() -> None:
    item = {"summary": [{"text": "In short."}], "content": [{"text": "At length."}]}

    events = read(delta("reasoning_text", 0, "At "), done(0, "reasoning", **item), ended())

    assert reasoning_of(events) == ["At ", "length."]


def test_reasoning_that_is_not_shown_is_told_to_have_been() -> None:
    events = read(
        done(0, "reasoning", id="rs_1", summary=[], encrypted_content="gAAA"),
        done(1, "message", **spoken("Hi")),
        ended(),
    )

    assert events[:2] == [ReasoningDelta(""), TextDelta("Hi")]


def test_the_encrypted_reasoning_of_the_finished_item_is_kept_and_no_other() -> None:
    whole = {"id": "rs_1", "summary": [], "encrypted_content": "whole"}

    events = read(
        added(0, "reasoning", id="rs_1", encrypted_content="begun"),
        done(0, "reasoning", **whole),
        ended(output=[{"type": "reasoning", **whole, "encrypted_content": "made anew"}]),
    )

    assert verbatim_of(events) == [{"type": "reasoning", **whole}]


def test_what_was_said_stands_in_the_order_of_its_places() -> None:
    events = read(
        added(0, "reasoning", id="rs_1"),
        added(1, "message", id="msg_1"),
        done(1, "message", **spoken("Hi", id="msg_1")),
        done(0, "reasoning", id="rs_1", summary=[], encrypted_content="gAAA"),
        ended(),
    )

    assert [item["type"] for item in verbatim_of(events)] == ["reasoning", "message"]


@pytest.mark.parametrize(
    ("item", "is_kept"),
    [
        ({"type": "message", **spoken("Hi")}, False),
        ({"type": "function_call", **asked()}, False),
        ({"type": "message", **spoken("Hi", phase="commentary")}, True),
        ({"type": "message", **spoken("Hi", {"type": "url_citation", "url": "u"})}, True),
        ({"type": "function_call", **asked(namespace="n")}, True),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, True),
        ({"type": "web_search_call", "id": "ws_1"}, True),
    ],
)
def test_the_vendors_own_words_are_kept_where_ours_do_not_say_it_all(
    item: Event, is_kept: bool
) -> None:
    events = read(ended(output=[item]))

    assert any(isinstance(event, Verbatim) for event in events) == is_kept


def test_a_refusal_is_text_and_a_reason() -> None:
    events = read(
        delta("refusal", 0, "I "),
        delta("refusal", 0, "can't."),
        done(0, "message", content=[{"type": "refusal", "refusal": "I can't."}]),
        ended(),
    )

    assert events == [TextDelta("I "), TextDelta("can't."), Finished("refusal", "completed")]


def test_a_refusal_without_deltas_is_one_too() -> None:
    events = read(
        ended(output=[{"type": "message", "content": [{"type": "refusal", "refusal": "No"}]}])
    )

    assert events == [TextDelta("No"), Finished("refusal", "completed")]


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "mcp_list_tools",
        "mcp_call",
        "tool_search_call",
        "tool_search_output",
        "compaction",
        "image_generation_call",
    ],
)
def test_what_the_vendor_did_by_itself_is_told_once_and_kept(kind: str) -> None:
    item = {"type": kind, "id": "x_1", "status": "completed"}

    events = read(
        added(0, kind, id="x_1", status="in_progress"),
        {"type": f"response.{kind}.in_progress", "output_index": 0},
        {"type": f"response.{kind}.completed", "output_index": 0},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        ended(output=[item]),
    )

    assert events == [
        ProviderItem(kind),
        Verbatim("responses", [dict[str, JsonValue](item)]),
        Finished("stop", "completed"),
    ]


def test_an_image_is_its_bytes() -> None:
    image = base64.b64encode(b"\x89PNG").decode()

    events = read(
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "AAAA"},
        done(0, "image_generation_call", result=image, output_format="webp"),
        ended(),
    )

    assert events[:2] == [ProviderItem("image_generation_call"), Media("image/webp", b"\x89PNG")]


@pytest.mark.parametrize("result", [None, "", "AAA", 7])
def test_an_image_that_cannot_be_read_is_left_out(result: Any) -> None:
    events = read(done(0, "image_generation_call", result=result), ended())

    assert not any(isinstance(event, Media) for event in events)


def test_annotations_are_citations_told_once_in_their_place() -> None:
    page = {"type": "url_citation", "url": "https://a.example", "title": "A"}
    file = {"type": "file_citation", "filename": "b.pdf", "file_id": "file_1"}
    path = {"type": "file_path", "file_id": "file_2"}
    note = {"type": "response.output_text.annotation.added", "output_index": 0}

    events = read(
        delta("output_text", 0, "So."),
        note | {"annotation": page},
        done(0, "message", **spoken("So.", page, file, path)),
        ended(),
    )

    assert events[:3] == [
        TextDelta("So."),
        Citation("https://a.example", "A"),
        Citation(None, "b.pdf"),
    ]
    assert sum(isinstance(event, Citation) for event in events) == 2


@pytest.mark.parametrize(
    ("last", "finished"),
    [
        (ended(), Finished("stop", "completed")),
        ({"type": "response.completed"}, Finished("stop", "completed")),
        (
            ended("incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Finished("length", "incomplete"),
        ),
        (
            ended("incomplete", incomplete_details={"reason": "content_filter"}),
            Finished("content_filter", "incomplete"),
        ),
        (ended("incomplete", incomplete_details=None), Finished("length", "incomplete")),
        # vLLM ends every answer as completed; only the status says what became of it.
        (ended() | {"response": {"status": "incomplete"}}, Finished("length", "incomplete")),
    ],
)
def test_why_an_answer_ended_is_said_by_its_status(last: Event, finished: Finished) -> None:
    assert read(delta("output_text", 0, "Hi"), last)[-1] == finished


@pytest.mark.parametrize("rest", [[], ["[DONE]"], [done(0, "message", **spoken("Hi"))]])
def test_an_answer_without_its_last_event_is_an_error(rest: list[Event | str]) -> None:
    with pytest.raises(errors.ProviderBadResponse, match="in the middle"):
        read(delta("output_text", 0, "Hi"), *rest)


def test_nothing_follows_the_last_event() -> None:
    events = read(ended(), delta("output_text", 0, "Hi"), "[DONE]", "no JSON")

    assert events == [Finished("stop", "completed")]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "Slow down."},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "Slow down."}},
        {"error": {"code": "rate_limit_exceeded", "message": "Slow down."}},
        ended("failed", error={"code": "rate_limit_exceeded", "message": "Slow down."}),
        {
            "type": "response.completed",
            "response": {
                "status": "failed",
                "error": {"code": "rate_limit_exceeded", "message": "Slow down."},
            },
        },
    ],
)
def test_an_error_inside_the_stream_is_the_vendors(event: Event) -> None:
    with pytest.raises(errors.RateLimited, match=r"Slow down\."):
        read(event)


def test_an_error_that_is_no_json_is_told_in_its_words() -> None:
    with pytest.raises(errors.ProviderError, match="upstream is gone"):
        read("upstream is gone", name="error")


@pytest.mark.parametrize(
    "last", [ended("failed", error=None), ended() | {"response": {"status": "cancelled"}}]
)
def test_a_failure_without_a_reason_is_one_all_the_same(last: Event) -> None:
    with pytest.raises(errors.ProviderBadResponse, match="gave up"):
        read(last)


def test_what_a_failed_answer_cost_is_told_before_the_error() -> None:
    machine = ResponsesStream(Vendor("acme", "http://acme/v1"))
    failed = ended("failed", error={"message": "Oops"}, usage={"input_tokens": 3})
    events = machine.feed(SseEvent("", json.dumps(failed)))

    first = next(events)
    with pytest.raises(errors.ProviderError, match="Oops"):
        next(events)

    assert isinstance(first, UsageReport) and first.usage.input == 3


def test_a_piece_that_is_no_json_is_an_error() -> None:
    with pytest.raises(errors.ProviderBadResponse, match="no JSON"):
        read('{"type": "response.output_text.delta", "del')


def test_usage_has_the_cached_and_the_reasoning_tokens() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 17,
    }

    (report, _) = read(ended(usage=usage))

    assert isinstance(report, UsageReport)
    assert report.usage.model_dump() == {
        "input": 10,
        "output": 7,
        "cached": 4,
        "cache_written": 0,
        "reasoning": 5,
    }


def test_xai_counts_reasoning_apart_from_the_output() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 22,
    }

    (report, _) = read(ended(usage=usage))

    assert isinstance(report, UsageReport)
    assert report.usage.output == 12


def test_the_type_may_stand_in_the_event_line_alone() -> None:
    machine = ResponsesStream(Vendor("acme", "http://acme/v1"))
    untyped = SseEvent("response.output_text.delta", '{"output_index": 0, "delta": "Hi"}')

    assert list(machine.feed(untyped)) == [TextDelta("Hi")]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.created", "response": {"status": "in_progress"}},
        {"type": "response.queued"},
        {"type": "response.invented.delta", "delta": "x"},
        {"type": "response.audio.delta", "delta": "AAAA"},
        {"type": "response.code_interpreter_call_code.delta", "output_index": 0, "delta": "1"},
        {"type": "response.mcp_call_arguments.delta", "output_index": 0, "delta": "{"},
        {"type": "response.shell_call_command.delta", "delta": "ls"},
        {"type": "keepalive", "sequence_number": 3},
        {"type": ["response.output_text.delta"], "delta": "x"},
        {},
        "null",
        "[1]",
    ],
)
def test_what_nobody_knows_is_skipped(event: Event | str) -> None:
    assert read(event, ended()) == [Finished("stop", "completed")]


HOSTILE: list[Any] = [
    None,
    7,
    -1,
    1e9,
    True,
    "",
    "x",
    [],
    [None, 7],
    {},
    {"type": 7},
    [{"type": "x"}],
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_field_of_another_type_never_breaks_anything(value: Any) -> None:
    """Whatever comes of it, it is an ending or the vendor's error."""
    whole = {
        "type": "message",
        "id": "i",
        "content": [{"type": "output_text", "text": "x", "annotations": [{"url": "u"}]}],
        "summary": [{"text": "t"}],
        "name": "f",
        "call_id": "c",
        "arguments": "{}",
        "input": "i",
        "result": "AAAA",
        "output_format": "png",
        "phase": "commentary",
        "encrypted_content": "e",
    }
    kinds = ("message", "reasoning", "function_call", "custom_tool_call", "image_generation_call")
    for kind in kinds:
        for name in whole:
            item = whole | {"type": kind, name: value}
            _survive(added(0, kind) | {"item": item}, done(0, kind) | {"item": item}, ended())
            _survive(ended(output=[item, value], usage=value, incomplete_details=value))
    for field in (
        "output_index",
        "content_index",
        "summary_index",
        "item_id",
        "delta",
        "text",
        "item",
    ):
        for type in ("output_text", "reasoning_summary_text", "function_call_arguments"):
            for suffix in ("delta", "done"):
                event = {
                    "type": f"response.{type}.{suffix}",
                    "delta": "x",
                    "text": "x",
                    field: value,
                }
                _survive(event, added(0, "message") | {field: value}, event, ended())
        note = {"type": "response.output_text.annotation.added", "annotation": {"url": "u"}}
        _survive(note | {field: value}, note | {"annotation": value}, ended())
    _survive({"type": "response.completed", "response": value})
    _survive({"type": "error", "error": value, "message": value, "code": value})


def _survive(*events: Event) -> None:
    with suppress(errors.ProviderError):
        assert isinstance(read(*events)[-1], Finished)

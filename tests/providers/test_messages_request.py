"""What a conversation looks like to Anthropic, and that its SDK's types agree."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from anthropic.types import message_create_params
from pydantic import TypeAdapter

from sidecar.messages import (
    FilePart,
    ImagePart,
    JsonObject,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    VendorContent,
)
from sidecar.providers.base import ModelInfo, ModelRequest, Params
from sidecar.providers.dialects.base import UNANSWERED, Extracted, Files, Native
from sidecar.providers.dialects.messages import Messages
from tests.providers.conftest import call, message, result, tool, user

MODEL = "claude-sonnet-4-5"
CACHED = {"cache_control": {"type": "ephemeral"}}
PUBLISHED = TypeAdapter[Any](message_create_params.MessageCreateParamsStreaming)


def body_of(request: ModelRequest, files: Files | None = None) -> Any:
    """The body, which Anthropic's own types must accept."""
    body = Messages("acme").encode(request, files or {}).body
    check_published(body)
    return body


def check_published(body: JsonObject) -> None:
    """Anthropic's types have no sampling any more; the API version that is asked for has it."""
    known = {key: value for key, value in body.items() if key not in ("temperature", "top_p")}
    exhaust(PUBLISHED.validate_python(known, extra="forbid"))


def exhaust(validated: Any) -> None:
    """Pydantic looks at the items of an Iterable when somebody takes them."""
    if isinstance(validated, dict):
        validated = validated.values()
    if isinstance(validated, Iterable) and not isinstance(validated, str):
        for item in validated:
            exhaust(item)


def asked(model: str = MODEL, **params: Any) -> Any:
    return body_of(ModelRequest(model, [user("Hi")], params=Params(**params)))


def turns(*history: Message, files: Files | None = None) -> list[tuple[str, list[Any]]]:
    """Roles and blocks, without the marks for the cache."""
    rows = body_of(ModelRequest(MODEL, history), files)["messages"]
    return [(row["role"], [unmarked(block) for block in row["content"]]) for row in rows]


def unmarked(block: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name != "cache_control"}


def assistant(*parts: Part, own: Any = None, first: int = 0) -> Message:
    words = VendorContent("acme", MODEL, "messages", first, len(parts), own)
    said = message("assistant", *parts)
    return said.model_copy(update={"vendor_content": (words,)}) if own else said


def text(said: str) -> JsonObject:
    return {"type": "text", "text": said}


def use(call_id: str, **arguments: Any) -> JsonObject:
    return {"type": "tool_use", "id": call_id, "name": "s_f", "input": arguments}


def test_only_what_was_set_and_what_is_required_is_sent() -> None:
    assert asked() == {
        "model": MODEL,
        "max_tokens": 64_000,
        "messages": [{"role": "user", "content": [text("Hi") | CACHED]}],
        "stream": True,
    }


def test_the_published_types_refuse_a_body_that_is_wrong() -> None:
    body = asked() | {"messages": [{"role": "user", "content": [{"type": "text"}]}]}

    with pytest.raises(ValueError, match="text"):
        check_published(body)


def test_the_published_types_refuse_a_parameter_that_is_unknown() -> None:
    with pytest.raises(ValueError, match="max_token"):
        check_published(asked() | {"max_token": 5})


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-3-haiku-20240307", 4096),
        ("claude-3-5-haiku-latest", 8192),
        ("claude-3-7-sonnet-20250219", 32_000),
        ("claude-sonnet-4-20250514", 32_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-haiku-4-5-20251001", 64_000),
        ("anthropic/claude-opus-4.5", 64_000),
        ("claude-opus-4-6", 128_000),
        ("claude-fable-5", 128_000),
        ("claude-opus-5-5", 128_000),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000),
        ("some-other-model", 8192),
    ],
)
def test_max_tokens_is_required_and_is_what_the_model_can_write(model: str, limit: int) -> None:
    assert asked(model)["max_tokens"] == limit
    assert asked(model, max_tokens=7)["max_tokens"] == 7


def test_every_parameter_has_its_name_on_the_wire() -> None:
    body = asked(temperature=0.0, top_p=0.5, stop=("END",))

    assert (body["temperature"], body["top_p"], body["stop_sequences"]) == (0.0, 0.5, ["END"])


def test_stops_of_white_space_only_are_not_sent_for_they_are_refused() -> None:
    assert asked(stop=("\n\n", "END"))["stop_sequences"] == ["END"]
    assert "stop_sequences" not in asked(stop=("\n\n", " "))


def test_a_temperature_above_one_is_one() -> None:
    assert asked(temperature=1.7)["temperature"] == 1.0


@pytest.mark.parametrize(
    ("effort", "budget"), [("minimal", 1024), ("low", 2048), ("medium", 8192), ("max", 32_000)]
)
def test_effort_is_a_budget_for_models_before_4_6(effort: str, budget: int) -> None:
    body = asked("claude-opus-4-5", reasoning_effort=effort)

    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert "output_config" not in body


@pytest.mark.parametrize(("max_tokens", "budget"), [(1025, 1024), (6000, 3000), (64_000, 16_384)])
def test_a_budget_leaves_room_for_the_answer(max_tokens: int, budget: int) -> None:
    body = asked(reasoning_effort="high", max_tokens=max_tokens)

    assert body["thinking"]["budget_tokens"] == budget < body["max_tokens"]


def test_there_is_no_thinking_where_its_smallest_budget_does_not_fit() -> None:
    assert "thinking" not in asked(reasoning_effort="high", max_tokens=1024)


def test_models_that_cannot_think_are_not_asked_to() -> None:
    assert "thinking" not in asked("claude-3-5-haiku-latest", reasoning_effort="high")


@pytest.mark.parametrize(("effort", "sent"), [("minimal", "low"), ("high", "high"), ("max", "max")])
def test_effort_is_adaptive_thinking_from_4_6_on(effort: str, sent: str) -> None:
    body = asked("claude-opus-4-6", reasoning_effort=effort)

    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": sent}


def test_no_effort_at_all_switches_thinking_off() -> None:
    assert asked("claude-opus-4-6", reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert "thinking" not in asked("claude-opus-4-5", reasoning_effort="none")


def test_sampling_is_not_sent_together_with_thinking() -> None:
    body = asked(reasoning_effort="low", temperature=0.5, top_p=0.5)

    assert not {"temperature", "top_p"} & set(body)


def test_a_schema_for_the_answer_has_no_bounds_and_no_further_properties() -> None:
    inner: JsonObject = {"type": ["object", "null"], "properties": {"minimum": {"type": "null"}}}
    schema: JsonObject = {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "minimum": 0, "description": "Years"},
            "names": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/name"}},
            "kind": {"const": {"type": "object"}},
            "more": {"anyOf": [inner, {"type": "string", "maxLength": 5}]},
        },
        "$defs": {"name": {"type": "object", "properties": {}}},
        "required": ["age"],
    }

    body = asked("claude-opus-4-6", json_schema=schema, reasoning_effort="low")

    assert body["output_config"]["effort"] == "low"
    assert body["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {
                "age": {"type": "integer", "description": "Years"},
                "names": {"type": "array", "items": {"$ref": "#/$defs/name"}},
                "kind": {"const": {"type": "object"}},
                "more": {"anyOf": [inner | {"additionalProperties": False}, {"type": "string"}]},
            },
            "$defs": {"name": {"type": "object", "properties": {}, "additionalProperties": False}},
            "required": ["age"],
            "additionalProperties": False,
        },
    }


def test_the_system_prompt_is_a_block_of_its_own() -> None:
    body = body_of(ModelRequest(MODEL, [user("Hi")], system_prompt="Be brief."))

    assert body["system"] == [text("Be brief.") | CACHED]


def test_an_empty_system_prompt_is_not_sent_for_it_is_refused() -> None:
    assert "system" not in body_of(ModelRequest(MODEL, [user("Hi")], system_prompt=" \n"))


def test_tools_are_sorted_by_name_and_always_take_an_object() -> None:
    tools = [tool("b", ""), tool("a", properties={"x": {"type": "integer"}}, required=["x"])]

    body = body_of(ModelRequest(MODEL, [user("Hi")], tools=tools))

    assert body["tools"] == [
        {
            "name": "a",
            "description": "Does a",
            "input_schema": {
                "type": "object",
                "properties": {"x": {"type": "integer"}},
                "required": ["x"],
            },
        },
        {"name": "b", "input_schema": {"type": "object", "properties": {}}, **CACHED},
    ]


def test_a_choice_at_the_top_of_a_tools_schema_is_left_out_for_it_is_refused() -> None:
    either = tool("a", anyOf=[{"required": ["x"]}, {"required": ["y"]}], properties={"x": {}})

    body = body_of(ModelRequest(MODEL, [user("Hi")], tools=[either]))

    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {"x": {}}}


def test_there_are_four_marks_for_the_cache_at_most() -> None:
    history = [user("a"), assistant(TextPart(text="b")), user("c"), assistant(TextPart(text="d"))]
    request = ModelRequest(
        MODEL, [*history, user("e")], system_prompt="S", tools=[tool("x"), tool("y")]
    )

    body = body_of(request)

    assert json.dumps(body).count("cache_control") == 4
    assert [row["content"][-1].get("cache_control") is not None for row in body["messages"]] == [
        False, False, True, False, True,
    ]  # fmt: skip


def test_a_step_is_asked_with_a_mark_where_the_step_before_ended() -> None:
    begun = [user("a")]
    then = assistant(call("1"), result("1", "one"))

    before = body_of(ModelRequest(MODEL, begun))["messages"]
    after = body_of(ModelRequest(MODEL, [*begun, then]))["messages"]

    assert after[: len(before)] == before
    assert after[-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}


def test_turns_of_the_same_side_are_one_turn() -> None:
    assert turns(user("one"), user("two")) == [("user", [text("one"), text("two")])]


def test_the_first_turn_is_always_the_users() -> None:
    history = assistant(TextPart(text="Welcome!")), user("Hi")

    assert turns(*history) == [
        ("user", [text("…")]),
        ("assistant", [text("Welcome!")]),
        ("user", [text("Hi")]),
    ]


def test_empty_text_is_never_sent_for_it_is_refused() -> None:
    history = (
        user(" \n"),
        assistant(TextPart(text="\n"), call("1"), result("1", " ")),
        message("user", TextPart(text=""), TextPart(text="Go on")),
    )

    assert turns(*history) == [
        ("user", [text("…")]),
        ("assistant", [use("1")]),
        ("user", [{"type": "tool_result", "tool_use_id": "1"}, text("Go on")]),
    ]


def test_a_last_turn_of_the_assistant_does_not_end_in_white_space_for_it_is_refused() -> None:
    assert turns(user("Hi"), assistant(TextPart(text="Well, \n")))[-1] == (
        "assistant",
        [text("Well,")],
    )


def test_parallel_results_are_one_turn_right_after_their_calls_and_before_any_text() -> None:
    turn = assistant(
        ReasoningPart(text="Hm."),
        TextPart(text="Let me look."),
        call("a", x=1),
        call("b"),
        result("b", "no such file", "error"),
        result("a", "one"),
        TextPart(text="Then this."),
        call("c"),
    )

    assert turns(user("Hi"), turn, user("And?"))[1:] == [
        ("assistant", [text("Let me look."), use("a", x=1), use("b")]),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": "no such file",
                    "is_error": True,
                },
            ],
        ),
        ("assistant", [text("Then this."), use("c")]),
        (
            "user",
            [
                {
                    "type": "tool_result",
                    "tool_use_id": "c",
                    "content": UNANSWERED,
                    "is_error": True,
                },
                text("And?"),
            ],
        ),
    ]


def test_a_step_goes_back_in_the_vendors_own_words() -> None:
    own = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "AAAA"},
        text("Let me look."),
        use("toolu_x", x=1),
        use("toolu_y"),
    ]
    parts = ReasoningPart(text="Hm."), TextPart(text="Let me look."), call("a", x=1), call("b")

    (_, said, (_, results)) = turns(
        user("Hi"), assistant(*parts, result("b", "two"), result("a", "one"), own=own)
    )

    assert said == ("assistant", own)
    assert [(block["tool_use_id"], block["content"]) for block in results] == [
        ("toolu_x", "one"),
        ("toolu_y", "two"),
    ]


@pytest.mark.parametrize("own", [[use("x"), use("y")], {"type": "text"}, [3, {"no": "type"}]])
def test_words_that_do_not_fit_the_step_are_not_used(own: Any) -> None:
    history = user("Hi"), assistant(call("a"), result("a", "one"), own=own)

    assert turns(*history)[1] == ("assistant", [use("a")])


@pytest.mark.parametrize(
    ("provider", "model", "form"),
    [("other", MODEL, "messages"), ("acme", "m", "messages"), ("acme", MODEL, "responses")],
)
def test_reasoning_of_another_model_is_left_out(provider: str, model: str, form: str) -> None:
    own: Any = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}, text("Hello")]
    words = VendorContent(provider, model, form, 0, 2, own)
    said = message("assistant", ReasoningPart(text="Hm."), TextPart(text="Hello"))

    history = user("Hi"), said.model_copy(update={"vendor_content": (words,)}), user("So?")

    assert turns(*history)[1] == ("assistant", [text("Hello")])


def test_files_are_sent_as_what_they_are_or_as_their_text() -> None:
    files: Files = {
        "i": Native("image/png", "aW1n"),
        "p": Native("application/pdf", "cGRm", "report.pdf"),
        "t": Extracted("a,b\n1,2", "table.csv"),
        "e": Extracted(" "),
    }
    parts: list[Part] = [TextPart(text="See:"), ImagePart(attachment_id="i", mime="image/png")]
    parts += [FilePart(attachment_id=name, mime="x/y") for name in ("p", "t", "e")]

    assert turns(message("user", *parts), files=files) == [
        (
            "user",
            [
                text("See:"),
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "aW1n"},
                },
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "cGRm"},
                    "title": "report.pdf",
                },
                text("a,b\n1,2"),
            ],
        )
    ]


def test_an_image_that_another_model_made_is_left_out_of_the_assistants_turn() -> None:
    made = assistant(TextPart(text="Here:"), ImagePart(attachment_id="i", mime="image/png"))

    assert turns(user("Draw"), made, user("Thanks"))[1] == ("assistant", [text("Here:")])


@pytest.mark.parametrize(
    ("complaint", "name"),
    [
        ("`temperature` is deprecated for this model.", "temperature"),
        ("temperature: Extra inputs are not permitted", "temperature"),
        ("`temperature` and `top_p` cannot both be specified for this model.", "top_p"),
        ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
        (
            '"thinking.type.enabled" is not supported for this model. Use '
            '"thinking.type.adaptive" and "output_config.effort" to control thinking.',
            "thinking",
        ),
        ("adaptive thinking is not supported on this model", "thinking"),
        ("This model does not support the effort parameter.", "output_config"),
        ("output_config.effort: Input should be 'low', 'medium' or 'high'", "output_config"),
        ("messages.0.content: Input should be a valid list", None),
        ("messages: at least one message is required", None),
        ("max_tokens: 64000 > 8192, which is the maximum allowed number", None),
    ],
)
def test_a_refused_parameter_is_known_from_the_complaint(complaint: str, name: str | None) -> None:
    effort: JsonObject = {"effort": "high"}
    body = asked(temperature=0.5, top_p=0.5) | {"thinking": {}, "output_config": effort}

    assert Messages("acme").refused_parameter(complaint, body) == name


def test_without_effort_the_schema_of_the_answer_is_still_asked_for() -> None:
    messages = Messages("acme")
    form: JsonObject = {"type": "json_schema", "schema": {}}
    config: JsonObject = {"effort": "high", "format": form}

    without = messages.without({"model": "m", "output_config": config}, "output_config")

    assert without == {"model": "m", "output_config": {"format": form}}
    assert messages.refused_parameter("effort is not supported", without) is None


def test_without_a_parameter_the_rest_is_the_same() -> None:
    body: JsonObject = {"model": "m", "temperature": 1, "output_config": {"effort": "low"}}

    assert Messages("acme").without(body, "temperature") == {
        "model": "m", "output_config": {"effort": "low"},
    }  # fmt: skip
    assert Messages("acme").without(body, "output_config") == {"model": "m", "temperature": 1}


def test_models_are_listed_with_their_capabilities() -> None:
    rows = [
        {
            "type": "model",
            "id": "claude-opus-5-5",
            "display_name": "Claude Opus 5.5",
            "max_input_tokens": 1_000_000,
            "max_tokens": 128_000,
            "capabilities": {
                "image_input": {"supported": True},
                "thinking": {"supported": False, "types": {}},
            },
        },
        {"id": "claude-haiku-4-5", "capabilities": None, "max_tokens": "many"},
        {"id": "claude-3-opus", "lifecycle": "retired"},
        {"id": 5},
        "claude",
    ]

    models = Messages("acme").parse_models(json.dumps({"data": rows}).encode())

    assert models == [
        ModelInfo("claude-haiku-4-5", "claude-haiku-4-5", tools=True),
        ModelInfo(
            "claude-opus-5-5",
            "Claude Opus 5.5",
            context=1_000_000,
            max_output=128_000,
            vision=True,
            tools=True,
            reasoning=False,
        ),
    ]


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"data": 5}', b"<html>"])
def test_what_is_no_list_of_models_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        Messages("acme").parse_models(body)


def test_files_stay_below_the_vendors_limits_once_they_are_base64() -> None:
    takes = Messages("acme").takes

    assert takes.image_bytes * 4 / 3 <= 5 * 1024 * 1024
    assert takes.pdf_bytes * 4 / 3 < 32 * 1024 * 1024
    assert takes.image_side == 1568

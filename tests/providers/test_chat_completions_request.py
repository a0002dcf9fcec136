"""What a conversation looks like to a chat completions server."""

import re
from typing import Any

import pytest

from sidecar.messages import (
    JsonObject,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    VendorContent,
)
from sidecar.providers.base import ModelRequest, Params
from sidecar.providers.dialects.base import UNANSWERED
from sidecar.providers.dialects.chat_completions import ChatCompletions, TokenLimit
from tests.providers.conftest import call, message, result, tool, user


def encode_request(request: ModelRequest, token_limit: TokenLimit = "max_tokens") -> JsonObject:
    return ChatCompletions("acme", token_limit).encode(request, {}).body


def messages(*history: Message, system_prompt: str | None = None) -> Any:
    request = ModelRequest(model="m", history=history, system_prompt=system_prompt)
    return encode_request(request)["messages"]


def assistant(*parts: Part) -> Message:
    return message("assistant", *parts)


def wire_call(call_id: str, arguments: str = "{}") -> JsonObject:
    return {"id": call_id, "type": "function", "function": {"name": "s_f", "arguments": arguments}}


def test_only_what_was_set_is_sent() -> None:
    request = ModelRequest(model="m", history=[user("Hi")])

    assert encode_request(request) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_parameter_has_its_name_on_the_wire() -> None:
    schema: JsonObject = {"type": "object"}
    params = Params(
        temperature=0.0,
        top_p=0.5,
        max_tokens=7,
        reasoning_effort="low",
        stop=("END",),
        json_schema=schema,
    )

    body = encode_request(
        ModelRequest(model="m", history=[user("Hi")], params=params), "max_completion_tokens"
    )

    assert body["temperature"] == 0.0
    assert body["top_p"] == 0.5
    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body
    assert body["reasoning_effort"] == "low"
    assert body["stop"] == ["END"]
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }


def test_tools_are_sorted_by_name_and_always_take_an_object() -> None:
    tools = [tool("b"), tool("a", properties={"x": {"type": "integer"}}, required=["x"])]

    body = encode_request(ModelRequest("m", [user("Hi")], tools=tools), "max_tokens")

    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "a",
                "description": "Does a",
                "parameters": {
                    "type": "object",
                    "properties": {"x": {"type": "integer"}},
                    "required": ["x"],
                },
            },
        },
        {
            "type": "function",
            "function": {
                "name": "b",
                "description": "Does b",
                "parameters": {"type": "object", "properties": {}},
            },
        },
    ]


def test_the_system_prompt_comes_first_and_adjacent_user_messages_stay_apart() -> None:
    assert messages(user("one"), user("two"), system_prompt="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
    ]


def test_one_message_of_several_steps_is_cut_where_the_model_was_asked_again() -> None:
    turn = assistant(
        ReasoningPart(text="Hm."),
        TextPart(text="Let me look."),
        call("a", x=1),
        call("b"),
        result("b", "two"),
        result("a", "one"),
        TextPart(text="And once more."),
        call("c"),
        result("c", "three"),
        TextPart(text="Done."),
    )

    assert messages(user("Go"), turn)[1:] == [
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [wire_call("a", '{"x": 1}'), wire_call("b")],
        },
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
        {"role": "assistant", "content": "And once more.", "tool_calls": [wire_call("c")]},
        {"role": "tool", "tool_call_id": "c", "content": "three"},
        {"role": "assistant", "content": "Done."},
    ]


def test_calls_of_consecutive_steps_without_text_between_are_kept_apart() -> None:
    turn = assistant(call("a"), result("a", "one"), call("b"), result("b", "two"))

    assert [row["role"] for row in messages(turn)] == ["assistant", "tool", "assistant", "tool"]


def test_a_call_that_was_never_answered_is_answered_as_cancelled() -> None:
    turn = assistant(TextPart(text="I will "), call("a"), call("b"), result("a", "one"))

    assert messages(turn)[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": UNANSWERED},
    ]


def test_a_message_of_calls_alone_has_no_content() -> None:
    assert messages(assistant(call("a"), result("a", "one")))[0]["content"] is None


@pytest.mark.parametrize("parts", [(), (ReasoningPart(text="Hm."),), (TextPart(text=""),)])
def test_a_message_that_was_cut_before_it_said_anything_is_left_out(
    parts: tuple[Part, ...],
) -> None:
    assert messages(user("Hi"), assistant(*parts)) == [{"role": "user", "content": "Hi"}]


def test_arguments_that_were_no_json_go_back_as_an_empty_object() -> None:
    invalid = call("a").model_copy(update={"invalid_arguments": '{"x":'})

    calls = messages(assistant(invalid, result("a", "no JSON")))[0]["tool_calls"]

    assert calls == [wire_call("a", "{}")]


def test_a_list_of_models_keeps_what_the_vendor_says_of_each() -> None:
    body = b"""{"data": [
      {"id": "vendor/large", "name": "Large", "context_length": 200000,
       "architecture": {"input_modalities": ["text", "image"]},
       "supported_parameters": ["tools"], "top_provider": {"max_completion_tokens": 8192}},
      {"id": "small", "max_context_length": 32000,
       "capabilities": {"completion_chat": true, "function_calling": false, "vision": false}},
      {"id": "gpt-4o-mini"},
      {"id": "text-embedding-3-small"}, {"id": "whisper-1"}, {"id": "gpt-4o-mini-tts"},
      {"id": "embed", "capabilities": {"completion_chat": false}}, {"object": "model"}, null
    ]}"""

    plain, small, large = ChatCompletions("acme", "max_tokens").parse_models(body)

    assert (plain.model, plain.name, plain.context, plain.tools) == (
        "gpt-4o-mini",
        "gpt-4o-mini",
        None,
        None,
    )
    assert (small.model, small.context, small.tools, small.vision) == ("small", 32000, False, False)
    assert (large.name, large.context, large.max_output) == ("Large", 200000, 8192)
    assert (large.vision, large.tools, large.reasoning) == (True, True, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": 1}', b"null"])
def test_something_that_is_no_list_of_models_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        ChatCompletions("acme", "max_tokens").parse_models(body)


def with_extras(content: Any, *parts: Part, model: str = "m") -> Message:
    said = VendorContent("acme", model, "chat_completions", 0, 1, content)
    return assistant(*parts).model_copy(
        update={"model": f"acme/{model}", "vendor_content": (said,)}
    )


def test_what_a_server_said_beside_its_answer_comes_back_to_it_word_for_word() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x", "index": 0}]
    extra = {"extra_content": {"google": {"thought_signature": "sig"}}}
    turn = with_extras(
        {"reasoning_details": details, "tool_calls": [extra]}, call("a"), result("a", "one")
    )

    said = messages(turn)[0]

    assert said["reasoning_details"] == details
    assert said["tool_calls"] == [{**wire_call("a"), **extra}]


@pytest.mark.parametrize(
    "content",
    [
        "<think>Hm.</think>Let me look.",
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}],
    ],
)
def test_reasoning_that_stood_in_the_text_comes_back_in_it(content: Any) -> None:
    turn = with_extras({"content": content}, ReasoningPart(text="Hm."), call("a"))

    assert messages(turn)[0]["content"] == content


def test_another_model_gets_neither_the_extras_nor_the_ids_of_the_one_before() -> None:
    turn = with_extras(
        {"reasoning_content": "hm"}, call("call_a"), result("call_a", "one"), model="other"
    )

    said, answer = messages(turn)

    assert set(said) == {"role", "content", "tool_calls"}
    assert re.fullmatch("[a-z0-9]{9}", said["tool_calls"][0]["id"])
    assert answer["tool_call_id"] == said["tool_calls"][0]["id"]

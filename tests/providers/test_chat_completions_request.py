"""What a conversation looks like to a chat completions server, held to the types of the SDK."""

import re
from collections.abc import Iterable
from typing import Any

import pytest
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

from sidecar.messages import (
    FilePart,
    ImagePart,
    JsonObject,
    MediaContent,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    VendorContent,
)
from sidecar.providers.base import ModelRequest, Params
from sidecar.providers.dialects.base import SILENCE, UNANSWERED, Extracted, Files, Native
from sidecar.providers.dialects.chat_completions import ChatCompletions, TokenLimit
from tests.providers.conftest import call, message, result, tool, user

PUBLISHED = TypeAdapter[Any](completion_create_params.CompletionCreateParamsStreaming)


def encode_request(
    request: ModelRequest, token_limit: TokenLimit = "max_tokens", files: Files | None = None
) -> JsonObject:
    """The body, which OpenAI's own types must accept."""
    body = ChatCompletions("acme", token_limit).encode(request, files or {}).body
    check_published(body)
    return body


def check_published(body: Any) -> None:
    exhaust(PUBLISHED.validate_python(body, extra="forbid"))


def exhaust(validated: Any) -> None:
    """Pydantic looks at the items of an Iterable when somebody takes them."""
    if isinstance(validated, dict):
        validated = validated.values()
    if isinstance(validated, Iterable) and not isinstance(validated, str):
        for item in validated:
            exhaust(item)


def messages(
    *history: Message, system_prompt: str | None = None, files: Files | None = None
) -> Any:
    request = ModelRequest(model="m", history=history, system_prompt=system_prompt)
    return encode_request(request, files=files)["messages"]


def assistant(*parts: Part) -> Message:
    return message("assistant", *parts)


def said(text: str) -> TextPart:
    return TextPart(text=text)


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


def test_the_published_types_refuse_a_message_that_is_wrong() -> None:
    body: Any = encode_request(ModelRequest("m", [user("Hi")]))

    with pytest.raises(ValueError, match="tool_call_id"):
        check_published(body | {"messages": [{"role": "tool", "content": "one"}]})


def test_the_published_types_refuse_a_parameter_that_is_unknown() -> None:
    body = encode_request(ModelRequest("m", [user("Hi")]))

    with pytest.raises(ValueError, match="max_token"):
        check_published(body | {"max_token": 5})


def test_there_is_one_system_message_and_it_comes_first() -> None:
    roles = [row["role"] for row in messages(user("one"), user("two"), system_prompt="Be brief.")]

    assert roles == ["system", "user"]


def test_neighbours_of_one_side_are_one_message() -> None:
    turns = [user("one"), user("two"), *map(assistant, map(said, ("a", "b"))), user("three")]

    assert messages(*turns) == [
        {"role": "user", "content": "one\n\ntwo"},
        {"role": "assistant", "content": "a\n\nb"},
        {"role": "user", "content": "three"},
    ]


def test_what_an_assistant_says_before_its_calls_is_one_message_with_them() -> None:
    turns = [user("Go"), assistant(said("Yes.")), assistant(call("a"), result("a", "one"))]

    assert messages(*turns)[1] == {
        "role": "assistant",
        "content": "Yes.",
        "tool_calls": [wire_call("a")],
    }


def test_text_and_an_image_of_neighbours_are_one_list() -> None:
    image = message("user", ImagePart(attachment_id="p", mime="image/png"), said(" "))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

    rows = messages(user("Look"), image, user("Well?"), files={"p": Native("image/png", "AAAA")})

    content = [{"type": "text", "text": "Look"}, picture, {"type": "text", "text": "Well?"}]
    assert rows == [{"role": "user", "content": content}]


@pytest.mark.parametrize("empty", [(), (said(""),), (said(" \n"),)])
def test_an_empty_message_of_a_person_is_never_sent(empty: tuple[Part, ...]) -> None:
    nothing = message("user", *empty)

    assert messages(nothing) == [{"role": "user", "content": SILENCE}]
    assert messages(nothing, user("Hi"), nothing) == [{"role": "user", "content": "Hi"}]


def test_the_images_of_a_result_follow_it_as_a_persons_with_what_the_person_says_next() -> None:
    image = MediaContent(type="image", mime="image/png", bytes=3, attachment_id="p")
    given = result("a", "A view.").model_copy(update={"content": (image,)})

    rows = messages(
        user("Look"),
        assistant(call("a"), given),
        user("Well?"),
        files={"p": Native("image/png", "AAAA")},
    )

    assert [row["role"] for row in rows] == ["user", "assistant", "tool", "user"]
    assert rows[2]["content"] == "A view."
    assert [block["type"] for block in rows[3]["content"]] == ["text", "image_url", "text"]


def test_a_file_that_is_not_taken_is_sent_as_its_text() -> None:
    part = FilePart(attachment_id="f", mime="application/pdf")

    rows = messages(message("user", said("Read."), part), files={"f": Extracted("Words.")})

    assert rows == [{"role": "user", "content": "Read.\n\nWords."}]


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


@pytest.mark.parametrize("parts", [(), (ReasoningPart(text="Hm."),), (said(""),), (said("\n"),)])
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
    own = VendorContent("acme", model, "chat_completions", 0, 1, content)
    return assistant(*parts).model_copy(update={"model": f"acme/{model}", "vendor_content": (own,)})


def messages_of_others(turn: Message) -> Any:
    """With what OpenAI's own types do not know, inside of a call or of the text."""
    return (
        ChatCompletions("acme", "max_tokens").encode(ModelRequest("m", [turn]), {}).body["messages"]
    )


def test_what_a_server_said_beside_its_answer_comes_back_to_it_word_for_word() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x", "index": 0}]
    extra = {"extra_content": {"google": {"thought_signature": "sig"}}}
    turn = with_extras(
        {"reasoning_details": details, "tool_calls": [extra]}, call("a"), result("a", "one")
    )

    [row, _] = messages_of_others(turn)

    assert row["reasoning_details"] == details
    assert row["tool_calls"] == [{**wire_call("a"), **extra}]


@pytest.mark.parametrize(
    "content",
    [
        "<think>Hm.</think>Let me look.",
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}],
    ],
)
def test_reasoning_that_stood_in_the_text_comes_back_in_it(content: Any) -> None:
    turn = with_extras({"content": content}, ReasoningPart(text="Hm."), call("a"))

    [row, _] = messages_of_others(turn)

    assert row["content"] == content
    assert row["tool_calls"] == [wire_call("a")]


def test_another_model_gets_neither_the_extras_nor_the_ids_of_the_one_before() -> None:
    turn = with_extras(
        {"reasoning_content": "hm"}, call("call_a"), result("call_a", "one"), model="other"
    )

    row, answer = messages(turn)

    assert set(row) == {"role", "content", "tool_calls"}
    assert re.fullmatch("[a-z0-9]{9}", row["tool_calls"][0]["id"])
    assert answer["tool_call_id"] == row["tool_calls"][0]["id"]

"""Tools are offered so that no vendor refuses the whole request for one of them."""

from typing import Any

import pytest

from sidecar.messages import JsonObject
from sidecar.providers.base import ModelRequest
from sidecar.providers.dialects.base import Dialect, steps
from sidecar.providers.dialects.chat_completions import ChatCompletions
from sidecar.providers.dialects.responses import Responses
from sidecar.providers.dialects.tools import in_order, parameters
from tests.providers.conftest import call, message, result, tool, user

OPENAI = [ChatCompletions("acme", "max_completion_tokens"), Responses("acme")]
TOO_MANY = (
    "Invalid 'tools': array too long. Expected an array with maximum length 2, but got an array"
    " with length 3 instead. array_above_max_length invalid_request_error tools"
)
TOO_LONG = (
    "Invalid 'tools[1]{}.description': string too long. Expected a string with maximum length 7,"
    " but got a string with length 9 instead. string_above_max_length"
)


def test_tools_are_always_in_the_same_order() -> None:
    assert [each.name for each in in_order([tool("b"), tool("a"), tool("B")])] == ["B", "a", "b"]


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({}, {"type": "object", "properties": {}}),
        (
            {"type": ["object", "null"], "required": ["x"], "$defs": {"d": {}}},
            {"type": "object", "properties": {}, "required": ["x"], "$defs": {"d": {}}},
        ),
        (
            {
                "oneOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, True],
                "allOf": [{"properties": {"x": {"type": "null"}, "b": {}}}],
                "properties": {"x": {"anyOf": [{}]}},
                "not": {},
                "enum": [{}],
            },
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "x": {"anyOf": [{}]}, "b": {}},
            },
        ),
    ],
)
def test_parameters_are_plainly_an_object_and_choices_at_the_top_are_what_any_of_them_has(
    schema: Any, sent: JsonObject
) -> None:
    assert parameters(tool("a", **schema)) == sent


def asked(dialect: Dialect) -> JsonObject:
    tools = [tool("c"), tool("a", "Too long"), tool("b", "Short")]
    return dialect.encode(ModelRequest("m", [user("Hi")], tools=tools), {}).body


def described(body: Any) -> list[tuple[str, str]]:
    tools = [each.get("function", each) for each in body["tools"]]
    return [(each["name"], each["description"]) for each in tools]


@pytest.mark.parametrize("dialect", OPENAI, ids=["chat", "responses"])
def test_a_number_of_tools_that_is_too_large_is_cut_to_what_is_taken(dialect: Dialect) -> None:
    body = asked(dialect)

    name = dialect.refused_parameter(TOO_MANY, body)

    assert name == "more tools than 2"
    fewer = dialect.without(body, name)
    assert described(fewer) == described(body)[:2]
    assert dialect.refused_parameter(TOO_MANY, fewer) is None
    assert {**fewer, "tools": body["tools"]} == body


@pytest.mark.parametrize("dialect", OPENAI, ids=["chat", "responses"])
@pytest.mark.parametrize("place", ["", ".function"])
def test_descriptions_that_are_too_long_are_cut_to_what_is_taken(
    dialect: Dialect, place: str
) -> None:
    body, complaint = asked(dialect), TOO_LONG.format(place)

    name = dialect.refused_parameter(complaint, body)

    assert name == "longer descriptions of tools than 7"
    shorter = dialect.without(body, name)
    assert described(shorter) == [("a", "Too lon"), ("b", "Short"), ("c", "Does c")]
    assert dialect.refused_parameter(complaint, shorter) is None


@pytest.mark.parametrize("dialect", OPENAI, ids=["chat", "responses"])
def test_a_limit_on_tools_leaves_a_question_without_any_as_it_is(dialect: Dialect) -> None:
    body = dialect.encode(ModelRequest("m", [user("Hi")]), {}).body

    assert dialect.refused_parameter(TOO_MANY, body) is None
    assert dialect.without(body, "more tools than 2") == body


@pytest.mark.parametrize(
    ("called", "sent"),
    [
        ("s_f", "s_f"),
        ("functions.search/web", "functions_search_web"),
        ("2nd", "_2nd"),
        ("x" * 70, "x" * 64),
        ("9" * 70, "_" + "9" * 63),
    ],
)
def test_a_call_of_a_tool_that_was_never_offered_goes_back_under_a_name_that_is_taken(
    called: str, sent: str
) -> None:
    said = message("assistant", call("1", called), result("1", "There is no such tool.", "error"))

    [step] = steps(said, provider="acme", model="m", format="any")

    assert [each.offered_as for each in step.calls] == [sent]
    assert [answer.text for _, answer in step.answers()] == ["There is no such tool."]

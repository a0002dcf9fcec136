"""What a conversation looks like to Gemini."""

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from google.genai import types

from sidecar.messages import (
    CitationPart,
    ImagePart,
    JsonObject,
    MediaContent,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    VendorContent,
)
from sidecar.providers.base import ModelRequest, Notice, Params
from sidecar.providers.dialects.base import SILENCE, UNANSWERED, Encoded, Extracted, Files, Native
from sidecar.providers.dialects.generate_content import UNSIGNED, GenerateContent
from sidecar.providers.dialects.generate_content_stream import FORMAT
from tests.providers.conftest import call, message, result, tool, user

GEMINI = "gemini-3-pro-preview"
SIGNATURE = base64.b64encode(b"thoughts of the model").decode()


def encode(
    *history: Message,
    model: str = GEMINI,
    files: Files | None = None,
    params: Params | None = None,
    tools: Sequence[Tool] = (),
    system_prompt: str | None = None,
) -> Encoded:
    request = ModelRequest(
        model, history, tools=tools, params=params or Params(), system_prompt=system_prompt
    )
    return GenerateContent("acme").encode(request, files or {})


def contents(*history: Message, model: str = GEMINI, files: Files | None = None) -> Any:
    return encode(*history, model=model, files=files).body["contents"]


def config(model: str, **params: Any) -> Any:
    body = encode(user("Hi"), model=model, params=Params(**params)).body
    return body.get("generationConfig", {})


def assistant(*parts: Part, own: dict[int, Any] | None = None) -> Message:
    """`own` is what Gemini itself said, by the part with which each step begins."""
    content = tuple(
        VendorContent("acme", GEMINI, FORMAT, first, first + 1, said)
        for first, said in (own or {}).items()
    )
    return message("assistant", *parts).model_copy(update={"vendor_content": content})


def model_turn(*parts: Any) -> JsonObject:
    return {"role": "model", "parts": list(parts)}


def user_turn(*parts: Any) -> JsonObject:
    return {"role": "user", "parts": list(parts)}


def wire_call(name: str = "s_f", **args: Any) -> JsonObject:
    return {"functionCall": {"name": name, "args": args}}


def wire_result(text: str, name: str = "s_f", **more: Any) -> JsonObject:
    return {"functionResponse": {"name": name, "response": {"result": text}, **more}}


def test_only_what_was_set_is_sent() -> None:
    body = encode(user("Hi"), model="gemini-2.0-flash").body

    assert body == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_every_parameter_has_its_name_on_the_wire() -> None:
    schema: Any = {"type": "object", "properties": {"a": {"const": 1}}}
    params = Params(temperature=0.0, top_p=0.5, max_tokens=7, stop=("END",), json_schema=schema)

    body = encode(user("Hi"), model="gemini-2.0-flash", params=params, system_prompt="Be.").body

    assert body["systemInstruction"] == {"parts": [{"text": "Be."}]}
    assert body["generationConfig"] == {
        "temperature": 0.0,
        "topP": 0.5,
        "maxOutputTokens": 7,
        "stopSequences": ["END"],
        "responseMimeType": "application/json",
        "responseJsonSchema": {
            "type": "object",
            "properties": {"a": {"type": "number", "enum": [1]}},
        },
    }


def test_a_sixth_stop_sequence_is_left_out_and_told() -> None:
    encoded = encode(user("Hi"), model="gemini-2.0-flash", params=Params(stop=tuple("abcdef")))

    assert encoded.body["generationConfig"] == {"stopSequences": list("abcde")}
    assert [notice.code for notice in encoded.notices] == ["stop_dropped"]


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("gemini-3-pro-preview", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("models/gemini-3.5-flash", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("gemini-flash-latest", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("gemini-2.5-flash", {"includeThoughts": True, "thinkingBudget": 1024}),
        ("gemini-2.5-flash-image", None),
        ("gemini-2.5-flash-preview-tts", None),
        ("gemini-2.0-flash", None),
        ("gemma-3-27b-it", None),
    ],
)
def test_only_models_that_think_are_told_how_much(model: str, thinking: Any) -> None:
    assert config(model, reasoning_effort="low").get("thinkingConfig") == thinking


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-3-flash", None, {}),
        ("gemini-3-flash", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash", "high", {"thinkingLevel": "HIGH"}),
        ("gemini-2.5-pro", None, {}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24576}),
    ],
)
def test_the_effort_is_a_level_or_before_the_third_generation_a_budget(
    model: str, effort: str | None, thinking: Any
) -> None:
    told = config(model, reasoning_effort=effort)["thinkingConfig"]

    assert told == {"includeThoughts": True} | thinking


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("models/gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine:streamGenerateContent?alt=sse"),
        ("a?key=b#c d", "/v1beta/models/a%3Fkey%3Db%23c%20d:streamGenerateContent?alt=sse"),
    ],
)
def test_a_model_s_id_is_a_part_of_the_path(model: str, path: str) -> None:
    assert GenerateContent("acme").path(model) == path


def test_tools_are_sorted_and_one_without_parameters_has_no_schema() -> None:
    properties = {"x": {"type": "integer"}}
    tools = [tool("b", type="object", properties=properties), tool("a", type="object")]

    assert encode(user("Hi"), tools=tools).body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "a", "description": "Does a"},
                {
                    "name": "b",
                    "description": "Does b",
                    "parametersJsonSchema": {"type": "object", "properties": properties},
                },
            ]
        }
    ]


def test_a_tool_that_cannot_be_offered_is_left_out_and_named() -> None:
    encoded = encode(user("Hi"), tools=[tool("odd", type="array"), tool("fine")])

    tools: Any = encoded.body["tools"]
    (offered,) = tools[0]["functionDeclarations"]
    assert offered["name"] == "fine"
    assert encoded.notices == (
        Notice("tools_dropped", "Gemini cannot be offered odd (its parameters are no object)."),
    )


def test_without_any_tool_that_can_be_offered_there_are_none() -> None:
    assert "tools" not in encode(user("Hi"), tools=[tool("odd", type="array")]).body


def test_files_go_inside_the_request_and_extracted_ones_as_text() -> None:
    files: Files = {"1": Native("image/png", "iVBO"), "2": Extracted("A sheet.")}
    image = ImagePart(attachment_id="1", mime="image/png")
    other = ImagePart(attachment_id="2", mime="image/gif")

    assert contents(message("user", TextPart(text="Look"), image, other), files=files) == [
        user_turn(
            {"text": "Look"},
            {"inlineData": {"mimeType": "image/png", "data": "iVBO"}},
            {"text": "A sheet."},
        )
    ]


def test_each_call_is_answered_in_one_turn_in_the_order_of_the_calls() -> None:
    said = assistant(
        TextPart(text="Let me see."),
        call("1", "s_a", x=1),
        call("2", "s_b"),
        call("3", "s_c"),
        result("2", "two"),
        result("1", "broken", "error"),
        TextPart(text="Done."),
    )

    assert contents(user("Hi"), said, user("Thanks")) == [
        user_turn({"text": "Hi"}),
        model_turn(
            {"text": "Let me see."}, wire_call("s_a", x=1), wire_call("s_b"), wire_call("s_c")
        ),
        user_turn(
            {"functionResponse": {"name": "s_a", "response": {"error": "broken"}}},
            wire_result("two", "s_b"),
            {"functionResponse": {"name": "s_c", "response": {"error": UNANSWERED}}},
        ),
        model_turn({"text": "Done."}),
        user_turn({"text": "Thanks"}),
    ]


def test_nothing_is_sent_without_parts_and_neighbours_of_one_role_are_one() -> None:
    history = [
        user("One"),
        assistant(ReasoningPart(text="Hm."), CitationPart(url="https://a.example")),
        user(""),
        user("Two"),
        assistant(call("1"), result("1", "r")),
        user("Three"),
    ]

    assert contents(*history) == [
        user_turn({"text": "One"}, {"text": "Two"}),
        model_turn(wire_call()),
        user_turn(wire_result("r"), {"text": "Three"}),
    ]


def test_the_person_is_always_the_first_to_speak() -> None:
    silence = user_turn({"text": SILENCE})

    assert contents(assistant(TextPart(text="Hello.")), user("Hi")) == [
        silence,
        model_turn({"text": "Hello."}),
        user_turn({"text": "Hi"}),
    ]
    assert contents(assistant(), user("Hi")) == [user_turn({"text": "Hi"})]
    assert contents(user("")) == [silence]


@pytest.mark.parametrize(("model", "are_inside"), [(GEMINI, True), ("gemini-2.5-pro", False)])
def test_the_images_of_a_result_are_inside_of_it_where_the_model_takes_them_else_after_all(
    model: str, are_inside: bool
) -> None:
    image = MediaContent(type="image", mime="image/png", bytes=3, attachment_id="p")
    given = result("1", "A view.").model_copy(update={"content": (image,)})
    said = assistant(call("1"), call("2"), given, result("2", "b"))

    sent = contents(user("Look"), said, model=model, files={"p": Native("image/png", "AAAA")})

    shown: Any = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    if are_inside:
        expected = [wire_result("A view.", parts=[shown]), wire_result("b")]
    else:
        after = [{"text": "What s_f gave:"}, shown]
        expected = [wire_result("A view."), wire_result("b"), *after]
    assert sent[-1] == user_turn(*expected)
    for turn in sent:
        types.Content.model_validate(turn)


def test_gemini_s_own_parts_go_back_as_they_came() -> None:
    own = [
        {"text": "Hm.", "thought": True},
        {"functionCall": {"name": "s_f", "args": {"x": 1}}, "thoughtSignature": SIGNATURE},
        {"functionCall": {"name": "s_f", "args": {"x": 2}}},
    ]
    closing = [{"text": "Done."}, {"text": "", "thoughtSignature": SIGNATURE}]
    said = assistant(
        ReasoningPart(text="Hm."),
        call("ours-1", x=1),
        call("ours-2", x=2),
        result("ours-1", "a"),
        result("ours-2", "b"),
        TextPart(text="Done."),
        own={0: own, 5: closing},
    )

    assert contents(user("Hi"), said, user("Thanks")) == [
        user_turn({"text": "Hi"}),
        model_turn(*own),
        user_turn(wire_result("a"), wire_result("b")),
        model_turn(*closing),
        user_turn({"text": "Thanks"}),
    ]


def test_an_id_is_echoed_only_when_gemini_gave_it() -> None:
    own = [{"functionCall": {"name": "s_f", "args": {}, "id": "g1"}}, wire_call()]
    said = assistant(call("g1"), call("ours"), result("g1", "a"), result("ours", "b"), own={0: own})

    answered = contents(user("Hi"), said, model=GEMINI)[-1]

    assert answered == user_turn(wire_result("a", id="g1"), wire_result("b"))


def test_own_parts_of_other_calls_than_those_are_not_sent() -> None:
    said = assistant(call("1"), result("1", "a"), own={0: [wire_call("a"), wire_call("b")]})

    assert contents(user("Hi"), said, user("Go on"))[1] == model_turn(wire_call())


def test_a_foreign_step_of_the_current_turn_is_marked_on_its_first_call() -> None:
    old = assistant(call("0"), result("0", "old"))
    now = assistant(call("1"), call("2"), result("1", "a"), result("2", "b"), call("3"))

    sent = contents(user("Hi"), old, user("Again"), now)

    calls = [part for turn in sent if turn["role"] == "model" for part in turn["parts"]]
    assert [part.get("thoughtSignature") for part in calls] == [None, UNSIGNED, None, UNSIGNED]


def test_own_calls_that_lost_their_signature_are_marked_too() -> None:
    said = assistant(call("1"), result("1", "a"), own={0: [wire_call()]})

    assert contents(user("Hi"), said)[1] == model_turn(wire_call() | {"thoughtSignature": UNSIGNED})


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "gemini-2.0-flash", "gemma-3-27b-it"])
def test_before_the_third_generation_nothing_is_marked(model: str) -> None:
    said = assistant(call("1"), result("1", "a"))

    assert "thoughtSignature" not in repr(contents(user("Hi"), said, model=model))


def test_a_picture_that_gemini_made_goes_back_where_it_was_with_its_signature() -> None:
    own = [
        {"text": "Here."},
        {"inlineData": {"mimeType": "image/png"}, "thoughtSignature": SIGNATURE},
    ]
    picture = ImagePart(attachment_id="p", mime="image/png")
    said = assistant(TextPart(text="Here."), picture, own={0: own})

    (_, answer, _) = contents(
        user("Draw"), said, user("More"), files={"p": Native("image/jpeg", "AAAA")}
    )
    (_, without, _) = contents(user("Draw"), said, user("More"))

    blob = {"mimeType": "image/jpeg", "data": "AAAA"}
    assert answer == model_turn(
        {"text": "Here."}, {"inlineData": blob, "thoughtSignature": SIGNATURE}
    )
    assert without == model_turn({"text": "Here."})


@pytest.mark.parametrize(
    ("model", "complaint", "name", "left"),
    [
        (
            GEMINI,
            "Thinking level is not supported for this model.",
            "thinkingLevel",
            {"includeThoughts": True},
        ),
        (GEMINI, "Thinking is not enabled for models/gemini-x.", "thinkingConfig", None),
        (
            "gemini-2.5-pro",
            "Budget 0 is invalid. This model only works in thinking mode.",
            "thinkingBudget",
            {"includeThoughts": True},
        ),
        (
            GEMINI,
            "The thinking is too long. INVALID_ARGUMENT",
            None,
            {"includeThoughts": True, "thinkingLevel": "LOW"},
        ),
    ],
)
def test_what_a_model_refuses_of_thinking_is_left_out(
    model: str, complaint: str, name: str | None, left: Any
) -> None:
    dialect = GenerateContent("acme")
    params = Params(reasoning_effort="low", temperature=1)
    body: Any = encode(user("Hi"), model=model, params=params).body

    found = dialect.refused_parameter(complaint, body)
    rest: Any = body if found is None else dialect.without(body, found)

    assert found == name
    assert rest["generationConfig"].get("thinkingConfig") == left
    assert rest["generationConfig"]["temperature"] == 1
    assert body["generationConfig"]["thinkingConfig"]["includeThoughts"]


def test_a_system_prompt_that_a_model_refuses_is_said_first() -> None:
    dialect = GenerateContent("acme")
    body = encode(user("Hi"), model="gemma-3-27b-it", system_prompt="Be brief.").body

    found = dialect.refused_parameter("Developer instruction is not enabled for gemma-3", body)

    assert found == "systemInstruction"
    assert dialect.without(body, found) == {
        "contents": [user_turn({"text": "Be brief."}, {"text": "Hi"})]
    }


@pytest.mark.parametrize("name", ["thinkingConfig", "topP", "systemInstruction"])
def test_a_body_without_a_refused_parameter_stays_as_it_is(name: str) -> None:
    body = encode(user("Hi"), model="gemini-2.0-flash").body

    assert GenerateContent("acme").without(body, name) == body


def test_google_s_own_types_take_our_requests() -> None:
    schema: Any = {"type": "object", "properties": {"x": {"const": 1}}}
    params = Params(
        temperature=1,
        top_p=0.5,
        max_tokens=7,
        stop=("END",),
        json_schema=schema,
        reasoning_effort="low",
    )
    said = assistant(call("1", x=1), call("2"), result("1", "a"))
    image = ImagePart(attachment_id="p", mime="image/png")
    body: Any = encode(
        message("user", TextPart(text="Look"), image),
        said,
        params=params,
        system_prompt="Be.",
        tools=[tool("t", **schema)],
        files={"p": Native("image/png", "AAAA")},
    ).body

    for content in [*body["contents"], body["systemInstruction"]]:
        types.Content.model_validate(content)
    for offered in body["tools"]:
        types.Tool.model_validate(offered)
    types.GenerationConfig.model_validate(body["generationConfig"])
    assert body.keys() == {"contents", "systemInstruction", "tools", "generationConfig"}


def test_models_that_can_generate_are_listed_by_their_short_ids() -> None:
    listing = b"""{"models": [
        {"name": "models/gemini-b", "displayName": "B", "inputTokenLimit": 1000,
         "outputTokenLimit": 10, "supportedGenerationMethods": ["generateContent"],
         "thinking": true},
        {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]},
        {"name": "tunedModels/a", "supportedGenerationMethods": ["generateContent"]},
        {"name": 7, "supportedGenerationMethods": ["generateContent"]}, {}, null]}"""

    tuned, model = reversed(GenerateContent("acme").parse_models(listing))

    assert (tuned.model, tuned.name, tuned.reasoning) == ("tunedModels/a", "tunedModels/a", None)
    assert (model.model, model.name) == ("gemini-b", "B")
    assert (model.context, model.max_output, model.reasoning) == (1000, 10, True)


@pytest.mark.parametrize("listing", [b"[]", b"{}", b'{"models": {}}', b"<html>"])
def test_something_else_than_models_is_refused(listing: bytes) -> None:
    with pytest.raises(ValueError):
        GenerateContent("acme").parse_models(listing)

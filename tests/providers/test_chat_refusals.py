"""What servers of the chat completions format refuse, in their words, and what they get instead."""

from typing import Any

import pytest

from sidecar.messages import JsonObject
from sidecar.providers.base import Finished, ModelEvent, ModelRequest
from sidecar.providers.dialects.base import SILENCE
from sidecar.providers.dialects.chat_refusals import SYSTEM, TURNS, refused_by, without
from tests.providers.conftest import Open, user
from tests.support.fake_openai import FakeOpenAI, status, text

PROMPT: JsonObject = {"role": "system", "content": "Be brief."}
HI: JsonObject = {"role": "user", "content": "Hi"}
CALLED: JsonObject = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
ANSWERED: JsonObject = {"role": "tool", "tool_call_id": "a", "content": "one"}


def asked(*rows: JsonObject, **more: Any) -> JsonObject:
    return {"model": "m", "messages": [*rows], **more}


@pytest.mark.parametrize(
    "complaint",
    [
        # OpenAI of o1-mini; Gemma; Mistral's first; Ministral in llama.cpp; Mixtral in vLLM.
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "System role not supported",
        "Only user and assistant roles are supported!",
        "Only user, assistant and tool roles are supported, got system.",
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ],
)
def test_a_system_role_that_is_refused_becomes_the_first_thing_that_is_said(complaint: str) -> None:
    body = asked(PROMPT, HI, {"role": "assistant", "content": "Hello."}, temperature=1)

    name = refused_by(complaint, body)

    assert name == SYSTEM
    changed = without(body, name)
    assert changed == asked(
        {"role": "user", "content": "Be brief.\n\nHi"},
        {"role": "assistant", "content": "Hello."},
        temperature=1,
    )
    assert refused_by(complaint, changed) is None
    assert without(changed, name) == changed


def test_a_system_prompt_goes_in_front_of_an_image_too() -> None:
    image: JsonObject = {"type": "image_url", "image_url": {"url": "data:"}}

    changed = without(asked(PROMPT, {"role": "user", "content": [image]}), SYSTEM)

    told = [{"type": "text", "text": "Be brief."}, image]
    assert changed["messages"] == [{"role": "user", "content": told}]


@pytest.mark.parametrize(
    "complaint",
    [
        "Unexpected role 'user' after role 'tool'",
        "After the optional system message, conversation roles must alternate user and assistant"
        " roles except for tool calls and results.",
    ],
)
def test_a_person_who_may_not_speak_after_a_tool_speaks_after_a_silence(complaint: str) -> None:
    body = asked(PROMPT, HI, CALLED, ANSWERED, {"role": "user", "content": "And?"})

    name = refused_by(complaint, body)

    assert name == TURNS
    changed = without(body, name)
    silence: JsonObject = {"role": "assistant", "content": SILENCE}
    assert changed["messages"] == [
        *(PROMPT, HI, CALLED, ANSWERED),
        silence,
        {"role": "user", "content": "And?"},
    ]
    assert without(changed, name) == changed


def test_where_the_person_must_begin_a_silence_does() -> None:
    body = asked(PROMPT, {"role": "assistant", "content": "Hello."}, HI)

    name = refused_by("Conversation roles must alternate user/assistant/user/assistant/...", body)

    assert name == TURNS
    changed: Any = without(body, name)["messages"]
    assert [row["role"] for row in changed] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("complaint", "name"),
    [
        (  # Groq
            "'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' :"
            " property 'reasoning_content' is unsupported)]",
            "reasoning_content",
        ),
        ("property 'reasoning' is unsupported, did you mean 'role'?", "reasoning"),
        ("messages[1].reasoning: reasoning is not supported with this model", "reasoning"),
        ("Unknown parameter: 'messages[1].reasoning_details'.", "reasoning_details"),
    ],
)
def test_reasoning_that_a_server_gave_and_does_not_take_back_stays_away(
    complaint: str, name: str
) -> None:
    body = asked(HI, {**CALLED, name: "Hm."}, ANSWERED, stream=True)

    assert refused_by(complaint, body) == name
    assert without(body, name) == asked(HI, CALLED, ANSWERED, stream=True)
    assert refused_by(complaint, without(body, name)) is None


@pytest.mark.parametrize(
    ("complaint", "name"),
    [
        ("Model grok-4 does not support parameter reasoningEffort.", "reasoning_effort"),  # xAI
        ("Argument not supported on this model: stop", "stop"),
        ('[{"loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]', "top_p"),
        ("Unsupported parameter: 'max_tokens', use 'max_completion_tokens'", "max_tokens"),
        ("Unrecognized request argument supplied: stream_options", "stream_options"),
    ],
)
def test_a_parameter_is_known_by_its_name_in_any_vendors_spelling(
    complaint: str, name: str
) -> None:
    params: JsonObject = {"reasoning_effort": "low", "stop": ["."], "top_p": 1, "max_tokens": 5}
    body = asked(HI, stream_options={}, **params)

    assert refused_by(complaint, body) == name
    assert name not in without(body, name)


@pytest.mark.parametrize(
    "complaint",
    ["Unsupported value: 'stop' is a list.", "Unknown parameter: 'n'.", "temperature must be 1"],
)
def test_what_is_not_in_the_question_or_not_refused_is_not_taken_out(complaint: str) -> None:
    assert refused_by(complaint, asked(PROMPT, HI, temperature=2)) is None


@pytest.mark.parametrize("code", [400, 500])
async def test_a_system_role_is_asked_with_once_and_not_again(
    code: int, upstream: FakeOpenAI, open_it: Open
) -> None:
    provider = open_it(max_retries=1)
    upstream.will(status(code, "System role not supported"), text("Hi"))
    request = ModelRequest("m", [user("Hello")], system_prompt="Be brief.")

    for _ in range(2):
        last: ModelEvent | None = None
        async for event in provider.stream(request):
            last = event
        assert last == Finished("stop", "stop")

    first, *others = [body["messages"] for body in upstream.bodies]
    assert [row["role"] for row in first] == ["system", "user"]
    assert others == [[{"role": "user", "content": "Be brief.\n\nHello"}]] * 2

"""What a conversation looks like to OpenAI's Responses API, held to the types of its SDK."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from openai.types.responses import ResponseInputParam, ToolParam
from pydantic import TypeAdapter

from sidecar.config import ProviderKind
from sidecar.errors import ModelNotFound, ProviderError
from sidecar.messages import (
    CitationPart,
    FilePart,
    ImagePart,
    JsonObject,
    Message,
    Part,
    ProviderItemPart,
    ReasoningPart,
    TextPart,
    VendorContent,
)
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelRequest,
    Notice,
    Params,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Verbatim,
)
from sidecar.providers.dialects.base import SILENCE, UNANSWERED, Extracted, Files, Native
from sidecar.providers.dialects.responses import Responses
from tests.providers.conftest import Open, asking, call, message, result, tool, user
from tests.providers.test_chat_completions_request import assistant
from tests.support.fake_openai import Answer, FakeOpenAI, event, status

INPUT: TypeAdapter[Any] = TypeAdapter(ResponseInputParam)
ENCRYPTED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
SPOKEN = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
    "phase": "commentary",
}
ASKED = {"type": "function_call", "id": "fc_1", "call_id": "v", "name": "s_f", "arguments": "{}"}
SEARCHED: JsonObject = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "cats"},
}


@pytest.fixture
def kind() -> ProviderKind:
    return "openai"


def encoded(model: str = "m", **params: Any) -> JsonObject:
    request = ModelRequest(model=model, history=[user("Hi")], params=Params(**params))
    return Responses("acme").encode(request, {}).body


def items(*history: Message, files: Files | None = None) -> Any:
    request = ModelRequest(model="m", history=history)
    sent = Responses("acme").encode(request, files or {}).body["input"]
    _validate(sent)
    return sent


def _validate(sent: Any) -> None:
    """Strictly: an iterable of the SDK's types is looked at only when it is walked through."""
    for checked in INPUT.validate_python(sent):
        json.dumps(checked, default=list)


def turn(content: Any, *parts: Part, model: str = "m", format: str = "responses") -> Message:
    """A step that this vendor said in its own words, with the results of its calls."""
    own = VendorContent("acme", model, format, 0, len(parts), content)
    return assistant(*parts).model_copy(update={"vendor_content": (own,)})


def test_only_what_was_set_is_sent_and_nothing_is_kept() -> None:
    assert encoded("gpt-4o-mini") == {
        "model": "gpt-4o-mini",
        "input": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "store": False,
    }


def test_every_parameter_has_its_name_on_the_wire() -> None:
    schema = {"type": "object"}
    request = ModelRequest(
        model="m",
        history=[user("Hi")],
        system_prompt="Be brief.",
        params=Params(
            temperature=0.0, top_p=0.5, max_tokens=7, reasoning_effort="low", json_schema={**schema}
        ),
    )

    body = Responses("acme").encode(request, {}).body

    assert body["instructions"] == "Be brief."
    assert (body["temperature"], body["top_p"], body["max_output_tokens"]) == (0.0, 0.5, 7)
    assert body["reasoning"] == {"effort": "low"}
    assert body["text"] == {"format": {"type": "json_schema", "name": "answer", "schema": schema}}


def test_stop_sequences_are_left_out_and_said_to_be() -> None:
    request = ModelRequest(model="m", history=[user("Hi")], params=Params(stop=("END",)))

    sent = Responses("acme").encode(request, {})

    assert "stop" not in sent.body
    (notice,) = sent.notices
    assert isinstance(notice, Notice) and notice.code == "parameter_ignored"
    assert "`api: chat`" in notice.text


@pytest.mark.parametrize(
    "model",
    [
        "o1",
        "o3-mini",
        "o4-mini-2025-04-16",
        "gpt-5",
        "gpt-5.5-pro",
        "gpt-6-astra",
        "gpt-5.1-chat-latest",
        "openai/gpt-5",
        "gpt-oss-20b",
        "codex-mini-latest",
        "ft:o4-mini:acme::1",
    ],
)
def test_a_reasoning_model_is_asked_for_its_reasoning(model: str) -> None:
    body = encoded(model)

    assert body["include"] == ["reasoning.encrypted_content"]
    assert body["reasoning"] == {"summary": "auto"}


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o",
        "gpt-4.1-mini",
        "gpt-35-turbo",
        "gpt-5-chat-latest",
        "o1-mini",
        "llama3",
        "foo1",
        "mistral-large",
    ],
)
def test_a_model_that_does_not_reason_is_never_asked_to(model: str) -> None:
    body = encoded(model)

    assert "include" not in body
    assert "reasoning" not in body


def test_tools_are_sorted_by_name_and_never_strict() -> None:
    tools = [tool("b"), tool("a", properties={"x": {"type": "integer"}}, required=["x"])]

    body = Responses("acme").encode(ModelRequest("m", [user("Hi")], tools=tools), {}).body

    assert body["tools"] == [
        {
            "type": "function",
            "name": "a",
            "description": "Does a",
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "integer"}},
                "required": ["x"],
            },
            "strict": False,
        },
        {
            "type": "function",
            "name": "b",
            "description": "Does b",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        },
    ]
    TypeAdapter(list[ToolParam]).validate_python(body["tools"])


def test_files_go_with_the_text_that_they_came_with() -> None:
    asked = message(
        "user",
        TextPart(text="What are these?"),
        ImagePart(attachment_id="i", mime="image/png"),
        FilePart(attachment_id="p", mime="application/pdf"),
        FilePart(attachment_id="q", mime="application/pdf"),
        FilePart(attachment_id="t", mime="text/plain"),
    )
    files: Files = {
        "i": Native("image/png", "AAAA"),
        "p": Native("application/pdf", "BBBB", "report.pdf"),
        "q": Native("application/pdf", "CCCC"),
        "t": Extracted("Notes."),
    }

    (sent,) = items(asked, files=files)

    pdf = "data:application/pdf;base64,"
    assert sent["content"] == [
        {"type": "input_text", "text": "What are these?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "filename": "report.pdf", "file_data": f"{pdf}BBBB"},
        {"type": "input_file", "filename": "file.pdf", "file_data": f"{pdf}CCCC"},
        {"type": "input_text", "text": "Notes."},
    ]


def test_what_another_model_said_becomes_messages_and_calls_with_their_results() -> None:
    foreign = turn(
        [ENCRYPTED],
        ReasoningPart(text="Hm."),
        TextPart(text="Let me "),
        CitationPart(url="https://a.example"),
        TextPart(text="look."),
        call("a", x=1),
        call("b"),
        result("b", "two"),
        result("a", "one"),
        TextPart(text="Done."),
        model="another",
    )

    assert items(user("Go"), foreign) == [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "Let me look."},
        {"type": "function_call", "call_id": "a", "name": "s_f", "arguments": '{"x": 1}'},
        {"type": "function_call", "call_id": "b", "name": "s_f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "one"},
        {"type": "function_call_output", "call_id": "b", "output": "two"},
        {"role": "assistant", "content": "Done."},
    ]


def test_a_call_that_was_never_answered_is_answered_as_cancelled() -> None:
    assert items(assistant(call("a")))[1]["output"] == UNANSWERED
    assert items(turn([ENCRYPTED, ASKED], call("a")))[2]["output"] == UNANSWERED
    assert items(turn([ENCRYPTED, ASKED, ASKED | {"call_id": "w"}], call("a")))[4] == {
        "type": "function_call_output",
        "call_id": "w",
        "output": UNANSWERED,
    }


def test_an_id_or_a_name_that_openai_refuses_is_made_one_that_it_takes() -> None:
    odd = call("toolu_" + "x" * 90).model_copy(update={"offered_as": "no.such/tool"})

    asked, answered = items(assistant(odd, result(odd.tool_call_id, "one")))

    assert len(asked["call_id"]) == 64
    assert answered["call_id"] == asked["call_id"]
    assert asked["name"] == "no_such_tool"


def test_reasoning_goes_back_before_what_followed_from_it() -> None:
    said = turn(
        [ENCRYPTED, SPOKEN, ASKED],
        ReasoningPart(text=""),
        TextPart(text="Let me look."),
        call("a"),
        result("a", "one"),
    )

    assert items(said) == [
        ENCRYPTED,
        SPOKEN,
        ASKED,
        {"type": "function_call_output", "call_id": "v", "output": "one"},
    ]


def test_results_find_their_calls_in_order_whatever_the_ids_have_become() -> None:
    calls = [ASKED | {"call_id": "0", "id": "fc_1"}, ASKED | {"call_id": "1", "id": "fc_2"}]
    said = turn(calls, call("0_2"), call("1_2"), result("1_2", "two"), result("0_2", "one"))

    assert [(item["call_id"], item["output"]) for item in items(said)[2:]] == [
        ("0", "one"),
        ("1", "two"),
    ]


def test_a_custom_call_is_answered_in_its_kind() -> None:
    custom = {"type": "custom_tool_call", "call_id": "v", "name": "sql", "input": "SELECT"}

    sent = items(turn([custom], call("a"), result("a", "no such tool")))

    assert sent == [
        custom,
        {"type": "custom_tool_call_output", "call_id": "v", "output": "no such tool"},
    ]


def test_reasoning_that_is_not_encrypted_stays_away_with_the_ids_of_what_followed() -> None:
    bare: JsonObject = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None}
    said = turn(
        [bare, SEARCHED, SPOKEN, ASKED],
        ReasoningPart(text=""),
        ProviderItemPart(kind="web_search_call"),
        TextPart(text="Let me look."),
        call("a"),
        result("a", "one"),
    )

    assert items(said) == [
        {"role": "assistant", "content": "Let me look.", "phase": "commentary"},
        {"type": "function_call", "call_id": "v", "name": "s_f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "v", "output": "one"},
    ]


@pytest.mark.parametrize("before", [[], [SPOKEN]])
def test_reasoning_that_nothing_followed_is_not_sent(before: list[JsonObject]) -> None:
    cut = turn([*before, ENCRYPTED, ENCRYPTED | {"id": "rs_2"}], ReasoningPart(text=""))

    assert items(user("Hi"), cut)[1:] == before


def test_what_the_vendor_did_by_itself_goes_back_as_it_was() -> None:
    done: list[JsonObject] = [
        SEARCHED,
        {
            "type": "code_interpreter_call",
            "id": "ci_1",
            "status": "completed",
            "code": "1",
            "container_id": "c",
            "outputs": None,
        },
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [], "error": None},
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"},
    ]

    assert items(turn([ENCRYPTED, *done, SPOKEN], TextPart(text="x"))) == [ENCRYPTED, *done, SPOKEN]


def test_annotations_and_refusals_go_back_and_probabilities_do_not() -> None:
    page = {
        "type": "url_citation",
        "url": "https://a.example",
        "title": "A",
        "start_index": 0,
        "end_index": 1,
    }
    part = {"type": "output_text", "text": "So", "annotations": [page]}
    refusal = {"type": "refusal", "refusal": "No."}
    said = SPOKEN | {"content": [part | {"logprobs": [{"token": "So"}]}, refusal]}

    (sent,) = items(turn([said], TextPart(text="So")))

    assert sent["content"] == [part, refusal]


@pytest.mark.parametrize("arguments", ["", '{"x":', "[1]", None])
def test_arguments_that_were_no_object_go_back_as_an_empty_one(arguments: Any) -> None:
    broken = call("a").model_copy(update={"invalid_arguments": arguments})
    said = turn([ENCRYPTED, ASKED | {"arguments": arguments}], broken, result("a", "no JSON"))

    assert items(said)[1]["arguments"] == "{}"
    assert items(assistant(broken, result("a", "no JSON")))[0]["arguments"] == "{}"


@pytest.mark.parametrize("parts", [(), (ReasoningPart(text="Hm."),), (TextPart(text=""),)])
def test_a_message_that_was_cut_before_it_said_anything_is_left_out(
    parts: tuple[Part, ...],
) -> None:
    assert items(user("Hi"), assistant(*parts)) == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("empty", [(), (TextPart(text=""),), (TextPart(text=" \n"),)])
def test_an_empty_message_of_a_person_is_a_silence(empty: tuple[Part, ...]) -> None:
    assert items(message("user", *empty)) == [{"role": "user", "content": SILENCE}]


def test_empty_text_beside_an_image_is_not_sent() -> None:
    shown = message("user", TextPart(text=""), ImagePart(attachment_id="p", mime="image/png"))

    [sent] = items(shown, files={"p": Native("image/png", "AAAA")})

    assert [block["type"] for block in sent["content"]] == ["input_image"]


COMPLAINTS = [
    ("Encrypted content is not supported with this model.", "include"),
    ("Unknown parameter: 'include'.", "include"),
    (
        "Your organization must be verified to generate reasoning summaries.",
        "reasoning.summary",
    ),
    ("Unsupported parameter: 'reasoning.summary' … reasoning.summary", "reasoning.summary"),
    ("Unsupported parameter: 'reasoning.effort' is not supported.", "reasoning.effort"),
    ("Unknown parameter: 'reasoning'.", "reasoning"),
    ("Unsupported. unknown_parameter invalid_request_error reasoning", "reasoning"),
    ("reasoning is not supported by this model", "reasoning"),
    ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),
    ("Unsupported parameter: 'top_p' is not supported with this model.", "top_p"),
    ("Unsupported parameter: 'max_output_tokens'", None),  # it would be another question
    ("Item 'rs_1' of type 'reasoning' was provided without its required following item.", None),
    ("temperature must be at most 2", None),
]


@pytest.mark.parametrize(("complaint", "name"), COMPLAINTS)
def test_what_a_server_refuses_is_known_by_its_name(complaint: str, name: str | None) -> None:
    body = encoded("gpt-5", reasoning_effort="low", temperature=1.0, top_p=1.0, max_tokens=5)
    dialect = Responses("acme")

    assert dialect.refused_parameter(complaint, body) == name
    if name is not None:
        without = dialect.without(body, name)
        assert dialect.refused_parameter(complaint, without) is None
        assert dialect.without(without, name) == without


def test_what_is_left_out_takes_nothing_else_with_it() -> None:
    dialect = Responses("acme")
    body = encoded("gpt-5", reasoning_effort="low")

    without_summary = dialect.without(body, "reasoning.summary")
    without_both = dialect.without(without_summary, "reasoning.effort")

    assert without_summary["reasoning"] == {"effort": "low"}
    assert without_both == {key: body[key] for key in body if key != "reasoning"}
    assert body["reasoning"] == {"summary": "auto", "effort": "low"}


async def all_of(events: AsyncGenerator[ModelEvent, None]) -> list[ModelEvent]:
    async with asyncio.timeout(10), aclosing(events):
        return [each async for each in events]


def answering(*output: Any, **response: Any) -> Answer:
    """Every item, and the end."""
    said = [
        event({"type": "response.output_item.done", "output_index": index, "item": item})
        for index, item in enumerate(output)
    ]
    last = {"status": "completed", "output": list(output), **response}
    return Answer([*said, event({"type": "response.completed", "response": last})])


async def test_a_tool_loop_carries_the_encrypted_reasoning_back(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(answering(ENCRYPTED, SPOKEN, ASKED), answering({**SPOKEN, "id": "msg_2"}))
    provider = open_it(api="responses")

    first = await all_of(provider.stream(asking("Go", "gpt-5")))
    (said,) = [each for each in first if isinstance(each, Verbatim)]
    made = turn(
        said.content,
        ReasoningPart(text=""),
        TextPart(text="Let me look."),
        call("v"),
        model="gpt-5",
    )
    answered = made.model_copy(update={"parts": (*made.parts, result("v", "one"))})
    second = await all_of(provider.stream(ModelRequest("gpt-5", [user("Go"), answered])))

    assert [type(each) for each in first] == [
        ReasoningDelta,
        TextDelta,
        ToolCall,
        Verbatim,
        Finished,
    ]
    assert second[-1] == Finished("stop", "completed")
    assert {request.path for request in upstream.requests} == {"/v1/responses"}
    for body in upstream.bodies:
        assert body["include"] == ["reasoning.encrypted_content"]
        assert body["store"] is False
        _validate(body["input"])
    assert upstream.bodies[1]["input"] == [
        {"role": "user", "content": "Go"},
        ENCRYPTED,
        SPOKEN,
        ASKED,
        {"type": "function_call_output", "call_id": "v", "output": "one"},
    ]


async def test_a_summary_that_is_refused_to_an_organisation_is_done_without(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    no = status(
        400,
        "Your organization must be verified to generate reasoning summaries.",
        param="reasoning.summary",
        code="unsupported_value",
    )
    upstream.will(no, status(400, "Encrypted content is not supported."), answering(SPOKEN))
    provider = open_it(api="responses")

    for _ in range(2):
        await all_of(provider.stream(asking("Go", "gpt-5")))

    asked = [("reasoning" in body, "include" in body) for body in upstream.bodies]
    assert asked == [(True, True), (False, True), (False, False), (False, False)]


@pytest.mark.parametrize(
    "nothing",
    [Answer([b"404 page not found"], 404), status(404, "Not Found"), Answer([b"{}"], 404)],
)
async def test_an_address_without_responses_says_how_to_use_the_older_api(
    nothing: Answer, upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(nothing)

    with pytest.raises(ProviderError, match="needs `api: chat`"):
        await all_of(open_it(api="responses").stream(asking()))
    with pytest.raises(ProviderError) as chat:
        await all_of(open_it(api="chat").stream(asking()))

    assert "api: chat" not in str(chat.value)


async def test_a_model_that_is_not_there_is_no_matter_of_the_api(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(status(404, "The model 'x' does not exist", code="model_not_found"))

    with pytest.raises(ModelNotFound) as error:
        await all_of(open_it(api="responses").stream(asking()))

    assert "api: chat" not in str(error.value)


async def test_responses_is_what_openai_is_asked_unless_told_otherwise(
    upstream: FakeOpenAI, open_it: Open
) -> None:
    upstream.will(answering(SPOKEN))

    await all_of(open_it(api=None).stream(asking()))

    assert upstream.requests[0].path == "/v1/responses"


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_the_first_request_imports_nothing_of_the_sdk_on_the_loop(api: str) -> None:
    program = f"""
import asyncio, sys
from sidecar.config import NetworkConfig, ProviderConfig, TimeoutsConfig
from sidecar.providers import open_provider
from sidecar.providers.http import Http
from tests.support.fake_openai import FakeOpenAI, status
from tests.providers.conftest import asking, call, nothing, result, tool

def of_the_sdk():
    packages = ("openai", "httpx2", "httpcore2", "pydantic")
    return {{name for name in sys.modules if name.partition(".")[0] in packages}}

async def main():
    async def key(): return "sk-test"
    http = Http(NetworkConfig(proxy=None, ca_bundle=None, trust_os_store=True))
    timeouts = TimeoutsConfig(connect_s=5, first_byte_s=5, silence_s=5, total_s=None)
    async with FakeOpenAI() as upstream:
        section = ProviderConfig(kind="openai", base_url=upstream.url, api="{api}")
        provider = open_provider(
            "a", section, http=http, key=key, timeouts=timeouts, max_retries=0, find_local=nothing
        )
        await provider.prepare()
        before = of_the_sdk()
        upstream.will(status(400, "no"))
        try:
            async for _ in provider.stream(asking()): pass
        except Exception as error:
            print(type(error).__name__, upstream.requests[0].path)
        print(sorted(of_the_sdk() - before))
        await http.close()

asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    path = "/v1/responses" if api == "responses" else "/v1/chat/completions"
    assert run.stdout.splitlines() == [f"ProviderError {path}", "[]"]

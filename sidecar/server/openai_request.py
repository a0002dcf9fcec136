"""A body of `POST /v1/chat/completions`, read as a conversation and how to answer it.

Pure. What would only tune an answer and is unknown here is ignored; what would make it another
answer than the app expects is refused, with the field's name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from sidecar import jsons
from sidecar.errors import InvalidJson
from sidecar.messages import (
    JsonObject,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    now,
)
from sidecar.protocol.chat import ChatPayload, Params, ToolChoice
from sidecar.server.openai_wire import BadField

M = TypeVar("M", bound=BaseModel)

_HARMLESS: Mapping[str, Sequence[JsonValue]] = {  # the values of each that change nothing
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "web_search_options": (),
}
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # OpenAI's own rule


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class _CalledFunction(_Read):
    name: str
    arguments: str = ""


class _Call(_Read):
    id: str = Field(min_length=1)
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Entry(_Read):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[JsonObject, ...] | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[_Call, ...] | None = None
    tool_call_id: str | None = None


class _Function(_Read):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None


class _OfferedTool(_Read):
    type: Literal["function"]
    function: _Function


class _JsonSchema(_Read):
    json_schema: JsonObject | None = Field(default=None, alias="schema")


class _ResponseFormat(_Read):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(_Read):
    include_usage: bool | None = None


class _Body(_Read):
    model: str | None = Field(default=None, max_length=256)
    messages: tuple[_Entry, ...] = Field(min_length=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None
    stop: str | tuple[str, ...] | None = None
    response_format: _ResponseFormat | None = None
    tools: tuple[_OfferedTool, ...] | None = None
    tool_choice: str | JsonObject | None = None
    parallel_tool_calls: bool | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What is asked: `history` and `chat` are as `Runs.answer` takes them.

    `tools` are the app's own; with any, ours stay out of it.
    """

    history: Sequence[Message]
    chat: ChatPayload
    tools: Sequence[Tool]
    is_streamed: bool
    wants_usage: bool


def parse(data: bytes, *, store: bool) -> Completion:
    """Raises InvalidJson, and BadField for what cannot be served."""
    try:
        given = jsons.loads(data)
    except ValueError as error:
        raise InvalidJson("The body is not JSON.") from error
    if not isinstance(given, dict):
        raise InvalidJson("The body is no JSON object.")
    _check_harmless(given)
    body = _read(_Body, given)
    takes_tools = _takes_tools(body)
    chat = _read(
        ChatPayload,
        {
            "model": body.model,
            "system_prompt": _system_prompt(body.messages),
            "params": _params(body),
            "tools": ToolChoice(mode="rules" if takes_tools else "off"),
            "store": store,
        },
    )
    return Completion(
        history=_history(body.messages),
        chat=chat,
        tools=_tools(body.tools or ()) if takes_tools else (),
        is_streamed=bool(body.stream),
        wants_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


def _check_harmless(given: JsonObject) -> None:
    for name, harmless in _HARMLESS.items():
        value = given.get(name)
        if value is not None and value not in harmless:
            raise BadField(f"`{name}` cannot be served here; leave it out.", name)


def _read(model: type[M], data: object) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]  # it may quote the chat
        param = ".".join(map(str, problem["loc"]))
        raise BadField(f"`{param}`: {problem['msg']}.", param) from None


def _takes_tools(body: _Body) -> bool:
    """Whether any tools may be called, the app's or ours."""
    if body.tool_choice == "none":
        return False
    if body.tool_choice not in (None, "auto"):
        raise BadField("Only `auto` and `none` can be served as `tool_choice`.", "tool_choice")
    if body.tools and body.parallel_tool_calls is False:
        text = "A model here may call several tools at once; leave `parallel_tool_calls` out."
        raise BadField(text, "parallel_tool_calls")
    return True


def _params(body: _Body) -> Params:
    """Those of ours by their names here; the settings' where the app leaves them out."""
    stop = (body.stop,) if isinstance(body.stop, str) else body.stop
    return _read(
        Params,
        {
            "temperature": body.temperature,
            "top_p": body.top_p,
            "max_tokens": body.max_completion_tokens or body.max_tokens,
            "reasoning_effort": body.reasoning_effort,
            "stop": stop or None,
            "json_schema": _json_schema(body.response_format),
        },
    )


def _json_schema(wanted: _ResponseFormat | None) -> JsonObject | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None or wanted.json_schema.json_schema is None:
        param = "response_format.json_schema.schema"
        raise BadField(f"`{param}` is missing.", param)
    return wanted.json_schema.json_schema


def _tools(offered: Sequence[_OfferedTool]) -> tuple[Tool, ...]:
    names: set[str] = set()
    for index, tool in enumerate(offered):
        name, param = tool.function.name, f"tools.{index}.function.name"
        if not _TOOL_NAME.fullmatch(name):
            raise BadField(f"`{param}` must be 1 to 64 of A-Z a-z 0-9 _ -.", param)
        if name in names:
            raise BadField(f"Two of the tools are named {name!r}.", param)
        names.add(name)
    return tuple(
        Tool(
            name=tool.function.name,
            server="",
            server_name=tool.function.name,
            description=tool.function.description or "",
            input_schema=tool.function.parameters or {"type": "object", "properties": {}},
            fingerprint="",
            digest="",
        )
        for tool in offered
    )


def _system_prompt(entries: Sequence[_Entry]) -> str:
    """Empty without one: the conversation is the app's, and so is what stands above it."""
    texts = (
        _text(entry, f"messages.{index}")
        for index, entry in enumerate(entries)
        if entry.role in ("system", "developer")
    )
    return "\n\n".join(text for text in texts if text)


@dataclass(slots=True)
class _Side:
    role: Literal["user", "assistant"]
    parts: list[Part] = field(default_factory=list)
    open_calls: set[str] = field(default_factory=set)


def _history(entries: Sequence[_Entry]) -> tuple[Message, ...]:
    """Results stand in the message of their calls. Its end is somebody's word to the model."""
    sides: list[_Side] = []
    for index, entry in enumerate(entries):
        param = f"messages.{index}"
        match entry.role:
            case "user":
                sides.append(_Side("user", [TextPart(text=_text(entry, param))]))
            case "assistant":
                side = _Side("assistant", list(_said(entry, param)))
                side.open_calls = {call.id for call in entry.tool_calls or ()}
                if side.parts:
                    sides.append(side)
            case "tool":
                _add_result(sides, entry, param)
    last = sides[-1] if sides else _Side("assistant")
    if last.role == "assistant" and (last.open_calls or not _ends_with_result(last)):
        raise BadField("The last message must be the user's, or a tool's result.", "messages")
    return tuple(_messages(sides))


def _ends_with_result(side: _Side) -> bool:
    return bool(side.parts) and side.parts[-1].type == "tool_result"


def _said(entry: _Entry, param: str) -> Iterator[Part]:
    if entry.reasoning_content:
        yield ReasoningPart(text=entry.reasoning_content)
    if text := _text(entry, param):
        yield TextPart(text=text)
    for call in entry.tool_calls or ():
        arguments = jsons.parse_object(call.function.arguments)
        yield ToolCallPart(
            tool_call_id=call.id,
            server=None,
            name=call.function.name,
            offered_as=call.function.name,
            arguments=arguments or {},
            invalid_arguments=call.function.arguments if arguments is None else None,
        )


def _add_result(sides: list[_Side], entry: _Entry, param: str) -> None:
    call_id = entry.tool_call_id or ""
    if not sides or call_id not in sides[-1].open_calls:
        text = "A tool's message must follow the assistant's that made its call."
        raise BadField(text, f"{param}.tool_call_id")
    sides[-1].open_calls.remove(call_id)
    text = _text(entry, param)
    result = ToolResultPart(tool_call_id=call_id, status="ok", text=text, duration_ms=0)
    sides[-1].parts.append(result)


def _messages(sides: Sequence[_Side]) -> Iterator[Message]:
    parent_id: str | None = None
    for side in sides:
        message = Message(
            message_id=uuid4().hex,
            parent_id=parent_id,
            role=side.role,
            parts=tuple(side.parts),
            created_at=now(),
        )
        yield message
        parent_id = message.message_id


def _text(entry: _Entry, param: str) -> str:
    if entry.content is None or isinstance(entry.content, str):
        return entry.content or ""
    texts = []
    for index, part in enumerate(entry.content):
        match part:
            case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
                texts.append(text)
            case _:
                where = f"{param}.content.{index}"
                raise BadField("Only text can be sent to a model here, no image or file.", where)
    return "".join(texts)

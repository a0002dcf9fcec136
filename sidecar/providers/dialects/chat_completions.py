"""A question in OpenAI's chat completions format, as its many speakers take it.

Promises that every call goes back with its result, and what a server wants back beside them.
Knows no HTTP and of the server no more than the provider's name.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from pydantic import JsonValue

from sidecar.messages import JsonObject, Part, Tool, ToolCallPart
from sidecar.providers.base import ModelInfo, ModelRequest
from sidecar.providers.dialects.base import (
    Encoded,
    Files,
    Native,
    Step,
    Takes,
    pictures,
    steps,
)
from sidecar.providers.dialects.chat_completions_stream import FORMAT, ChatCompletionsStream
from sidecar.providers.dialects.chat_extras import laid_over
from sidecar.providers.dialects.chat_refusals import refused_by, without
from sidecar.providers.dialects.chat_turns import in_turns
from sidecar.providers.dialects.openai_models import parse_models
from sidecar.providers.dialects.tools import in_order, parameters
from sidecar.providers.failures import Vendor

TokenLimit: TypeAlias = Literal["max_completion_tokens", "max_tokens"]


class ChatCompletions:
    """The Dialect of a provider that knows max_tokens under the name `token_limit`."""

    takes = Takes()
    models_path = "/models"

    def __init__(self, provider: str, token_limit: TokenLimit) -> None:
        self._provider = provider
        self._token_limit = token_limit

    def path(self, model: str) -> str:
        return "/chat/completions"

    def encode(self, request: ModelRequest, files: Files) -> Encoded:
        params = request.params
        body: JsonObject = {
            "model": request.model,
            "messages": list[JsonValue](in_turns(self._messages(request, files))),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.tools:
            body["tools"] = [_tool(tool) for tool in in_order(request.tools)]
        if params.json_schema is not None:
            schema: JsonObject = {"name": "answer", "schema": params.json_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        optional: dict[str, JsonValue] = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            self._token_limit: params.max_tokens,
            "reasoning_effort": params.reasoning_effort,
            "stop": list(params.stop) if params.stop else None,
        }
        return Encoded(body | {key: value for key, value in optional.items() if value is not None})

    def stream(self, vendor: Vendor, body: JsonObject) -> ChatCompletionsStream:
        return ChatCompletionsStream(vendor, body)

    def parse_models(self, body: bytes) -> list[ModelInfo]:
        return parse_models(body)

    def refused_parameter(self, complaint: str, body: JsonObject) -> str | None:
        return refused_by(complaint, body)

    def without(self, body: JsonObject, name: str) -> JsonObject:
        return without(body, name)

    def _messages(self, request: ModelRequest, files: Files) -> Iterator[JsonObject]:
        if request.system_prompt:
            yield {"role": "system", "content": request.system_prompt}
        for message in request.history:
            if message.role == "user":
                yield {"role": "user", "content": _content(message.parts, files)}
                continue
            for step in steps(message, provider=self._provider, model=request.model, format=FORMAT):
                yield from _step(step, files)


def _tool(tool: Tool) -> JsonObject:
    function: JsonObject = {
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters(tool),
    }
    return {"type": "function", "function": function}


def _content(parts: Sequence[Part], files: Files) -> JsonValue:
    """A user's message: a string while it is only text, for servers that know nothing else."""
    blocks = [block for part in parts for block in _blocks(part, files)]
    if all(block["type"] == "text" for block in blocks):
        return "\n\n".join(str(block["text"]) for block in blocks)
    return list[JsonValue](blocks)


def _blocks(part: Part, files: Files) -> Iterator[JsonObject]:
    if part.type == "text":
        if part.text.strip():  # empty text beside an image is refused
            yield {"type": "text", "text": part.text}
    elif part.type in ("image", "file"):
        fitted = files[part.attachment_id]
        if isinstance(fitted, Native):
            yield _image(fitted)
        else:
            yield {"type": "text", "text": fitted.text}


def _step(step: Step, files: Files) -> Iterator[JsonObject]:
    """One assistant message and the answer to each of its calls.

    An answer is text and nothing else here; its images follow all of them as if a person sent them.
    """
    calls: list[JsonValue] = [_call(call) for call in step.calls]
    text = step.text if step.text.strip() else None
    said: JsonObject = {"role": "assistant", "content": text}
    if calls:
        said["tool_calls"] = calls
    if isinstance(step.verbatim, dict):
        said = laid_over(said, step.verbatim)
    if calls or text:
        yield said
    for call, result in step.answers():
        yield {"role": "tool", "tool_call_id": call.tool_call_id, "content": result.text}
    blocks: list[JsonValue] = []
    for call, result in step.answers():
        if images := pictures(result, files):
            blocks.append({"type": "text", "text": f"What {call.offered_as} gave:"})
            blocks.extend(_image(image) for image in images)
    if blocks:
        yield {"role": "user", "content": blocks}


def _image(image: Native) -> JsonObject:
    url = f"data:{image.mime};base64,{image.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(call: ToolCallPart) -> JsonObject:
    # Arguments that were no JSON are {} here: servers that parse them refuse the whole request.
    function: JsonObject = {"name": call.offered_as, "arguments": json.dumps(call.arguments)}
    return {"id": call.tool_call_id, "type": "function", "function": function}

"""OpenAI's Responses format: a conversation as a list of items.

Nothing is kept at the vendor's (`store: false`), so what it must have back goes with every
request: its reasoning, encrypted, before what followed from it, and the phase of what it said.
Knows no HTTP and of the server no more than the provider's name.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Part, Tool, ToolCallPart, ToolResultPart
from sidecar.providers.base import ModelInfo, ModelRequest, Notice, Params
from sidecar.providers.dialects.base import (
    SILENCE,
    UNANSWERED,
    Encoded,
    Files,
    Native,
    Step,
    Takes,
    pictures,
    steps,
)
from sidecar.providers.dialects.openai_models import parse_models
from sidecar.providers.dialects.responses_stream import CALLS, FORMAT, ResponsesStream
from sidecar.providers.dialects.tools import in_order, limit_exceeded, parameters, within
from sidecar.providers.failures import Vendor

ENCRYPTED = "reasoning.encrypted_content"
MAX_CALL_ID = 64  # characters; some vendors' ids are longer, and a longer one is refused
_REASONS = re.compile(r"(?:^|[/:])(?:o\d|gpt-[5-9](?!\d)|gpt-oss|codex-mini|computer-use)")
_ONLY_TALKS = re.compile(r"(?:^|[/:])(?:o1-mini|o1-preview|gpt-5-chat)")
# What a server may complain of, and the words by which to know it; what is in it comes first.
_DROPPABLE = {
    "reasoning.summary": r"reasoning\.summary|reasoning summar",
    "reasoning.effort": r"reasoning\.effort",
    "reasoning": r"['\"`]reasoning['\"`]|\breasoning(?= is not)|(?<= )reasoning$",
    "include": r"(?<!\w)include(?!\w)|reasoning\.encrypted_content|encrypted content",
    "temperature": r"(?<!\w)temperature(?!\w)",
    "top_p": r"(?<!\w)top_p(?!\w)",
}
_REFUSAL = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed"
    r"|extra (inputs|fields|parameters)|only the default|must be verified",
    re.IGNORECASE,
)


class Responses:
    """The Dialect."""

    takes = Takes(pdf_bytes=32 * 1024 * 1024)
    models_path = "/models"

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def path(self, model: str) -> str:
        return "/responses"

    def encode(self, request: ModelRequest, files: Files) -> Encoded:
        params = request.params
        reasons = bool(_REASONS.search(request.model)) and not _ONLY_TALKS.search(request.model)
        body: JsonObject = {
            "model": request.model,
            "input": list(self._input(request, files)),
            "stream": True,
            "store": False,
        }
        if request.tools:
            body["tools"] = [_tool(tool) for tool in in_order(request.tools)]
        if params.json_schema is not None:
            schema: JsonObject = {
                "type": "json_schema",
                "name": "answer",
                "schema": params.json_schema,
            }
            body["text"] = {"format": schema}
        optional: dict[str, JsonValue] = {
            "instructions": request.system_prompt or None,
            "include": [ENCRYPTED] if reasons else None,
            "reasoning": _reasoning(params, reasons),
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_output_tokens": params.max_tokens,
        }
        body |= {key: value for key, value in optional.items() if value is not None}
        return Encoded(body, tuple(_notices(params)))

    def stream(self, vendor: Vendor, body: JsonObject) -> ResponsesStream:
        return ResponsesStream(vendor)

    def parse_models(self, body: bytes) -> list[ModelInfo]:
        return parse_models(body)

    def refused_parameter(self, complaint: str, body: JsonObject) -> str | None:
        if limit := limit_exceeded(complaint):
            return limit if within(body, limit) != body else None
        if not _REFUSAL.search(complaint):
            return None
        for name, words in _DROPPABLE.items():
            if _has(body, name) and re.search(words, complaint, re.IGNORECASE):
                return name
        return None

    def without(self, body: JsonObject, name: str) -> JsonObject:
        if not _has(body, name):
            return within(body, name)
        outer, _, inner = name.partition(".")
        kept = {key: value for key, value in body.items() if key != outer}
        old = body[outer]
        if isinstance(old, dict) and (left := {k: v for k, v in old.items() if k != inner}):
            return kept | {outer: left} if inner else kept
        return kept

    def _input(self, request: ModelRequest, files: Files) -> Iterator[JsonObject]:
        for message in request.history:
            if message.role == "user":
                yield {"role": "user", "content": _content(message.parts, files)}
                continue
            for step in steps(message, provider=self._provider, model=request.model, format=FORMAT):
                yield from _step(step, files)


def _has(body: JsonObject, name: str) -> bool:
    outer, _, inner = name.partition(".")
    value = body.get(outer)
    return outer in body and (not inner or (isinstance(value, dict) and inner in value))


def _reasoning(params: Params, reasons: bool) -> JsonObject | None:
    reasoning: JsonObject = {"summary": "auto"} if reasons else {}
    if params.reasoning_effort is not None:
        reasoning["effort"] = params.reasoning_effort
    return reasoning or None


def _notices(params: Params) -> Iterator[Notice]:
    if params.stop:
        yield Notice(
            "parameter_ignored",
            "`stop` was left out: OpenAI's Responses API has no stop sequences; a provider with "
            "`api: chat` has.",
        )


def _tool(tool: Tool) -> JsonObject:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters(tool),
        "strict": False,  # by default it is true here, and hardly any MCP schema keeps to that
    }


def _content(parts: Sequence[Part], files: Files) -> JsonValue:
    """A user's message: a string while it is only text."""
    blocks = [block for part in parts for block in _blocks(part, files)]
    if all(block["type"] == "input_text" for block in blocks):
        return "\n\n".join(str(block["text"]) for block in blocks) or SILENCE
    return list[JsonValue](blocks)


def _blocks(part: Part, files: Files) -> Iterator[JsonObject]:
    if part.type == "text":
        if part.text.strip():
            yield {"type": "input_text", "text": part.text}
    elif part.type in ("image", "file"):
        fitted = files[part.attachment_id]
        if not isinstance(fitted, Native):
            yield {"type": "input_text", "text": fitted.text}
            return
        if fitted.mime.startswith("image/"):
            yield _image(fitted)
        else:
            url = f"data:{fitted.mime};base64,{fitted.data}"
            # A file without a name is refused.
            name = fitted.name or "file.pdf"
            yield {"type": "input_file", "filename": name, "file_data": url}


def _step(step: Step, files: Files) -> Iterator[JsonObject]:
    """What the model said, and after it the answer to each of its calls."""
    own = step.verbatim if isinstance(step.verbatim, list) else None
    said = list(_said(step) if own is None else _own(own))
    yield from said
    calls: list[JsonObject] = [item for item in said if item.get("type") in CALLS]
    # In order, for the ids of a message may not be those under which its vendor knows the calls.
    outputs = [_output(result, files) for _, result in step.answers()]
    unanswered: list[JsonValue] = [UNANSWERED] * (len(calls) - len(outputs))
    for call, output in zip(calls, outputs + unanswered, strict=False):
        answered: JsonObject = {"call_id": call["call_id"], "output": output}
        yield answered | {"type": f"{call['type']}_output"}


def _output(result: ToolResultPart, files: Files) -> JsonValue:
    """Text alone where that is all: not every speaker of this format knows the list."""
    images = pictures(result, files)
    if not images:
        return result.text
    text: JsonObject = {"type": "input_text", "text": result.text}
    return [text, *(_image(image) for image in images)]


def _image(image: Native) -> JsonObject:
    url = f"data:{image.mime};base64,{image.data}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _said(step: Step) -> Iterator[JsonObject]:
    """A step of whoever said it, in the words that every model understands."""
    spoken = [part for part in step.said if part.type in ("text", "tool_call")]
    for kind, parts in groupby(spoken, key=lambda part: part.type):
        if kind == "text":
            text = "".join(part.text for part in parts if part.type == "text")
            if text:
                yield {"role": "assistant", "content": text}
        else:
            yield from (_call(part) for part in parts if part.type == "tool_call")


def _call(call: ToolCallPart) -> JsonObject:
    return {
        "type": "function_call",
        "call_id": _call_id(call.tool_call_id),
        "name": call.offered_as,
        "arguments": json.dumps(call.arguments),
    }


def _call_id(wanted: str) -> str:
    if len(wanted) <= MAX_CALL_ID:
        return wanted
    return hashlib.sha256(wanted.encode()).hexdigest()[:MAX_CALL_ID]


def _own(items: Sequence[JsonValue]) -> Iterator[JsonObject]:
    """The vendor's own items, as it takes them back.

    Reasoning that is not encrypted is only known by its id, and with `store: false` that is
    forgotten. What followed from it then goes back without an id, by which the vendor would ask
    for it, and what cannot be without one stays away. Reasoning with nothing after it, of an
    answer that was cut off, is refused as well.
    """
    kept = [item for item in items if isinstance(item, dict)]
    is_whole = all(item.get("type") != "reasoning" or _is_encrypted(item) for item in kept)
    while kept and kept[-1].get("type") == "reasoning":
        kept.pop()
    for item in kept:
        kind = item.get("type")
        if kind == "message":
            yield from _message(item, with_id=is_whole)
        elif kind in CALLS:
            yield _own_call(item, with_id=is_whole)
        elif kind == "reasoning" and is_whole:
            names = ("type", "id", "summary", "encrypted_content")
            yield {"summary": []} | {name: item[name] for name in names if name in item}
        elif is_whole:
            yield item


def _is_encrypted(item: JsonObject) -> bool:
    return isinstance(item.get("id"), str) and isinstance(item.get("encrypted_content"), str)


def _own_call(item: JsonObject, with_id: bool) -> JsonObject:
    names = ["type", "call_id", "name", "namespace", "caller", *(["id"] if with_id else [])]
    call = {name: item[name] for name in names if item.get(name) is not None}
    written = CALLS[str(item["type"])]
    asked = item.get(written)
    if item["type"] == "function_call" and (not asked or jsons.parse_object(str(asked)) is None):
        asked = "{}"  # servers that parse it refuse the whole request
    return call | {written: asked}


def _message(item: JsonObject, with_id: bool) -> Iterator[JsonObject]:
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    said = [own for part in parts if isinstance(part, dict) and (own := _said_part(part))]
    phase: JsonObject = {"phase": item["phase"]} if item.get("phase") is not None else {}
    if with_id and isinstance(item.get("id"), str):
        status = item.get("status") or "completed"
        named: JsonObject = {"type": "message", "id": item["id"], "role": "assistant"}
        yield named | {"status": status, "content": list[JsonValue](said)} | phase
    elif text := "".join(str(part.get("text") or part.get("refusal") or "") for part in said):
        yield phase | {"role": "assistant", "content": text}


def _said_part(part: JsonObject) -> JsonObject | None:
    """Without the probability of each token, which some servers always tell."""
    if part.get("type") == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal") or ""}
    if part.get("type") == "output_text":
        annotations = part.get("annotations") or []
        return {"type": "output_text", "text": part.get("text") or "", "annotations": annotations}
    return None

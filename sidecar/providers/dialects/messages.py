"""A question in Anthropic's Messages format.

Promises that a turn goes back with all that the vendor wants back (thinking with its signatures,
its own tools' results), and that every tool result stands where the vendor looks for it. Knows no
HTTP and of the server no more than the provider's name.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Part, Tool, ToolResultPart
from sidecar.providers.base import ModelInfo, ModelRequest, Params
from sidecar.providers.dialects.base import (
    SILENCE,
    Encoded,
    Files,
    Native,
    Step,
    Takes,
    count,
    listing,
    pictures,
    steps,
)
from sidecar.providers.dialects.messages_stream import FORMAT, MessagesStream, trimmed
from sidecar.providers.dialects.tools import in_order, parameters
from sidecar.providers.failures import Vendor

Version: TypeAlias = tuple[int, int]
MIN_BUDGET = 1024  # the vendor's own limit
_CACHED: JsonObject = {"cache_control": {"type": "ephemeral"}}
_SILENCE: JsonObject = {"type": "text", "text": SILENCE}
_VERSION = re.compile(r"claude-(?:[a-z]+-)*(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
# From this version on: max_tokens. Before 4.5 it is a part of the context window that the prompt
# cannot use, so less than the models' own maximum.
_MAX_OUTPUT: tuple[tuple[Version, int], ...] = (
    ((4, 6), 128_000),
    ((4, 5), 64_000),
    ((3, 7), 32_000),
    ((3, 5), 8192),
    ((0, 0), 4096),
)
_UNKNOWN_MAX_OUTPUT = 8192  # what the models of every other server of this format can write
_THINKS_FROM, _ADAPTS_FROM = (3, 7), (4, 6)
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384}
_LARGEST_BUDGET = 32_000
_REFUSAL = re.compile(
    r"not support|unsupported|deprecated|cannot both|may only be set|not permitted|not allowed"
    r"|input should be|unknown|unrecogni[sz]ed|unexpected|is only available",
    re.IGNORECASE,
)
_DROPPABLE = {  # parameter → as complaints call it; the first that fits
    "top_p": r"top_p",
    "temperature": r"temperature",
    "thinking": r"thinking",
    "output_config": r"output_config\.effort|effort",
    "stop_sequences": r"stop_sequences",
}
_BOUND = re.compile(  # what structured outputs answer with a 400
    r"(exclusiveM|m)(in|ax)imum|(min|max)(Length|Items|Properties)|multipleOf|uniqueItems"
)


class Messages:
    """The Dialect of a provider that serves `/v1/messages`."""

    # The vendor's limits are on base64: 5 MB for an image, 32 MB for the whole request.
    takes = Takes(
        image_side=1568,
        image_bytes=5 * 1024 * 1024 * 3 // 4,
        pdf_bytes=23 * 1024 * 1024,
        together_chars=31 * 1024 * 1024,
    )
    models_path = "/models?limit=1000"

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def path(self, model: str) -> str:
        return "/messages"

    def encode(self, request: ModelRequest, files: Files) -> Encoded:
        params, version = request.params, _version(request.model)
        max_tokens = params.max_tokens or _max_output(version)
        thinking = _thinking(params, version, max_tokens)
        body: JsonObject = {
            "model": request.model,
            "max_tokens": max_tokens,
            "messages": self._turns(request, files),
            "stream": True,
        }
        if request.system_prompt and request.system_prompt.strip():
            body["system"] = [{"type": "text", "text": request.system_prompt, **_CACHED}]
        if request.tools:
            tools = [_tool(tool) for tool in in_order(request.tools)]
            body["tools"] = [*tools[:-1], tools[-1] | _CACHED]
        if stops := [stop for stop in params.stop or () if stop.strip()]:
            body["stop_sequences"] = list[JsonValue](stops)
        if config := _output_config(params, thinking):
            body["output_config"] = config
        if thinking is not None:
            body["thinking"] = thinking
        if thinking is None or thinking["type"] == "disabled":
            body |= _sampling(params)
        return Encoded(body)

    def stream(self, vendor: Vendor, body: JsonObject) -> MessagesStream:
        return MessagesStream(vendor, body)

    def parse_models(self, body: bytes) -> list[ModelInfo]:
        return listing(jsons.fields(jsons.loads(body)).get("data"), _model)

    def refused_parameter(self, complaint: str, body: JsonObject) -> str | None:
        if not _REFUSAL.search(complaint):
            return None
        has_effort = "effort" in jsons.fields(body.get("output_config"))
        for name, words in _DROPPABLE.items():
            if name == "output_config" and not has_effort:
                continue
            if name in body and re.search(rf"(?<!\w)(?:{words})(?!\w)", complaint):
                return name
        return None

    def without(self, body: JsonObject, name: str) -> JsonObject:
        kept = {key: value for key, value in body.items() if key != name}
        config = jsons.fields(body.get("output_config"))
        if name == "output_config" and "format" in config:
            kept["output_config"] = {"format": config["format"]}
        return kept

    def _turns(self, request: ModelRequest, files: Files) -> list[JsonValue]:
        turns = _Turns()
        for message in request.history:
            if message.role == "user":
                blocks = [block for part in message.parts for block in _blocks(part, files)]
                turns.add("user", blocks or [_SILENCE])
                continue
            for step in steps(message, provider=self._provider, model=request.model, format=FORMAT):
                said, results = _step(step, files)
                turns.add("assistant", said)
                turns.add("user", results)
        return turns.encoded()


class _Turns:
    """Users' and assistants' blocks in turns, of which the first is the user's."""

    def __init__(self) -> None:
        self._turns: list[tuple[str, list[JsonObject]]] = []

    def add(self, role: str, blocks: Sequence[JsonObject]) -> None:
        if not blocks:
            return
        if not self._turns and role == "assistant":
            self._turns.append(("user", [_SILENCE]))
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        else:
            self._turns.append((role, list(blocks)))

    def encoded(self) -> list[JsonValue]:
        """With marks to cache up to here, and up to where the request before this one ended."""
        users = [blocks for role, blocks in self._turns if role == "user"]
        for blocks in users[-2:]:
            blocks[-1] = blocks[-1] | _CACHED
        if self._turns and self._turns[-1][0] == "assistant":
            self._turns[-1] = ("assistant", trimmed(self._turns[-1][1]))
        return [{"role": role, "content": list[JsonValue](blocks)} for role, blocks in self._turns]


def _version(model: str) -> Version | None:
    """`claude-3-5-haiku-…`, `claude-opus-4-1`, `anthropic/claude-sonnet-4.5`; None for others."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _max_output(version: Version | None) -> int:
    if version is None:
        return _UNKNOWN_MAX_OUTPUT
    return next(limit for since, limit in _MAX_OUTPUT if version >= since)


def _thinking(params: Params, version: Version | None, max_tokens: int) -> JsonObject | None:
    """Newer models decide by themselves how long they think; older ones want a budget.

    The budget is a part of max_tokens, and half of it at most is left to thinking.
    """
    effort = params.reasoning_effort
    if effort is None:
        return None
    if version is not None and version >= _ADAPTS_FROM:
        if effort == "none":
            return {"type": "disabled"}
        return {"type": "adaptive", "display": "summarized"}  # else some models show nothing of it
    thinks = version is None or version >= _THINKS_FROM
    if effort == "none" or not thinks or max_tokens <= MIN_BUDGET:
        return None
    budget = min(_BUDGETS.get(effort, _LARGEST_BUDGET), max_tokens // 2)
    return {"type": "enabled", "budget_tokens": max(budget, MIN_BUDGET)}


def _output_config(params: Params, thinking: JsonObject | None) -> JsonObject:
    config: JsonObject = {}
    if thinking is not None and thinking["type"] == "adaptive":
        effort = params.reasoning_effort
        config["effort"] = "low" if effort == "minimal" else effort
    if params.json_schema is not None:
        config["format"] = {"type": "json_schema", "schema": _strict(params.json_schema)}
    return config


def _sampling(params: Params) -> JsonObject:
    """Not together with thinking, which has a temperature of its own."""
    sampling: JsonObject = {}
    if params.temperature is not None:
        sampling["temperature"] = min(params.temperature, 1.0)  # others go up to 2
    if params.top_p is not None:
        sampling["top_p"] = params.top_p
    return sampling


def _strict(schema: JsonObject) -> JsonObject:
    """A schema as structured outputs want it: no further properties, no bounds."""
    strict: JsonObject = {}
    for name, value in schema.items():
        if name in ("properties", "$defs", "definitions") and isinstance(value, dict):
            strict[name] = {key: _strict_inside(inner) for key, inner in value.items()}
        elif name in ("enum", "const", "default", "examples"):
            strict[name] = value
        elif not _BOUND.fullmatch(name):
            strict[name] = _strict_inside(value)
    kind = schema.get("type")
    is_object = kind == "object" or (isinstance(kind, list) and "object" in kind)
    return strict | {"additionalProperties": False} if is_object else strict


def _strict_inside(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_strict_inside(inner) for inner in value]
    return _strict(value) if isinstance(value, dict) else value


def _tool(tool: Tool) -> JsonObject:
    encoded: JsonObject = {"name": tool.name, "input_schema": parameters(tool)}
    return encoded | {"description": tool.description} if tool.description.strip() else encoded


def _blocks(part: Part, files: Files) -> Iterator[JsonObject]:
    """A user's part; empty text is a 400."""
    if part.type == "text":
        yield from _text(part.text)
    elif part.type in ("image", "file"):
        fitted = files[part.attachment_id]
        if isinstance(fitted, Native):
            yield _file(fitted)
        else:
            yield from _text(fitted.text)


def _text(text: str) -> Iterator[JsonObject]:
    if text.strip():
        yield {"type": "text", "text": text}


def _file(file: Native) -> JsonObject:
    source: JsonObject = {"type": "base64", "media_type": file.mime, "data": file.data}
    if file.mime != "application/pdf":
        return {"type": "image", "source": source}
    document: JsonObject = {"type": "document", "source": source}
    return document | {"title": file.name} if file.name else document


def _step(step: Step, files: Files) -> tuple[list[JsonObject], list[JsonObject]]:
    """What the assistant said, and its calls' results, all of which belong into one turn."""
    answers = list(step.answers())
    said = _own_words(step)
    if said is None:
        said = [*_text(step.text)]
        for call in step.calls:
            block: JsonObject = {"id": call.tool_call_id, "name": call.offered_as}
            said.append({"type": "tool_use", **block, "input": call.arguments})
    uses = [block for block in said if block["type"] == "tool_use"]
    # In order, not by id: the vendor's own words have the vendor's ids.
    results = [
        _result(use["id"], result, pictures(result, files))
        for use, (_, result) in zip(uses, answers, strict=True)
    ]
    return said, results


def _own_words(step: Step) -> list[JsonObject] | None:
    """The step's verbatim blocks, if they have as many calls as the step."""
    if not isinstance(step.verbatim, list):
        return None
    blocks = [block for block in step.verbatim if isinstance(block, dict) and "type" in block]
    uses = [block for block in blocks if block["type"] == "tool_use" and "id" in block]
    return blocks if len(uses) == len(step.calls) else None


def _result(use_id: JsonValue, result: ToolResultPart, images: Sequence[Native]) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": use_id}
    if images:
        block["content"] = [*_text(result.text), *(_file(image) for image in images)]
    elif result.text.strip():
        block["content"] = result.text
    return block if result.status == "ok" else block | {"is_error": True}


def _model(row: JsonObject) -> ModelInfo | None:
    model = row.get("id")
    if not isinstance(model, str) or row.get("lifecycle") == "retired":
        return None
    capabilities = jsons.fields(row.get("capabilities"))
    return ModelInfo(
        model=model,
        name=str(row.get("display_name") or model),
        context=count(row, "max_input_tokens") or None,
        max_output=count(row, "max_tokens") or None,
        vision=_is_supported(capabilities.get("image_input")),
        tools=True,  # the format has no model without them
        reasoning=_is_supported(capabilities.get("thinking")),
    )


def _is_supported(capability: JsonValue) -> bool | None:
    supported = jsons.fields(capability).get("supported")
    return supported if isinstance(supported, bool) else None

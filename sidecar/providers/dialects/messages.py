"""Anthropic's Messages format: request out, events in.

A pure state machine: no I/O, no clocks. Promises that a turn goes back with all that the vendor
wants back (thinking with its signatures, its own tools' results), that every tool result stands
where the vendor looks for it, and that a stream without `message_stop` is an error. Goes by each
event's `type` and not by its name, which some proxies leave out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Part, Tool, ToolResultPart, Usage
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    Params,
    StopReason,
    UsageReport,
    Verbatim,
)
from sidecar.providers.dialects.base import (
    SILENCE,
    Encoded,
    Files,
    Native,
    Step,
    Takes,
    count,
    listing,
    parse_chunk,
    pictures,
    steps,
    stopped,
)
from sidecar.providers.dialects.message_blocks import Blocks
from sidecar.providers.dialects.tools import in_order, parameters
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseEvent

Version: TypeAlias = tuple[int, int]

FORMAT = "messages"
MAX_SEQUELS = 10  # each is a request of its own, and the vendor pauses after ten searches or so
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
_STOP_REASONS: dict[str, StopReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # after MAX_SEQUELS
    "refusal": "refusal",
}
_PAUSES = ("pause_turn", "compaction")
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
_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_BOUND = re.compile(  # what structured outputs answer with a 400
    r"(exclusiveM|m)(in|ax)imum|(min|max)(Length|Items|Properties)|multipleOf|uniqueItems"
)


class Messages:
    """The Dialect of a provider that serves `/v1/messages`."""

    # The vendor's limits are on base64: 5 MB for an image, 32 MB for the whole request.
    takes = Takes(image_side=1568, image_bytes=5 * 1024 * 1024 * 3 // 4, pdf_bytes=23 * 1024 * 1024)
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

    def stream(self, vendor: Vendor, body: JsonObject) -> "MessagesStream":
        return MessagesStream(vendor, body)

    def parse_models(self, body: bytes) -> list[ModelInfo]:
        return listing(jsons.fields(jsons.loads(body)).get("data"), _model)

    def refused_parameter(self, complaint: str, body: JsonObject) -> str | None:
        if not _REFUSAL.search(complaint):
            return None
        config = body.get("output_config")
        for name, words in _DROPPABLE.items():
            if name == "output_config" and not (isinstance(config, dict) and "effort" in config):
                continue
            if name in body and re.search(rf"(?<!\w)(?:{words})(?!\w)", complaint):
                return name
        return None

    def without(self, body: JsonObject, name: str) -> JsonObject:
        kept = {key: value for key, value in body.items() if key != name}
        config = body.get("output_config")
        if name == "output_config" and isinstance(config, dict) and "format" in config:
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
            self._turns[-1] = ("assistant", _trimmed(self._turns[-1][1]))
        return [{"role": role, "content": list[JsonValue](blocks)} for role, blocks in self._turns]


class MessagesStream:
    def __init__(self, vendor: Vendor, body: JsonObject) -> None:
        self.done = False
        self.sequel: JsonObject | None = None
        self._vendor = vendor
        self._body = body
        self._blocks = Blocks()
        self._begun: set[JsonValue] = set()  # ids of messages
        self._stop: str | None = None
        self._why = ""
        self._spent: Usage | None = None  # in the bodies before this one
        self._counts: dict[str, int] | None = None
        self._sequels = 0

    @property
    def is_whole(self) -> bool:
        return self.done

    def feed(self, event: SseEvent) -> Iterator[ModelEvent]:
        if self.done or event.data.startswith("[DONE]"):  # from proxies that think of others
            return
        data = parse_chunk(event, self._vendor, is_whole=False)
        kind = data.get("type")
        if kind == "content_block_delta":
            delta = data.get("delta")
            if isinstance(delta, dict):
                told = self._blocks.grow(_index(data), delta)
                if told is not None:
                    yield told
        elif kind == "content_block_start":
            block = data.get("content_block")
            if isinstance(block, dict):
                yield from self._blocks.start(_index(data), block)
        elif kind == "content_block_stop":
            yield from self._blocks.stop(_index(data))
        elif kind == "message_start":
            yield from self._message_start(data.get("message"))
        elif kind == "message_delta":
            self._take_usage(data.get("usage"))
            self._take_stop(data.get("delta"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or event.event == "error" or (kind is None and data.get("error")):
            usage = self._usage()
            if usage is not None:
                yield UsageReport(usage)
            raise self._vendor.reported(data.get("error") or data)

    def end(self) -> Iterator[ModelEvent]:
        self.sequel = None
        if not self.done:
            raise self._vendor.cut_short()
        yield from self._blocks.stop_all()
        has_calls = self._blocks.has_calls
        if self._stop in _PAUSES and not has_calls and self._sequels < MAX_SEQUELS:
            self._prepare_sequel()
            return
        reason = _STOP_REASONS.get(self._stop or "", "stop")
        if has_calls and reason != "refusal":  # what a refused answer asks for is not to be done
            for call in self._blocks.calls(was_cut=reason == "length"):
                if not call.name:
                    raise self._vendor.nameless_call()
                yield call
            reason = "tool_calls"
        usage = self._usage()
        if usage is not None:
            yield UsageReport(usage)
        yield from stopped(self._vendor, reason, self._why)
        content = _kept(self._blocks.content(), has_calls)
        if reason != "refusal" and any(map(_says_more, content)):
            yield Verbatim(FORMAT, list[JsonValue](content))
        yield Finished(reason, self._stop)

    def _message_start(self, message: JsonValue) -> Iterator[ModelEvent]:
        """Some servers say it twice, and some have blocks in it that are complete."""
        if not isinstance(message, dict):
            return
        self._take_usage(message.get("usage"))
        self._take_stop(message)
        name = message.get("id")
        name = name if isinstance(name, str) else None
        content = message.get("content")
        if name in self._begun or not isinstance(content, list):
            return
        self._begun.add(name)
        for block in content:
            if isinstance(block, dict):
                yield from self._blocks.start(None, block)
                yield from self._blocks.stop(None)

    def _take_stop(self, delta: JsonValue) -> None:
        told = jsons.fields(delta)
        self._stop = jsons.text(told.get("stop_reason")) or self._stop
        details = jsons.fields(told.get("stop_details"))
        self._why = jsons.text(details.get("explanation") or details.get("category")) or self._why

    def _take_usage(self, usage: JsonValue) -> None:
        """The counts so far: each event may repeat some of them, and leaves out others or has 0."""
        if not isinstance(usage, dict):
            return
        counts = self._counts = self._counts or {}
        for name in _COUNTS:
            if number := count(usage, name):
                counts[name] = number
        if number := count(usage.get("output_tokens_details"), "thinking_tokens"):
            counts["thinking_tokens"] = number

    def _usage(self) -> Usage | None:
        if self._counts is None:
            return self._spent
        cached = self._counts.get("cache_read_input_tokens", 0)
        written = self._counts.get("cache_creation_input_tokens", 0)
        return (self._spent or Usage()) + Usage(
            input=self._counts.get("input_tokens", 0) + cached + written,
            output=self._counts.get("output_tokens", 0),
            cached=cached,
            reasoning=self._counts.get("thinking_tokens", 0),
        )

    def _prepare_sequel(self) -> None:
        """The same question with the answer so far, which the vendor then goes on with."""
        self._spent, self._counts = self._usage(), None
        self._stop = None
        self._sequels += 1
        self.done = False
        asked = self._body["messages"]
        content = _trimmed(self._blocks.content())
        said: JsonObject = {"role": "assistant", "content": list[JsonValue](content)}
        messages = [*asked, said] if isinstance(asked, list) and content else asked
        self.sequel = self._body | {"messages": messages}


def _index(event: Mapping[str, JsonValue]) -> int | None:
    index = event.get("index")
    return index if isinstance(index, int) else None


def _says_more(block: JsonObject) -> bool:
    """Whether our own events would not say the block again."""
    return block["type"] not in ("text", "tool_use") or bool(block.get("citations"))


def _kept(content: list[JsonObject], has_calls: bool) -> list[JsonObject]:
    """What the vendor takes back: no reasoning that leads to nothing, no search without result.

    While there are calls, its own tools may be waiting for their results.
    """
    if not has_calls:
        answered = {block.get("tool_use_id") for block in content if _is_id(block, "tool_use_id")}
        content = [
            block
            for block in content
            if block["type"] not in ("server_tool_use", "mcp_tool_use")
            or (_is_id(block, "id") and block["id"] in answered)
        ]
    while content and content[-1]["type"] in ("thinking", "redacted_thinking"):
        content = content[:-1]
    return content


def _is_id(block: JsonObject, name: str) -> bool:
    return isinstance(block.get(name), str)


def _trimmed(content: list[JsonObject]) -> list[JsonObject]:
    """The vendor refuses white space at the end of an assistant's turn that it is to go on with."""
    if content and content[-1]["type"] == "text":
        return [*content[:-1], content[-1] | {"text": str(content[-1]["text"]).rstrip()}]
    return content


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
    capabilities = row.get("capabilities")
    capabilities = capabilities if isinstance(capabilities, dict) else {}
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
    supported = capability.get("supported") if isinstance(capability, dict) else None
    return supported if isinstance(supported, bool) else None

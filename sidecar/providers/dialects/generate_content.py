"""Google's generateContent format: request out, events in.

A pure state machine. Promises that a thought signature goes back on exactly the part it came with,
that each call the model made is told once with an id of its own, and that a stream without its
terminal (`finishReason` or `promptFeedback.blockReason`) is an error and never a success. What is
unknown is skipped. Does not know who is at the other end beyond the name.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote
from uuid import uuid4

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Part, Tool, Usage
from sidecar.providers.base import (
    Citation,
    Finished,
    Media,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    Notice,
    Params,
    ProviderItem,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCall,
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
from sidecar.providers.dialects.gemini_schema import SchemaRefused, accepted, parameters
from sidecar.providers.dialects.partial_arguments import PartialArguments
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseEvent

FORMAT = "generate_content"
MAX_STOPS = 5  # more is a 400
UNSIGNED = "skip_thought_signature_validator"  # Google's own stand-in for a lost signature

_TAKES = Takes(
    image_types=frozenset(("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")),
    image_side=3072,  # what is larger is scaled down there
    pdf_bytes=14 * 1024 * 1024,  # as base64 just below the 20 MB that a whole request may have
)
_GENERATION = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_LATEST = re.compile(r"gemini-(pro|flash|flash-lite)-latest")  # of the third generation at least
_NEVER_THINKS = re.compile(r"-(tts|live|native-audio)\b|gemini-2\.5-.*image")
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
_LEVELS = {"none": "MINIMAL", "max": "XHIGH"}  # from the third generation on there is always some
_REFUSAL = re.compile(
    r"not (supported|enabled|allowed)|unsupported|is invalid|invalid value|unknown name",
    re.IGNORECASE,
)
_DROPPABLE = (  # in a complaint → in `generationConfig`
    (re.compile(r"think\w*[ _.]*level", re.IGNORECASE), "thinkingLevel"),
    (re.compile(r"budget", re.IGNORECASE), "thinkingBudget"),
    (re.compile(r"think", re.IGNORECASE), "thinkingConfig"),
    (re.compile(r"temperature", re.IGNORECASE), "temperature"),
    (re.compile(r"top_?p\b", re.IGNORECASE), "topP"),
    (re.compile(r"stop_?sequence", re.IGNORECASE), "stopSequences"),
)
_NO_SYSTEM = re.compile(r"(developer|system) ?_?instruction", re.IGNORECASE)  # Gemma

_STOP_REASONS: dict[str, StopReason] = {
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
_GAVE_UP = frozenset(
    (
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "PUP_LIMITED_DISABLED",
        "IMAGE_OTHER",
        "NO_IMAGE",
    )
)
_ITEMS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse", "fileData")
_SOURCES = ("web", "retrievedContext", "maps", "image")


class GenerateContent:
    """The Dialect of a provider by this name."""

    takes = _TAKES
    models_path = "/v1beta/models?pageSize=1000"

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def path(self, model: str) -> str:
        name = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
        return f"/v1beta/{quote(name)}:streamGenerateContent?alt=sse"

    def encode(self, request: ModelRequest, files: Files) -> Encoded:
        declarations, notices = _declarations(request.tools)
        if request.params.stop and len(request.params.stop) > MAX_STOPS:
            words = f"Gemini minds only the first {MAX_STOPS} stop sequences."
            notices.append(Notice("stop_dropped", words))
        body: JsonObject = {"contents": self._contents(request, files)}
        if request.system_prompt:
            body["systemInstruction"] = {"parts": [{"text": request.system_prompt}]}
        if declarations:
            body["tools"] = [{"functionDeclarations": declarations}]
        if config := _generation_config(request.model, request.params):
            body["generationConfig"] = config
        return Encoded(body, tuple(notices))

    def stream(self, vendor: Vendor, body: JsonObject) -> "GenerateContentStream":
        return GenerateContentStream(vendor)

    def parse_models(self, body: bytes) -> list[ModelInfo]:
        return listing(jsons.fields(jsons.loads(body)).get("models"), _model)

    def refused_parameter(self, complaint: str, body: JsonObject) -> str | None:
        if not _REFUSAL.search(complaint):
            return None
        config = jsons.fields(body.get("generationConfig"))
        present = {*config, *jsons.fields(config.get("thinkingConfig"))}
        for pattern, name in _DROPPABLE:
            if name in present and pattern.search(complaint):
                return name
        if "systemInstruction" in body and _NO_SYSTEM.search(complaint):
            return "systemInstruction"
        return None

    def without(self, body: JsonObject, name: str) -> JsonObject:
        if name == "systemInstruction":
            return _with_system_as_text(body)
        config = {
            key: value
            for key, value in jsons.fields(body.get("generationConfig")).items()
            if key != name
        }
        if name in (thinking := jsons.fields(config.get("thinkingConfig"))):
            config["thinkingConfig"] = {
                key: value for key, value in thinking.items() if key != name
            }
        return body | {"generationConfig": config} if "generationConfig" in body else body

    def _contents(self, request: ModelRequest, files: Files) -> list[JsonValue]:
        contents: list[tuple[str, list[JsonObject]]] = []
        users = [i for i, message in enumerate(request.history) if message.role == "user"]
        is_third = _generation(request.model) >= 3
        for index, message in enumerate(request.history):
            if message.role == "user":
                contents.append(("user", list(_user_parts(message.parts, files))))
                continue
            # Signatures are asked for since the last thing that a person said.
            must_sign = is_third and index > max(users, default=-1)
            for step in steps(message, provider=self._provider, model=request.model, format=FORMAT):
                contents.append(("model", _said(step, files, must_sign)))
                contents.append(("user", _answers(step, contents[-1][1], files, is_third)))
        return _merged(contents)


@dataclass(slots=True)
class _Call:
    """A call whose arguments still come."""

    name: str
    vendor_id: str
    part: JsonObject
    arguments: PartialArguments = field(default_factory=PartialArguments)


class GenerateContentStream:
    def __init__(self, vendor: Vendor) -> None:
        self.done = False
        self.sequel: JsonObject | None = None
        self._vendor = vendor
        self._said = _Said()
        self._open: _Call | None = None
        self._ids: set[str] = set()
        self._cited: set[tuple[str | None, str | None]] = set()
        self._counts: JsonValue = None
        self._finish: str | None = None
        self._is_blocked = False
        self._why = ""

    @property
    def is_whole(self) -> bool:
        return self._finish is not None

    def feed(self, event: SseEvent) -> Iterator[ModelEvent]:
        """Raises ProviderError for an error inside the stream, after what came before it."""
        chunk = parse_chunk(event, self._vendor, is_whole=self.is_whole)
        counts = chunk.get("usageMetadata")
        if isinstance(counts, dict) and "promptTokenCount" in counts:
            self._counts = counts
        candidate = _first_candidate(chunk)
        if candidate is not None:
            yield from self._candidate(candidate)
        feedback = jsons.fields(chunk.get("promptFeedback"))
        if blocked := jsons.text(feedback.get("blockReason")):
            self._finish, self._is_blocked = blocked, True
            self._why = jsons.text(feedback.get("blockReasonMessage"))
        error = chunk.get("error")
        if error or self._finish in _GAVE_UP:
            yield from self._usage()
        if error:
            raise self._vendor.reported(error)
        if self._finish in _GAVE_UP:
            told = f"{self._finish}: {self._why[:300]}" if self._why else self._finish
            raise self._vendor.bad_response(f"gave up on its answer ({told}).")

    def end(self) -> Iterator[ModelEvent]:
        """The rest and Finished. Raises ProviderBadResponse for an answer cut short."""
        if self._finish is None:
            raise self._vendor.cut_short()
        reason = "content_filter" if self._is_blocked else _STOP_REASONS.get(self._finish, "stop")
        if self._open is not None:
            yield self._close(self._open, was_cut=reason != "stop")
        if reason == "content_filter":
            yield from stopped(self._vendor, reason, self._why)
        yield from self._usage()
        if self._said.is_its_own:
            yield Verbatim(FORMAT, self._said.parts())
        yield Finished("tool_calls" if self._ids else reason, self._finish)

    def _candidate(self, candidate: JsonObject) -> Iterator[ModelEvent]:
        parts = jsons.fields(candidate.get("content")).get("parts")
        if isinstance(parts, list):
            for part in parts:
                if isinstance(part, dict):
                    yield from self._part(part)
        yield from self._citations(candidate)
        if isinstance(finish := candidate.get("finishReason"), str) and finish:
            self._finish = finish
        self._why = jsons.text(candidate.get("finishMessage")) or self._why

    def _part(self, part: JsonObject) -> Iterator[ModelEvent]:
        if isinstance(call := part.get("functionCall"), dict):
            yield from self._function_call(call, part)
            return
        if isinstance(text := part.get("text"), str):
            self._said.add_text(part, text)
            if text:
                yield ReasoningDelta(text) if part.get("thought") else TextDelta(text)
            return
        if isinstance(blob := part.get("inlineData"), dict):
            if not part.get("thought"):  # a sketch, of which the model only thought
                yield from self._media(blob, part)
            return
        if any(isinstance(value, dict) for value in part.values()):
            self._said.add(part)
        elif "thoughtSignature" in part:
            self._said.add_text(part, "")
        yield from (ProviderItem(kind) for kind in _ITEMS if isinstance(part.get(kind), dict))

    def _media(self, blob: JsonObject, part: JsonObject) -> Iterator[Media]:
        try:
            data = base64.b64decode(jsons.text(blob.get("data")), validate=True)
        except binascii.Error:
            return
        mime, name = jsons.text(blob.get("mimeType")), jsons.text(blob.get("displayName"))
        if data and mime:
            self._said.add(part | {"inlineData": {"mimeType": mime}})  # the data is kept once
            yield Media(mime, data, name or None)

    def _function_call(self, call: JsonObject, part: JsonObject) -> Iterator[ToolCall]:
        """Whole, or in pieces: a name, then `partialArgs`, then a piece that does not continue."""
        name, vendor_id = jsons.text(call.get("name")), jsons.text(call.get("id"))
        known = self._open
        if known is not None and _begins_anew(known, name, vendor_id):
            yield self._close(known)
            known = None
        if known is None:
            if not name:
                if call.get("args") or call.get("partialArgs"):
                    raise self._vendor.nameless_call()
                return
            known = _Call(name, vendor_id, part)
            self._said.add(part)
        elif "thoughtSignature" in part:
            known.part["thoughtSignature"] = part["thoughtSignature"]
        known.arguments.add(call.get("partialArgs"))
        self._open = known
        if not call.get("willContinue"):
            yield self._close(known, whole=call.get("args"))

    def _close(self, call: _Call, whole: JsonValue = None, was_cut: bool = False) -> ToolCall:
        self._open = None
        value = call.arguments.value if whole is None else whole
        arguments = value if isinstance(value, dict) else None
        wire: JsonObject = {"name": call.name, "args": arguments or {}}
        if call.vendor_id:
            wire["id"] = call.vendor_id
        self._said.settle(call.part, wire)
        call_id = call.vendor_id
        while not call_id or call_id in self._ids:
            call_id = uuid4().hex
        self._ids.add(call_id)
        return ToolCall(call_id, call.name, None if was_cut else arguments, json.dumps(value))

    def _citations(self, candidate: JsonObject) -> Iterator[Citation]:
        for url, title in _sources(candidate):
            if (url or title) and (url, title) not in self._cited:
                self._cited.add((url, title))
                yield Citation(url, title)

    def _usage(self) -> Iterator[UsageReport]:
        counts = self._counts
        if counts is not None:
            thoughts = count(counts, "thoughtsTokenCount")
            usage = Usage(
                input=count(counts, "promptTokenCount") + count(counts, "toolUsePromptTokenCount"),
                output=count(counts, "candidatesTokenCount") + thoughts,
                cached=count(counts, "cachedContentTokenCount"),
                reasoning=thoughts,
            )
            yield UsageReport(usage)


class _Said:
    """The answer in Google's own parts, texts joined where no signature stands between them."""

    def __init__(self) -> None:
        self.is_its_own = False  # it has what our own parts cannot say
        self._parts: list[JsonObject] = []
        self._texts: list[list[str]] = []  # of each part
        self._thinks: bool | None = None  # whether the open text is a thought; None: no text is

    def add_text(self, part: JsonObject, text: str) -> None:
        is_signed, thinks = "thoughtSignature" in part, bool(part.get("thought"))
        if not is_signed and thinks is self._thinks:
            self._texts[-1].append(text)
        elif text or is_signed:
            self._keep(part, [text])
            self._thinks = None if is_signed else thinks
            self.is_its_own |= is_signed or thinks

    def add(self, part: JsonObject) -> None:
        self._keep(part, [])
        self._thinks = None
        self.is_its_own |= "functionCall" not in part or "thoughtSignature" in part

    def settle(self, part: JsonObject, call: JsonObject) -> None:
        """What the call in this part has come to."""
        index = next(i for i in reversed(range(len(self._parts))) if self._parts[i] is part)
        self._parts[index] = part | {"functionCall": call}
        self.is_its_own |= "id" in call or "thoughtSignature" in part

    def parts(self) -> list[JsonValue]:
        return [
            part | {"text": "".join(texts)} if texts else part
            for part, texts in zip(self._parts, self._texts, strict=True)
        ]

    def _keep(self, part: JsonObject, texts: list[str]) -> None:
        self._parts.append(part)
        self._texts.append(texts)


def _begins_anew(call: _Call, name: str, vendor_id: str) -> bool:
    if vendor_id and call.vendor_id:
        return vendor_id != call.vendor_id
    return bool(name) and name != call.name


def _first_candidate(chunk: JsonObject) -> JsonObject | None:
    candidates = chunk.get("candidates")
    if isinstance(candidates, list):
        for candidate in candidates:
            if isinstance(candidate, dict) and not candidate.get("index"):
                return candidate
    return None


def _sources(candidate: JsonObject) -> Iterator[tuple[str | None, str | None]]:
    grounding = jsons.fields(candidate.get("groundingMetadata"))
    for chunk in jsons.rows(grounding.get("groundingChunks")):
        for kind in _SOURCES:
            source = jsons.fields(chunk.get(kind))
            url = jsons.text(source.get("uri")) or jsons.text(source.get("sourceUri"))
            yield url or None, jsons.text(source.get("title")) or None
    for name in ("citationSources", "citations"):  # the Gemini API's, and Vertex AI's
        for source in jsons.rows(jsons.fields(candidate.get("citationMetadata")).get(name)):
            yield jsons.text(source.get("uri")) or None, jsons.text(source.get("title")) or None
    for page in jsons.rows(jsons.fields(candidate.get("urlContextMetadata")).get("urlMetadata")):
        if page.get("urlRetrievalStatus") == "URL_RETRIEVAL_STATUS_SUCCESS":
            yield jsons.text(page.get("retrievedUrl")) or None, None


def _generation(model: str) -> float:
    """2.5 for gemini-2.5-pro; 0 for what is no Gemini."""
    if _LATEST.search(model):
        return 3.0
    found = _GENERATION.search(model)
    return float(f"{found[1]}.{found[2] or 0}") if found else 0.0


def _generation_config(model: str, params: Params) -> JsonObject:
    config: JsonObject = {}
    optional: dict[str, JsonValue] = {
        "temperature": params.temperature,
        "topP": params.top_p,
        "maxOutputTokens": params.max_tokens,
        "stopSequences": list(params.stop[:MAX_STOPS]) if params.stop else None,
    }
    config |= {key: value for key, value in optional.items() if value is not None}
    if params.json_schema is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = _answer_schema(params.json_schema)
    if thinking := _thinking(model, params.reasoning_effort):
        config["thinkingConfig"] = thinking
    return config


def _answer_schema(schema: JsonObject) -> JsonObject:
    try:
        return accepted(schema)
    except SchemaRefused:
        return schema  # Google's own words about it are better than ours


def _thinking(model: str, effort: str | None) -> JsonObject:
    generation = _generation(model)
    if generation < 2.5 or _NEVER_THINKS.search(model):
        return {}
    config: JsonObject = {"includeThoughts": True}
    if effort is not None and generation >= 3:
        config["thinkingLevel"] = _LEVELS.get(effort, effort.upper())
    elif effort is not None and effort in _BUDGETS:
        config["thinkingBudget"] = _BUDGETS[effort]
    return config


def _declarations(tools: Sequence[Tool]) -> tuple[list[JsonValue], list[Notice]]:
    declarations: list[JsonValue] = []
    refused: list[str] = []
    for tool in sorted(tools, key=lambda tool: tool.name):
        declaration: JsonObject = {"name": tool.name, "description": tool.description}
        try:
            schema = parameters(tool.input_schema)
        except SchemaRefused as why:
            refused.append(f"{tool.name} ({why})")
            continue
        if schema is not None:
            declaration["parametersJsonSchema"] = schema
        declarations.append(declaration)
    if not refused:
        return declarations, []
    text = f"Gemini cannot be offered {', '.join(refused)}."
    return declarations, [Notice("tools_dropped", text)]


def _user_parts(parts: Iterable[Part], files: Files) -> Iterator[JsonObject]:
    for part in parts:
        if part.type == "text":
            if part.text:
                yield {"text": part.text}
        elif part.type in ("image", "file"):
            fitted = files[part.attachment_id]
            if isinstance(fitted, Native):
                yield _inline(fitted)
            elif fitted.text:
                yield {"text": fitted.text}


def _said(step: Step, files: Files, must_sign: bool) -> list[JsonObject]:
    own = _own_parts(step, files)
    parts = own if own is not None else list(_plain_parts(step))
    first = next((i for i, part in enumerate(parts) if "functionCall" in part), None)
    if must_sign and first is not None and "thoughtSignature" not in parts[first]:
        parts[first] = parts[first] | {"thoughtSignature": UNSIGNED}
    return parts


def _answers(
    step: Step, said: Sequence[JsonObject], files: Files, takes_images: bool
) -> list[JsonObject]:
    """One for each call of what the model `said`, in their order, under the calls' own names."""
    calls = [jsons.fields(part["functionCall"]) for part in said if "functionCall" in part]
    answers: list[JsonObject] = []
    for call, (_, result) in zip(calls, step.answers(), strict=True):
        response: JsonObject = {name: call[name] for name in ("name", "id") if name in call}
        response["response"] = {"result" if result.status == "ok" else "error": result.text}
        if takes_images and (images := pictures(result, files)):
            response["parts"] = [_inline(image) for image in images]
        answers.append({"functionResponse": response})
    return answers


def _inline(file: Native) -> JsonObject:
    return {"inlineData": {"mimeType": file.mime, "data": file.data}}


def _own_parts(step: Step, files: Files) -> list[JsonObject] | None:
    """Google's own parts with their media in them again; None where they are not this step's."""
    if not isinstance(step.verbatim, list):
        return None
    parts = [dict(part) for part in step.verbatim if isinstance(part, dict)]
    if sum("functionCall" in part for part in parts) != len(step.calls):
        return None
    media = iter([part for part in step.said if part.type in ("image", "file")])
    whole = []
    for part in parts:
        if "inlineData" in part:
            shown = next(media, None)
            fitted = None
            if shown is not None and shown.type in ("image", "file"):
                fitted = files.get(shown.attachment_id)
            if not isinstance(fitted, Native):
                continue
            part |= _inline(fitted)
        whole.append(part)
    return whole


def _plain_parts(step: Step) -> Iterator[JsonObject]:
    for part in step.said:
        if part.type == "text" and part.text:
            yield {"text": part.text}
        elif part.type == "tool_call":
            yield {"functionCall": {"name": part.offered_as, "args": part.arguments}}


def _merged(contents: Iterable[tuple[str, list[JsonObject]]]) -> list[JsonValue]:
    """One content for each change of who speaks, the person first; none without parts.

    Everything else would be a 400.
    """
    merged: list[tuple[str, list[JsonObject]]] = []
    for role, parts in contents:
        if parts and role == "model" and not merged:
            merged.append(("user", [{"text": SILENCE}]))
        if merged and merged[-1][0] == role:
            merged[-1][1].extend(parts)
        elif parts:
            merged.append((role, parts))
    merged = merged or [("user", [{"text": SILENCE}])]
    return [{"role": role, "parts": [*parts]} for role, parts in merged]


def _with_system_as_text(body: JsonObject) -> JsonObject:
    """The system prompt as the first thing that is said, for models that know no other place."""
    system, contents = jsons.fields(body.get("systemInstruction")).get("parts"), body["contents"]
    kept = {key: value for key, value in body.items() if key != "systemInstruction"}
    if not isinstance(system, list) or not isinstance(contents, list):
        return kept
    first, rest = jsons.fields(next(iter(contents), None)), contents[1:]
    parts = first.get("parts")
    if first.get("role") != "user" or not isinstance(parts, list):
        parts, rest = [], contents
    said: JsonObject = {"role": "user", "parts": [*system, *parts]}
    return kept | {"contents": [said, *rest]}


def _model(row: JsonObject) -> ModelInfo | None:
    methods, name = row.get("supportedGenerationMethods"), jsons.text(row.get("name"))
    if not name or not isinstance(methods, list) or "generateContent" not in methods:
        return None
    model = name.removeprefix("models/")
    thinking = row.get("thinking")
    return ModelInfo(
        model=model,
        name=jsons.text(row.get("displayName")) or model,
        context=count(row, "inputTokenLimit") or None,
        max_output=count(row, "outputTokenLimit") or None,
        reasoning=thinking if isinstance(thinking, bool) else None,
    )

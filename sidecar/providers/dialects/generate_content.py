"""A question in Google's generateContent format.

Promises that a thought signature goes back on exactly the part it came with, that every call is
answered in one turn, and that what a model does not take is said otherwise or left out. Knows no
HTTP and of the server no more than the provider's name.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Part, Tool
from sidecar.providers.base import ModelInfo, ModelRequest, Notice, Params
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
from sidecar.providers.dialects.gemini_schema import SchemaRefused, accepted, parameters
from sidecar.providers.dialects.generate_content_stream import FORMAT, GenerateContentStream
from sidecar.providers.dialects.tools import in_order
from sidecar.providers.failures import Vendor

MAX_STOPS = 5  # more is a 400
UNSIGNED = "skip_thought_signature_validator"  # Google's own stand-in for a lost signature

_TAKES = Takes(
    image_types=frozenset(("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")),
    image_side=3072,  # what is larger is scaled down there
    # A whole request may have 100 MB, and had 20 until 2026; a PDF in it 50.
    pdf_bytes=36_000_000,
    together_chars=95_000_000,
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

    def stream(self, vendor: Vendor, body: JsonObject) -> GenerateContentStream:
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
    for tool in in_order(tools):
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
    """One for each call of what the model `said`, in their order, under the calls' own names.

    Images are inside of them where the model `takes_images` there, else they come after all.
    """
    calls = [jsons.fields(part["functionCall"]) for part in said if "functionCall" in part]
    answers: list[JsonObject] = []
    shown: list[JsonObject] = []
    for call, (_, result) in zip(calls, step.answers(), strict=True):
        response: JsonObject = {name: call[name] for name in ("name", "id") if name in call}
        response["response"] = {"result" if result.status == "ok" else "error": result.text}
        images = [_inline(image) for image in pictures(result, files)]
        if images and takes_images:
            response["parts"] = [*images]
        elif images:
            shown += [{"text": f"What {call['name']} gave:"}, *images]
        answers.append({"functionResponse": response})
    return [*answers, *shown]


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
    system = jsons.items(jsons.fields(body.get("systemInstruction")).get("parts"))
    first, *rest = jsons.rows(body["contents"])
    said: JsonObject = first | {"parts": [*system, *jsons.items(first["parts"])]}
    kept = {key: value for key, value in body.items() if key != "systemInstruction"}
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

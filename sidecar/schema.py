"""The protocol, written down for others: JSON Schema, TypeScript and Markdown.

All three come from the models of `protocol` alone, are equal at every call and do not depend on
docstrings, which a frozen program does not have. Knows no socket, no file and no command line.

A schema of what a client sends is closed, as the server is; one of what it receives is open,
because a later server may add to it.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, assert_never, get_args

from pydantic import Field, JsonValue, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from sidecar import errors, messages
from sidecar.messages import JsonObject
from sidecar.protocol.base import (
    CLOSE_BINARY,
    CLOSE_SESSION_ENDED,
    CLOSE_SHUTDOWN,
    CLOSE_SLOW_CONSUMER,
    CLOSE_TOO_BIG,
    PROTOCOL_VERSION,
    Inbound,
    Request,
)
from sidecar.protocol.chat import ChatResult
from sidecar.protocol.chunks import Chunk
from sidecar.protocol.events import Event
from sidecar.protocol.frames import AnyFrame, AnyResult
from sidecar.protocol.program import Limits
from sidecar.protocol.requests import BASIC_REQUESTS, REQUESTS, AnyRequest

Format = Literal["json", "typescript", "markdown"]

CLOSE_CODES = {
    CLOSE_SHUTDOWN: "The sidecar shuts down.",
    CLOSE_BINARY: "A binary frame came.",
    CLOSE_TOO_BIG: "A frame was larger than `frame_bytes`.",
    CLOSE_SESSION_ENDED: "The page's session has ended: its code was used twice.",
    CLOSE_SLOW_CONSUMER: "The client read too slowly; its runs go on.",
}

_OPEN = (
    "A later server may add fields, codes, states, chunk types and event types to its frames: "
    "a client ignores what it does not know. Unknown fields of a request are errors."
)
_REFERENCE = "#/$defs/"


def render(form: Format) -> str:
    """The protocol as text, ending with a newline."""
    match form:
        case "json":
            return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
        case "typescript":
            return typescript()
        case "markdown":
            return markdown()
        case _:
            assert_never(form)


def json_schema() -> JsonObject:
    """One schema of every text frame, with the facts beside it that no schema can say."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"The sidecar's WebSocket protocol, version {PROTOCOL_VERSION}",
        "description": _OPEN,
        "anyOf": [{"$ref": _REFERENCE + "Request"}, {"$ref": _REFERENCE + "Frame"}],
        "protocol": PROTOCOL_VERSION,
        "actions": {
            action: {
                "payload": {"$ref": _REFERENCE + _payload_name(request)},
                "result": {"$ref": _REFERENCE + request.result.__name__},
                "streams": request.result is ChatResult,
                "needs_hello": not issubclass(request, BASIC_REQUESTS),
            }
            for action, request in REQUESTS.items()
        },
        "basic_chunks": list(_basic_chunks()),
        "limits": Limits().model_dump(mode="json"),
        "close_codes": {str(code): meaning for code, meaning in CLOSE_CODES.items()},
        "error_codes": dict(_error_codes()),
        "$defs": _definitions(),
    }


def _payload_name(request: type[Request]) -> str:
    payload = request.model_fields["payload"].annotation
    assert isinstance(payload, type)
    return payload.__name__


def _basic_chunks() -> Iterator[JsonValue]:
    """The types of the chunks that a client sees which never said hello."""
    union, *_discriminator = get_args(Chunk)
    for chunk in get_args(union):
        if chunk.basic:
            yield chunk.model_fields["type"].default


def _error_codes() -> Iterator[tuple[str, JsonObject]]:
    """Every code once, in the order of `errors`."""
    seen = set()
    for value in vars(errors).values():
        if not (isinstance(value, type) and issubclass(value, errors.SidecarError)):
            continue
        if value.code in seen:
            continue
        seen.add(value.code)
        about: JsonObject = {"origin": value.origin}
        if issubclass(value, errors.Refused):
            about["http_status"] = value.status
        yield value.code, about


# ---- JSON Schema ----------------------------------------------------------------------------


class _Generator(GenerateJsonSchema):
    """Pydantic's schemas without titles and docstrings, true to what is on the wire."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        for docstring in ("title", "description"):
            result.pop(docstring, None)
        if not issubclass(schema["cls"], Inbound):
            result.pop("additionalProperties", None)
        return result

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        """A frame has all its fields but those left out when None; a union's tag is always sent."""
        if self.mode == "serialization":
            return "serialization_exclude_if" not in field
        return super().field_is_required(field, total) or _is_constant(field["schema"])

    def model_field_schema(self, schema: core_schema.ModelField) -> JsonSchemaValue:
        result = super().model_field_schema(schema)
        if self.mode == "serialization" and "serialization_exclude_if" in schema:
            return _without_null(result)
        return result

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """A default is for the sender to know: none in frames, and none that says nothing."""
        if self.mode == "serialization" or _is_constant(schema):
            return self.generate_inner(schema["schema"])
        result = super().default_schema(schema)
        if not isinstance(result.get("default"), str | int | float):
            result.pop("default", None)
        return result

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Without OpenAPI's keyword: the tags are constants."""
        result = super().tagged_union_schema(schema)
        result.pop("discriminator", None)
        return result


def _is_constant(schema: core_schema.CoreSchema) -> bool:
    inner = schema["schema"] if schema["type"] == "default" else schema
    return inner["type"] == "literal" and len(inner["expected"]) == 1


def _without_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    choices = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {**schema, "anyOf": choices}


def _definitions() -> JsonObject:
    adapters: dict[str, TypeAdapter[object]] = {
        "Request": TypeAdapter(Annotated[AnyRequest, Field(discriminator="action")]),
        "Frame": TypeAdapter(AnyFrame),
        "Result": TypeAdapter(AnyResult),
        "Chunk": TypeAdapter(Chunk),
        "Event": TypeAdapter(Event),
        "Part": TypeAdapter(messages.Part),
        "ToolContent": TypeAdapter(messages.ToolContent),
    }
    unions, bundle = TypeAdapter.json_schemas(
        [
            (name, "validation" if name == "Request" else "serialization", adapter)
            for name, adapter in adapters.items()
        ],
        ref_template=_REFERENCE + "{model}",
        schema_generator=_Generator,
    )
    named = {name: union for (name, _mode), union in unions.items()}
    structures = {name: _refer(schema, named) for name, schema in bundle["$defs"].items()}
    return dict(sorted({**named, **structures}.items()))


def _refer(node: JsonValue, unions: dict[str, JsonSchemaValue]) -> JsonValue:
    """Replace a union that was written out by a reference to its name."""
    match node:
        case dict():
            for name, union in unions.items():
                if node == union:
                    return {"$ref": _REFERENCE + name}
            return {key: _refer(value, unions) for key, value in node.items()}
        case list():
            return [_refer(value, unions) for value in node]
        case _:
            return node


# ---- TypeScript -----------------------------------------------------------------------------

_TYPESCRIPT_WORDS = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_CONSTRAINTS = {  # what a type cannot say; the sidecar checks it
    "default",
    "description",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "minItems",
    "maxItems",
}


def typescript() -> str:
    """Types for a client, in one module without imports.

    Raises ValueError for a shape that a model of the protocol has not had before.
    """
    schema = json_schema()
    definitions, actions = _object(schema["$defs"]), _object(schema["actions"])
    openness = textwrap.fill(_OPEN, 80, initial_indent="// ", subsequent_indent="// ")
    blocks = [
        f"// {schema['title']}.\n// Made by `sidecar schema --format typescript`.\n//\n{openness}",
        f"export const PROTOCOL_VERSION = {schema['protocol']};",
        _action_map("Payloads", "What each action takes.", "payload", actions),
        _action_map("Results", "What each action answers with.", "result", actions),
        "export type Action = keyof Payloads;",
        _alias("ErrorCode", [json.dumps(code) for code in _object(schema["error_codes"])]),
        _close_codes(),
    ]
    blocks += [_declaration(name, _object(definitions[name])) for name in _in_reading_order(schema)]
    return "\n\n".join(blocks) + "\n"


def _action_map(name: str, about: str, key: str, actions: JsonObject) -> str:
    lines = [
        f"  {json.dumps(action)}: {_typescript_type(_object(entry)[key])};"
        for action, entry in actions.items()
    ]
    return "\n".join([f"/** {about} */", f"export interface {name} {{", *lines, "}"])


def _close_codes() -> str:
    notes = "".join(f" * {code}: {meaning}\n" for code, meaning in CLOSE_CODES.items())
    return f"/**\n{notes} */\n{_alias('CloseCode', [str(code) for code in CLOSE_CODES])}"


def _in_reading_order(schema: JsonObject) -> list[str]:
    """All definitions, each before what it refers to."""
    definitions = _object(schema["$defs"])
    order: list[str] = []
    waiting = ["Request", "Frame"]
    while waiting:
        name = waiting.pop(0)
        if name not in order:
            order.append(name)
            waiting = [*_references(definitions[name]), *waiting]
    return order


def _declaration(name: str, schema: JsonObject) -> str:
    if not name.isidentifier():
        raise ValueError(f"{name} differs between requests and frames: give it two names.")
    if name == "JsonValue":
        return (
            "export type JsonValue =\n  | null\n  | boolean\n  | number\n  | string\n"
            "  | JsonValue[]\n  | { [key: string]: JsonValue };"
        )
    if "properties" not in schema:
        return _alias(name, _choices(schema))
    if unknown := schema.keys() - {"type", "properties", "required", "additionalProperties"}:
        raise ValueError(f"No TypeScript is known for {name} with {', '.join(sorted(unknown))}.")
    if not schema["properties"]:
        closed = schema.get("additionalProperties") is False
        return f"export type {name} = Record<string, {'never' if closed else 'unknown'}>;"
    lines = [f"export interface {name} {{"]
    for key, field, is_required in _fields(schema):
        if "description" in field:
            lines.append(f"  {_comment(str(field['description']))}")
        lines.append(f"  {key}{'' if is_required else '?'}: {_typescript_type(field)};")
    return "\n".join([*lines, "}"])


def _alias(name: str, choices: list[str]) -> str:
    line = f"export type {name} = {' | '.join(choices)};"
    if len(line) <= 80:
        return line
    return "\n".join([f"export type {name} =", *(f"  | {choice}" for choice in choices)]) + ";"


def _choices(schema: JsonObject) -> list[str]:
    choices = schema.get("oneOf") or schema.get("anyOf")
    return (
        [_typescript_type(choice) for choice in choices]
        if isinstance(choices, list)
        else [_typescript_type(schema)]
    )


def _typescript_type(node: JsonValue) -> str:
    shape = {key: value for key, value in _object(node).items() if key not in _CONSTRAINTS}
    match shape:
        case {"$ref": str(reference), **rest} if not rest:
            return reference.removeprefix(_REFERENCE)
        case {"const": value, "type": "string" | "boolean", **rest} if not rest:
            return json.dumps(value)
        case {"enum": list(values), "type": "string", **rest} if not rest:
            return " | ".join(json.dumps(value) for value in values)
        case {"anyOf": list(choices), **rest} | {"oneOf": list(choices), **rest} if not rest:
            return " | ".join(_typescript_type(choice) for choice in choices)
        case {"type": "array", "items": items, **rest} if not rest:
            item = _typescript_type(items)
            return f"({item})[]" if " " in item else f"{item}[]"
        case {"type": "object", "additionalProperties": values, **rest} if not rest:
            return f"{{ [key: string]: {_typescript_type(values)} }}"
        case {"type": str(word), **rest} if not rest and word in _TYPESCRIPT_WORDS:
            return _TYPESCRIPT_WORDS[word]
        case _:
            raise ValueError(f"No TypeScript is known for {json.dumps(node)}.")


def _comment(text: str) -> str:
    return f"/** {text.replace('*/', '* /')} */"


# ---- Markdown -------------------------------------------------------------------------------


def markdown() -> str:
    """All tables under their headings."""
    return "\n".join(f"### {title}\n\n{table}" for title, table in tables().items())


def tables() -> dict[str, str]:
    """The protocol for people, a table for each heading."""
    schema = json_schema()
    definitions = _object(schema["$defs"])
    actions = {name: _object(entry) for name, entry in _object(schema["actions"]).items()}
    chunks = [_properties(definitions[name]) for name in _references(definitions["Chunk"])]
    events = [_properties(definitions[name]) for name in _references(definitions["Event"])]
    places = dict(_places(actions, chunks, events))
    types = _mentioned(places, definitions)
    places |= {name: f"`{name}`" for name in types}

    def shape(reference: JsonValue) -> str:
        name = _name(reference)
        return f"`{name}`" if name in types else _shape(definitions[name])

    return {
        "Actions": _table(
            ("Action", "Payload", "Result"),
            [
                (f"`{name}`", shape(entry["payload"]), shape(entry["result"]))
                for name, entry in actions.items()
            ],
        ),
        "Chunks": _table(
            ("Chunk", "`data`", "`metadata`"),
            [(_tag(it), str(it["data"]["description"]), shape(it["metadata"])) for it in chunks],
        ),
        "Events": _table(
            ("Event", "When", "`data`"),
            [(_tag(it), str(it["data"]["description"]), shape(it["data"])) for it in events],
        ),
        "Types": _table(
            ("Type", "Fields"), [(f"`{name}`", _shape(definitions[name])) for name in types]
        ),
        "Fields": _table(
            ("Where", "Field", "Meaning"),
            [
                (place, f"`{key}`", str(field["description"]))
                for name, place in places.items()
                for key, field, _ in _fields(definitions[name])
                if "description" in field
            ],
        ),
        "Error codes": _table(("Origin", "Codes"), _codes_by_origin(schema)),
        "Limits": _table(
            ("Limit", "Value"),
            [(f"`{name}`", f"{value:,}") for name, value in Limits()],
        ),
        "Close codes": _table(
            ("Code", "Meaning"), [(str(code), meaning) for code, meaning in CLOSE_CODES.items()]
        ),
    }


def _places(
    actions: dict[str, JsonObject],
    chunks: list[dict[str, JsonObject]],
    events: list[dict[str, JsonObject]],
) -> Iterator[tuple[str, str]]:
    """The definitions that the first three tables spell out, and where a reader sees them."""
    for name, entry in actions.items():
        yield _name(entry["result"]), f"`{name}` result"
    for name, entry in actions.items():
        yield _name(entry["payload"]), f"`{name}`"
    for chunk in chunks:
        yield _name(chunk["metadata"]), _tag(chunk)
    for event in events:
        yield _name(event["data"]), _tag(event)


def _mentioned(roots: Iterable[str], definitions: JsonObject) -> list[str]:
    """The names that a reader meets from `roots` on."""
    names: set[str] = set()
    waiting = [name for root in roots for name in _references(definitions[root])]
    while waiting:
        name = waiting.pop()
        if name not in names and name != "JsonValue":
            names.add(name)
            waiting += _references(definitions[name])
    return sorted(names)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "".join(_row(cells) for cells in (head, ("---",) * len(head), *rows))


def _row(cells: tuple[str, ...]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |\n"


def _shape(definition: JsonValue) -> str:
    """The fields of an object, or the members of a union, on one line."""
    schema = _object(definition)
    if "properties" not in schema:
        return " | ".join(f"`{choice}`" for choice in _choices(schema))
    fields = [
        f"{key}{'' if is_required else '?'}{_short_type(field, prefix=': ')}"
        for key, field, is_required in _fields(schema)
    ]
    return f"`{{{', '.join(fields)}}}`"


def _short_type(node: JsonValue, prefix: str = "") -> str:
    """What a name does not say already: nothing for a text, a number or a boolean."""
    match node:
        case {"anyOf": [only, {"type": "null"}]}:
            return _short_type(only, prefix)
        case {"$ref": str(reference)} if not reference.endswith("/JsonValue"):
            return prefix + reference.removeprefix(_REFERENCE)
        case {"enum": list(values)}:
            return prefix + "|".join(str(value) for value in values)
        case {"const": value}:
            return prefix + str(value)
        case {"type": "array", "items": items}:
            return f"{prefix}[{_short_type(items)}]"
        case {"type": "object"}:
            return f"{prefix}{{}}"
        case _:
            return ""


def _codes_by_origin(schema: JsonObject) -> list[tuple[str, str]]:
    origins: dict[str, list[str]] = {}
    for code, about in _object(schema["error_codes"]).items():
        origins.setdefault(str(_object(about)["origin"]), []).append(f"`{code}`")
    return [(origin, ", ".join(codes)) for origin, codes in origins.items()]


# ---- reading a schema -----------------------------------------------------------------------


def _object(node: JsonValue) -> JsonObject:
    assert isinstance(node, dict)
    return node


def _fields(definition: JsonValue) -> Iterator[tuple[str, JsonObject, bool]]:
    """Name, schema and whether it is required, in the order of the model; a union has none."""
    schema = _object(definition)
    required = schema.get("required", [])
    assert isinstance(required, list)
    for key, field in _object(schema.get("properties", {})).items():
        yield key, _object(field), key in required


def _properties(definition: JsonValue) -> dict[str, JsonObject]:
    return {key: field for key, field, _ in _fields(definition)}


def _name(node: JsonValue) -> str:
    return str(_object(node)["$ref"]).removeprefix(_REFERENCE)


def _tag(properties: dict[str, JsonObject]) -> str:
    return f"`{properties['type']['const']}`"


def _references(node: JsonValue) -> Iterator[str]:
    match node:
        case {"$ref": str(reference)}:
            yield reference.removeprefix(_REFERENCE)
        case dict():
            for value in node.values():
                yield from _references(value)
        case list():
            for value in node:
                yield from _references(value)

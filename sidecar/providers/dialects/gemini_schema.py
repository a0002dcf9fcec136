"""A JSON schema in the part of JSON Schema that Gemini documents.

`parametersJsonSchema` and `responseJsonSchema` know: type, format, description, enum (of strings
and numbers), items, prefixItems, minItems, maxItems, minimum, maximum, anyOf, properties,
additionalProperties and required; what stands beside a `$ref` is refused. What cannot be said in
them is loosened, never tightened: whoever runs the tool checks its arguments against the schema.
"""

import math
from collections.abc import Iterable
from urllib.parse import unquote

from pydantic import JsonValue

from sidecar.messages import JsonObject

MAX_NODES = 2000  # of a schema with its references written out: far more than a model can mind
MAX_DEPTH = 30
_FORMATS = frozenset(("date-time", "int32", "int64", "float", "double"))
_TYPES = frozenset(("string", "number", "integer", "boolean", "array", "object", "null"))


class SchemaRefused(ValueError):
    """`str(error)` is why, in a few words."""


def parameters(schema: JsonObject) -> JsonObject | None:
    """A function's parameters; None where it takes none. Raises SchemaRefused."""
    made = accepted(schema)
    kinds = made.setdefault("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise SchemaRefused("its parameters are no object")
    made["type"] = "object"
    if options := made.pop("anyOf", None):
        made = _with_properties_of(made, _list(options))
    return made if made.get("properties") or made.get("additionalProperties") else None


def accepted(schema: JsonObject) -> JsonObject:
    """The same schema, as far as Gemini can be told it. Raises SchemaRefused."""
    return _Writer(schema).write(schema, frozenset(), 0)


class _Writer:
    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._nodes = 0

    def write(self, schema: JsonValue, within: frozenset[str], depth: int) -> JsonObject:
        """`within` are the references that led here: one that leads back to itself is cut."""
        plain, within = self._plain(schema, within, depth)
        made = _described(plain) | _typed(plain) | _bounded(plain)
        made |= self._array(plain, within, depth) | self._object(plain, within, depth)
        if "array" in _kinds(made):
            made.setdefault("items", {})  # an array that does not say of what is refused
        choices = [
            self.write(choice, within, depth + 1)
            for choice in _list(plain.get("anyOf")) or _list(plain.get("oneOf"))
            if choice is not False
        ]
        return _with_choices(made, choices) if choices else made

    def _plain(
        self, schema: JsonValue, within: frozenset[str], depth: int
    ) -> tuple[JsonObject, frozenset[str]]:
        """The schema with what it refers to and what it is `allOf` in one."""
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise SchemaRefused("its parameters are too large")
        if not isinstance(schema, dict):
            return {}, within
        rest = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        plain: JsonObject = {}
        if isinstance(ref := schema.get("$ref"), str):
            target = self._target(ref)
            if ref in within:
                plain = {"type": target["type"]} if "type" in target else {}
            else:
                plain, within = self._plain(target, within | {ref}, depth + 1)
        for member in _list(schema.get("allOf")):
            inner, within = self._plain(member, within, depth + 1)
            plain = _joined(plain, inner)
        return _joined(plain, rest), within

    def _target(self, ref: str) -> JsonObject:
        """What a reference inside the document points at; anything at all for another."""
        if ref != "#" and not ref.startswith("#/"):
            return {}
        place: JsonValue = self._root
        for name in ref.split("/")[1:]:
            key = unquote(name).replace("~1", "/").replace("~0", "~")
            if isinstance(place, list):
                place = place[int(key)] if key.isdecimal() and int(key) < len(place) else None
            else:
                place = place.get(key) if isinstance(place, dict) else None
        return place if isinstance(place, dict) else {}

    def _array(self, plain: JsonObject, within: frozenset[str], depth: int) -> JsonObject:
        made: JsonObject = {}
        items = plain.get("items")
        if first := _list(plain.get("prefixItems")) or _list(items):  # the latter until 2019
            made["prefixItems"] = [self.write(item, within, depth + 1) for item in first]
        if isinstance(items, dict):
            made["items"] = self.write(items, within, depth + 1)
        for name in ("minItems", "maxItems"):
            if isinstance(value := plain.get(name), int) and value >= 0:
                made[name] = int(value)
        return made

    def _object(self, plain: JsonObject, within: frozenset[str], depth: int) -> JsonObject:
        made: JsonObject = {}
        properties = plain.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if properties:
            made["properties"] = {
                name: self.write(inner, within, depth + 1) for name, inner in properties.items()
            }
        wanted = _list(plain.get("required"))
        if required := [name for name in wanted if isinstance(name, str) and name in properties]:
            made["required"] = list[JsonValue](required)
        others = plain.get("additionalProperties")
        if isinstance(others, dict):
            made["additionalProperties"] = self.write(others, within, depth + 1)
        elif others is True or (others is False and "patternProperties" not in plain):
            made["additionalProperties"] = others
        return made


def _joined(one: JsonObject, other: JsonObject) -> JsonObject:
    """Both at once; where they disagree, the other has the word."""
    joined = one | other
    properties, more = one.get("properties"), other.get("properties")
    if isinstance(properties, dict) and isinstance(more, dict):
        joined["properties"] = properties | more
    if required := [*_list(one.get("required")), *_list(other.get("required"))]:
        joined["required"] = [
            name for index, name in enumerate(required) if name not in required[:index]
        ]
    if one.get("additionalProperties") is False and more:
        joined["additionalProperties"] = other.get("additionalProperties", True)
    return joined


def _with_choices(made: JsonObject, choices: list[JsonObject]) -> JsonObject:
    """Gemini takes choices only instead of a type, never beside one."""
    if "properties" in made:
        return _with_properties_of(made, choices)
    if not all("type" in choice or "anyOf" in choice for choice in choices):
        return made
    description = {key: value for key, value in made.items() if key == "description"}
    return description | {"anyOf": list[JsonValue](choices)}


def _with_properties_of(made: JsonObject, choices: Iterable[JsonValue]) -> JsonObject:
    """The object that may also have what any of the choices have."""
    properties = made.get("properties")
    properties = dict(properties) if isinstance(properties, dict) else {}
    is_open = False
    for choice in choices:
        inner = choice.get("properties") if isinstance(choice, dict) else None
        for name, value in (inner if isinstance(inner, dict) else {}).items():
            properties[name] = {} if name in properties and properties[name] != value else value
            is_open = True
    widened = made | {"properties": properties} if properties else made
    return widened | {"additionalProperties": True} if is_open else widened


def _described(plain: JsonObject) -> JsonObject:
    words = [plain.get("description") or plain.get("title")]
    name = plain.get("format")
    if isinstance(name, str) and name not in _FORMATS:
        words.append(f"(format: {name})")
    text = " ".join(word for word in words if isinstance(word, str) and word)
    return {"description": text} if text else {}


def _typed(plain: JsonObject) -> JsonObject:
    kinds = _kinds(plain)
    values = [plain["const"]] if "const" in plain else _list(plain.get("enum"))
    made: JsonObject = {}
    if values:
        found = [_kind(value) for value in values]
        kinds = kinds or list(dict.fromkeys(found))
        if None in values and "null" not in kinds:
            kinds = [*kinds, "null"]
        named = [value for value in values if value is not None]
        # An empty name is refused, and so is a name for true, false, a list or an object.
        if named and all(value != "" and _kind(value) in ("string", "number") for value in named):
            made["enum"] = list[JsonValue](named)
    if plain.get("nullable") is True and kinds and "null" not in kinds:
        kinds = [*kinds, "null"]
    name = plain.get("format")
    if isinstance(name, str) and name in _FORMATS and kinds:
        made["format"] = name
    if kinds:
        made["type"] = kinds[0] if len(kinds) == 1 else list[JsonValue](kinds)
    return made


def _bounded(plain: JsonObject) -> JsonObject:
    made: JsonObject = {}
    whole = _kinds(plain) == ["integer"]
    for name, exclusive, step, choose in (
        ("minimum", "exclusiveMinimum", 1, max),
        ("maximum", "exclusiveMaximum", -1, min),
    ):
        bounds = [plain[name]] if _is_number(plain.get(name)) else []
        outside = plain.get(exclusive)
        if outside is True and bounds:  # until 2013 it was a flag
            outside, bounds = bounds[0], []
        if isinstance(outside, int | float) and not isinstance(outside, bool):
            inside = math.floor(outside) + 1 if step == 1 else math.ceil(outside) - 1
            bounds.append(inside if whole else outside)
        if bounds:
            made[name] = choose(bound for bound in bounds if isinstance(bound, int | float))
    return made


def _kinds(schema: JsonObject) -> list[str]:
    kinds = schema.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    return [kind for kind in listed if isinstance(kind, str) and kind in _TYPES]


def _kind(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []

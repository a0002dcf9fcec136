"""What becomes of a tool's schema on its way to Gemini."""

import random
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from sidecar.providers.dialects.gemini_schema import SchemaRefused, accepted, parameters

DOCUMENTED = {
    "type",
    "format",
    "description",
    "enum",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "anyOf",
    "properties",
    "additionalProperties",
    "required",
}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"const": 1, "type": "integer"}, {"type": "integer", "enum": [1]}),
        ({"const": None}, {"type": "null"}),
        ({"enum": ["a", None]}, {"type": ["string", "null"], "enum": ["a"]}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        ({"enum": ["", "a"], "type": "string"}, {"type": "string"}),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}),
        ({"type": "number", "exclusiveMaximum": 1}, {"type": "number", "maximum": 1}),
        (
            {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
            {"type": "integer", "minimum": 4},
        ),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        (
            {"type": "string", "format": "uri", "description": "Where."},
            {"type": "string", "description": "Where. (format: uri)"},
        ),
        ({"type": "string", "title": "City"}, {"type": "string", "description": "City"}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "array"}, {"type": "array", "items": {}}),
        (
            {"type": "array", "items": [{"type": "string"}, {"type": "number"}]},
            {
                "type": "array",
                "prefixItems": [{"type": "string"}, {"type": "number"}],
                "items": {},
            },
        ),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}], "description": "Maybe."},
            {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "Maybe."},
        ),
        ({"anyOf": [{"type": "string"}, {}]}, {}),
        ({"type": "string", "anyOf": [{"pattern": "a"}, {"pattern": "b"}]}, {"type": "string"}),
        (
            {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]},
            {"type": "object", "properties": {"a": {"type": "string"}}},
        ),
        (
            {"type": "object", "additionalProperties": False, "patternProperties": {"^x": {}}},
            {"type": "object"},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string", "pattern": "a"}},
            {"type": "object", "additionalProperties": {"type": "string"}},
        ),
        (
            {"type": "object", "properties": {"a": True}, "required": ["a", "b", 1]},
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        ),
        ({"$ref": "https://elsewhere.example/schema"}, {}),
        ({"$ref": "#/$defs/missing"}, {}),
    ],
)
def test_what_gemini_does_not_know_is_said_otherwise_or_left_out(schema: Any, told: Any) -> None:
    assert accepted(schema) == told


def test_references_are_written_out_with_what_stands_beside_them() -> None:
    schema: Any = {
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/city", "description": "Start."}},
        "$defs": {"city": {"type": "string", "description": "A city."}},
    }

    assert accepted(schema)["properties"] == {"from": {"type": "string", "description": "Start."}}


def test_a_reference_that_leads_back_to_itself_is_cut() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    schema: Any = {"$ref": "#/$defs/node", "$defs": {"node": node}}

    assert accepted(schema) == {"type": "object", "properties": {"next": {"type": "object"}}}


def test_choices_at_the_top_become_one_object_with_all_their_properties() -> None:
    choices: Any = [
        {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ]
    told = parameters({"type": "object", "anyOf": choices})

    assert told is not None
    assert told["properties"] == {"id": {"type": "integer"}, "name": {"type": "string"}}
    assert "required" not in told


@pytest.mark.parametrize("empty", [{}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_parameters_that_are_none_are_left_out(empty: Any) -> None:
    assert parameters(empty) is None


def test_parameters_that_are_no_object_are_refused() -> None:
    with pytest.raises(SchemaRefused, match="no object"):
        parameters({"type": "array", "items": {"type": "string"}})


def test_references_that_double_at_every_level_are_refused_and_not_written_out() -> None:
    definitions: dict[str, Any] = {
        f"d{i}": {"properties": {side: {"$ref": f"#/$defs/d{i + 1}"} for side in "ab"}}
        for i in range(28)
    }

    with pytest.raises(SchemaRefused, match="too large"):
        parameters({"$ref": "#/$defs/d0", "$defs": definitions})


@pytest.mark.parametrize("seed", range(200))
def test_a_value_that_the_tool_takes_is_one_that_gemini_may_say(seed: int) -> None:
    make = random.Random(seed)
    original = schema(make, 3)

    told = accepted(original)

    assert {key for inner in subschemas(told) for key in inner} <= DOCUMENTED
    for _ in range(30):
        sample = value(make, 3)
        if jsonschema.Draft202012Validator(original).is_valid(sample):
            jsonschema.Draft202012Validator(told).validate(sample)


@pytest.mark.parametrize("seed", range(200))
def test_a_schema_of_any_form_never_fails_in_another_way_than_refusal(seed: int) -> None:
    make = random.Random(seed)
    words = [*DOCUMENTED, "allOf", "oneOf", "const", "$ref", "exclusiveMinimum", "nullable"]

    def anything(depth: int) -> Any:
        keys = make.sample(words, 4)
        inner = [value(make, 2), "#", "object"] if depth == 0 else [anything(depth - 1)] * 2
        return {key: make.choice([*inner, inner, value(make, 1)]) for key in keys}

    for _ in range(20):
        try:
            parameters(anything(3))
        except SchemaRefused:
            continue


def schema(make: random.Random, depth: int) -> Any:
    """A schema with keywords that Gemini knows and that it does not know."""
    leaves: list[Any] = [
        {"type": "string", "pattern": "^a", "maxLength": 3},
        {"type": "string", "format": "email"},
        {"type": "integer", "exclusiveMinimum": make.randint(-3, 3)},
        {"type": "number", "minimum": -1, "exclusiveMaximum": make.randint(-3, 3)},
        {"const": value(make, 1)},
        {"enum": [value(make, 0) for _ in range(3)]},
        {"type": ["string", "null"], "default": None},
        {"type": "boolean"},
        {},
    ]
    if depth == 0:
        return make.choice(leaves)
    inner = [schema(make, depth - 1) for _ in range(2)]
    names = make.sample("abcd", 2)
    nested: list[Any] = [
        {"type": "array", "items": inner[0], "uniqueItems": True, "minItems": 1},
        {"type": "array", "prefixItems": inner, "items": False},
        {
            "type": "object",
            "properties": dict(zip(names, inner, strict=True)),
            "required": names[:1],
            "additionalProperties": make.choice([True, False, inner[0]]),
        },
        {"type": "object", "additionalProperties": False, "patternProperties": {"a|b": inner[0]}},
        {"oneOf": inner},
        {"anyOf": [*inner, False]},
        {"allOf": [{"title": "One"}, inner[0] if isinstance(inner[0], dict) else {}]},
        {"not": inner[0]},
    ]
    return make.choice(nested if make.random() < 0.8 else leaves)


def value(make: random.Random, depth: int) -> Any:
    leaves: list[Any] = ["", "a", "abcd", 0, 1, -2, 2.5, True, False, None]
    if depth == 0 or make.random() < 0.4:
        return make.choice(leaves)
    inner = [value(make, depth - 1) for _ in range(make.randint(0, 2))]
    return make.choice([inner, dict(zip(make.sample("abcd", 4), inner, strict=False))])


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    yield schema
    inner = [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    inner += schema.get("properties", {}).values()
    inner += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for one in inner:
        if isinstance(one, dict):
            yield from subschemas(one)

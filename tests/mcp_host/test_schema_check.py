"""What a person wrote is held against the server's schema, whatever that schema is."""

import pytest

from sidecar.errors import BadRequest
from sidecar.mcp_host.schema_check import check
from sidecar.messages import JsonObject
from tests.support.hosts import loop_watch

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "other": {"$ref": "https://example.com/x"},
        "endless": {"$ref": "#/properties/endless"},
        "pattern": {"type": "string", "pattern": "^(a+)+$"},
        "map": {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
    },
    "required": ["count"],
}


async def test_what_fits_the_schema_passes() -> None:
    await check(SCHEMA, {"count": 3}, "arguments")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "'count' is a required property"),
        ({"count": "three"}, r"arguments\.count: 'three' is not of type 'integer'"),
        ({"count": 3, "other": 1}, "cannot be checked"),
        ({"count": 3, "endless": 1}, "cannot be checked"),
        ({"count": 3, "pattern": 1}, r"arguments\.pattern: 1 is not of type 'string'"),
    ],
)
async def test_what_does_not_fit_is_refused_by_field(arguments: JsonObject, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        await check(SCHEMA, arguments, "arguments")


async def test_a_servers_patterns_are_not_tried() -> None:
    evil = "a" * 25 + "!"

    async with loop_watch() as longest_pause_s:
        await check(SCHEMA, {"count": 3, "pattern": evil, "map": {evil: 1}}, "arguments")

    assert longest_pause_s() < 0.5

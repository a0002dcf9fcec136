"""The tools of a request, in the order that all formats have and the form that most take.

One schema that is refused would refuse the whole request, so whatever may be is loosened, never
tightened: whoever runs a tool checks its arguments against the schema as it was.
"""

import re
from collections.abc import Iterable

from sidecar import jsons
from sidecar.messages import JsonObject, Tool

_COMBINERS = ("allOf", "anyOf", "oneOf")
_REFUSED = (*_COMBINERS, "enum", "not")  # at the top of a schema
_MAXIMUM = r"'?: (?:array|string) too long.*? maximum length (\d+)"
_TOO_MANY = re.compile(rf"\btools{_MAXIMUM}")
_TOO_WORDY = re.compile(rf"\btools\[\d+\][.\w]*\.description{_MAXIMUM}")
_LIMIT = re.compile(r"(more tools|longer descriptions of tools) than (\d+)")


def in_order(tools: Iterable[Tool]) -> list[Tool]:
    """Always the same one: a vendor's cache knows a request by how it begins."""
    return sorted(tools, key=lambda tool: tool.name)


def parameters(tool: Tool) -> JsonObject:
    """The tool's schema as plainly that of an object, with the properties of all its choices."""
    schema, properties = tool.input_schema, JsonObject()
    for name in _COMBINERS:
        for choice in jsons.rows(schema.get(name)):
            properties |= jsons.fields(choice.get("properties"))
    properties |= jsons.fields(schema.get("properties"))
    kept = {name: value for name, value in schema.items() if name not in _REFUSED}
    return kept | {"type": "object", "properties": properties}


def limit_exceeded(complaint: str) -> str | None:
    """The limit that OpenAI says a request's tools exceed; a name for `within`."""
    if found := _TOO_MANY.search(complaint):
        return f"more tools than {found[1]}"
    if found := _TOO_WORDY.search(complaint):
        return f"longer descriptions of tools than {found[1]}"
    return None


def within(body: JsonObject, limit: str) -> JsonObject:
    """The body with its tools kept to a limit; as it is for what names none."""
    found = _LIMIT.fullmatch(limit)
    if found is None or "tools" not in body:
        return body
    most, tools = int(found[2]), jsons.rows(body["tools"])
    if found[1] == "more tools":
        return body | {"tools": [*tools[:most]]}
    return body | {"tools": [_described(tool, most) for tool in tools]}


def _described(tool: JsonObject, most: int) -> JsonObject:
    """The description stands in the tool, or in chat completions in its function."""
    if isinstance(function := tool.get("function"), dict):
        return tool | {"function": _described(function, most)}
    return tool | {"description": jsons.text(tool.get("description"))[:most]}

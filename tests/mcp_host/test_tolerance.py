"""What is kept of answers that are partly malformed, in every revision of MCP."""

from typing import TYPE_CHECKING

import pytest
from pydantic import JsonValue

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams
    from mcp_types import JSONRPCMessage

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
GOOD: list[JsonValue] = [
    {"type": "text", "text": "hello"},
    {"type": "image", "data": "MTIzNDU=", "mimeType": "image/png"},
    {"type": "audio", "data": "MTIzNDU=", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "https://example.com/page", "name": "page"},
    {"type": "resource", "resource": {"uri": "memo://1", "text": "a memo"}},
]


@pytest.mark.parametrize("version", REVISIONS)
async def test_good_blocks_are_left_as_they_are(version: str) -> None:
    from sidecar.mcp_host.tolerance import readable

    assert await readable(GOOD, version) == GOOD


@pytest.mark.parametrize("version", REVISIONS)
async def test_a_bad_block_becomes_a_line_of_text_between_its_neighbours(version: str) -> None:
    from sidecar.mcp_host.tolerance import readable

    kept = await readable([GOOD[0], {"type": "image", "data": 7}, GOOD[0]], version)

    note = "[a part of this result was left out: it is no image in the form that MCP has for it]"
    assert kept == [GOOD[0], {"type": "text", "text": note}, GOOD[0]]


async def test_a_block_of_an_unknown_type_is_named_without_its_tricks() -> None:
    from sidecar.mcp_host.tolerance import readable

    [kept] = await readable([{"type": "holo\u202egram"}], REVISIONS[-1])

    assert isinstance(kept, dict)
    assert "holo\u202egram" not in str(kept["text"])
    assert "is unknown" in str(kept["text"])


LISTS = [
    ("prompts/list", "prompts", {"name": "greet"}, {"title": "no name"}, "prompt"),
    (
        "resources/list",
        "resources",
        {"uri": "memo://1", "name": "memo"},
        {"uri": "memo://2", "name": 7},
        "resource",
    ),
    (
        "resources/templates/list",
        "resourceTemplates",
        {"uriTemplate": "memo://{id}", "name": "memo"},
        {"uriTemplate": "memo://{id}/x", "name": 7},
        "resource template",
    ),
]


@pytest.mark.parametrize(("method", "field", "good", "bad", "kind"), LISTS)
async def test_a_malformed_entry_costs_itself_in_every_list(
    method: str, field: str, good: JsonValue, bad: JsonValue, kind: str
) -> None:
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCRequest, JSONRPCResponse

    from sidecar.mcp_host.tolerance import Tolerant

    to_us, inward = anyio.create_memory_object_stream[SessionMessage | Exception](1)
    outward, from_us = anyio.create_memory_object_stream[SessionMessage](1)
    dropped: list[tuple[str, str, str]] = []

    class Pair:
        async def __aenter__(self) -> "TransportStreams":
            return inward, outward

        async def __aexit__(self, *what: object) -> None:
            for stream in (to_us, inward, outward, from_us):
                stream.close()

    async with Tolerant(Pair(), lambda *told: dropped.append(told)) as (read, write):
        await write.send(SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=1, method=method)))
        answer = JSONRPCResponse(jsonrpc="2.0", id=1, result={field: [good, bad, "no object"]})
        await to_us.send(SessionMessage(answer))
        received = await read.receive()

    assert isinstance(received, SessionMessage)
    assert _result(received.message)[field] == [good]
    assert [(each[0], bool(each[2])) for each in dropped] == [(kind, True)] * 2


def _result(message: "JSONRPCMessage") -> dict[str, JsonValue]:
    from mcp_types import JSONRPCResponse

    assert isinstance(message, JSONRPCResponse)
    return message.result

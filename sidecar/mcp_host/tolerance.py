"""What a server sends, before the SDK sees it: a malformed part of an answer costs itself only.

The SDK validates an answer as a whole, so that one bad tool would lose all of a list, and one bad
block the whole result of a call. Each entry is held against the SDK's own models first, by itself.
Output schemas, and the error code by which the SDK itself tells that the connection is closed, are
taken out of its sight too. Importing this imports the SDK, so it is loaded off the loop.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import mcp_types as types
from mcp.client import Transport
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import SessionMessage
from mcp_types.methods import parse_server_result
from mcp_types.version import LATEST_HANDSHAKE_VERSION
from pydantic import JsonValue, ValidationError

from sidecar.mcp_host.calls import BLOCKS
from sidecar.mcp_host.catalogue import cut, fits
from sidecar.mcp_host.streams import Incoming, Stream
from sidecar.protocol.base import TOOLS_PER_SERVER
from sidecar.visible import visible

ENTRIES = 1000  # of a page of prompts or resources
SCHEMA_BYTES = 128 * 1024  # more than any model's context has room for beside other tools
TOOL_BYTES = 2 * SCHEMA_BYTES  # as listed: both schemas and the rest
ENTRY_BYTES = 64 * 1024  # of a prompt or a resource, as listed
TYPE_BYTES = 64  # of the type that a block claims to be of

OUTPUT_SCHEMA = "sidecar/outputSchema"  # in a tool's `_meta`, where the SDK leaves it alone
# How the SDK's HTTP transport says that an answer broke off, under the code for a closed connection
BROKE_OFF = (
    "SSE stream failed: ",
    "SSE stream ended without a response",
    "SSE stream ended and reconnection attempts were exhausted",
)

Dropped = Callable[[str, str, str], None]
"""Takes the kind of an entry (`tool`, `prompt`, …), its name, and why it is left out."""


@dataclass(frozen=True, slots=True)
class _List:
    """Where an answer has its entries, how one is called, and how many and how large they are."""

    field: str
    kind: str
    named_by: str
    most: int = ENTRIES
    entry_bytes: int = ENTRY_BYTES


LISTS = {
    "tools/list": _List("tools", "tool", "name", TOOLS_PER_SERVER, TOOL_BYTES),
    "prompts/list": _List("prompts", "prompt", "name"),
    "resources/list": _List("resources", "resource", "uri"),
    "resources/templates/list": _List("resourceTemplates", "resource template", "uriTemplate"),
}
CALL = "tools/call"
SIFTED = frozenset((*LISTS, CALL))
BLOCK_TYPES = ("text", "image", "audio", "resource_link", "resource")


class Tolerant:
    """A transport whose answers are sifted; `on_dropped` is told what a list lost."""

    def __init__(self, transport: Transport, on_dropped: Dropped) -> None:
        self._transport = transport
        self._on_dropped = on_dropped

    async def __aenter__(self) -> TransportStreams:
        read, write = await self._transport.__aenter__()
        asked: dict[types.RequestId, _Asked] = {}
        return _Sifted(read, asked, self._on_dropped), _Outgoing(write, asked)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._transport.__aexit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class _Asked:
    method: str
    version: str


class _Outgoing(Stream):
    """Remembers which requests have answers to sift, and in which version of MCP."""

    def __init__(
        self, stream: WriteStream[SessionMessage], asked: dict[types.RequestId, _Asked]
    ) -> None:
        self._stream = stream
        self._asked = asked

    async def send(self, item: SessionMessage, /) -> None:
        match item.message:
            case types.JSONRPCRequest(method=method) as request if method in SIFTED:
                meta = (request.params or {}).get("_meta") or {}
                version = meta.get(types.PROTOCOL_VERSION_META_KEY, LATEST_HANDSHAKE_VERSION)
                self._asked[coerce_request_id(request.id)] = _Asked(method, version)
            case types.JSONRPCNotification(
                method="notifications/cancelled", params={"requestId": int() | str() as request_id}
            ):
                self._asked.pop(coerce_request_id(request_id), None)  # most are never answered
        await self._stream.send(item)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Sifted(Incoming):
    def __init__(
        self,
        stream: ReadStream[SessionMessage | Exception],
        asked: dict[types.RequestId, _Asked],
        on_dropped: Dropped,
    ) -> None:
        self._stream = stream
        self._asked = asked
        self._on_dropped = on_dropped

    async def receive(self) -> SessionMessage | Exception:
        item = await self._stream.receive()
        if isinstance(item, Exception):
            return item
        match item.message:
            case types.JSONRPCError() as failure:
                if failure.id is not None:
                    self._asked.pop(coerce_request_id(failure.id), None)
                return SessionMessage(_servers_own(failure), item.metadata)
            case types.JSONRPCResponse() as response:
                # matched as the SDK does it, which takes "1" for 1
                asked = self._asked.pop(coerce_request_id(response.id), None)
                if asked is not None:
                    response = await self._sifted(response, asked)
                return SessionMessage(response, item.metadata)
        return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _sifted(
        self, response: types.JSONRPCResponse, asked: _Asked
    ) -> types.JSONRPCResponse:
        answer = response.result
        listing = LISTS.get(asked.method)
        field = "content" if listing is None else listing.field
        entries = answer.get(field)
        if not isinstance(entries, list):
            return response
        if listing is None:
            kept = await readable(entries, asked.version)
        else:
            kept = await self._usable(entries, answer, listing, asked)
        return response.model_copy(update={"result": {**answer, field: kept}})

    async def _usable(
        self, entries: list[JsonValue], page: dict[str, Any], listing: _List, asked: _Asked
    ) -> list[JsonValue]:
        kept: list[JsonValue] = []
        for entry in entries[: listing.most + 1]:
            problem = _malformed(entry, page, listing, asked)
            if problem is not None:
                self._on_dropped(listing.kind, _name_of(entry, listing.named_by), problem)
            elif listing.kind == "tool" and isinstance(entry, dict):
                kept.append(_without_output_schema(entry))
            else:
                kept.append(entry)
            await asyncio.sleep(0)
        return kept


def _servers_own(failure: types.JSONRPCError) -> types.JSONRPCError:
    """A server may use the code of a closed connection for errors of its own, and does."""
    error = failure.error
    if error.code != types.CONNECTION_CLOSED or error.message.startswith(BROKE_OFF):
        return failure
    recoded = error.model_copy(update={"code": types.INTERNAL_ERROR})
    return failure.model_copy(update={"error": recoded})


# ---- entries of lists -----------------------------------------------------------------------


def _malformed(entry: JsonValue, page: dict[str, Any], listing: _List, asked: _Asked) -> str | None:
    """Checked as a page of its own, so that the SDK's own models decide."""
    if not fits(entry, listing.entry_bytes):
        return f"it has more than {listing.entry_bytes // 1024} KiB"
    try:
        parse_server_result(asked.method, asked.version, {**page, listing.field: [entry]})
    except ValidationError as error:
        field, at = first_problem(error), f"{listing.field}."
        return field.removeprefix(f"{at}0.") if field.startswith(at) else None
    return None


def _without_output_schema(tool: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The SDK would check each result against it on the loop."""
    meta = tool.get("_meta")
    known = meta if isinstance(meta, dict) else {}
    rest = {name: value for name, value in tool.items() if name != "outputSchema"}
    return {**rest, "_meta": {**known, OUTPUT_SCHEMA: tool.get("outputSchema")}}


def _name_of(entry: JsonValue, named_by: str) -> str:
    name = entry.get(named_by) if isinstance(entry, dict) else None
    return name if isinstance(name, str) else "without a name"


# ---- blocks of results ----------------------------------------------------------------------


async def readable(blocks: list[JsonValue], version: str) -> list[JsonValue]:
    """The blocks, with a line of text in the place of each that MCP does not allow."""
    kept: list[JsonValue] = []
    for block in blocks[: BLOCKS + 1]:  # one more, so that it shows that there were more
        problem = _unreadable(block, version)
        if problem is None:
            kept.append(block)
        else:
            kept.append(
                {"type": "text", "text": f"[a part of this result was left out: {problem}]"}
            )
        await asyncio.sleep(0)
    return kept


def _unreadable(block: JsonValue, version: str) -> str | None:
    """Checked as a result of its own."""
    if not isinstance(block, dict):
        return "it is no object"
    said = block.get("type")
    if not isinstance(said, str):
        return "it has no type"
    if said not in BLOCK_TYPES:
        return f"its type {visible(cut(said, TYPE_BYTES))!r} is unknown"
    try:
        parse_server_result(CALL, version, {"content": [block], "resultType": "complete"})
    except ValidationError:
        return f"it is no {said} in the form that MCP has for it"
    return None


def first_problem(error: ValidationError) -> str:
    """The field and what is wrong with it, never the value: that is the server's text."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'result'}: {first['msg']}"

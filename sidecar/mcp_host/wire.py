"""Bytes → a JSON-RPC message, however badly its text is encoded; large ones off the loop."""

import json
from functools import partial
from typing import TYPE_CHECKING

from pydantic_core import from_json

from sidecar.threads import run_in_thread

if TYPE_CHECKING:
    from mcp_types import JSONRPCMessage

THREAD_BYTES = 1000 * 1000  # parsing more than this would be felt on the loop


async def read_message(data: bytes | bytearray) -> "JSONRPCMessage | None":
    """None for what is no JSON-RPC message, such as a banner."""
    if len(data) > THREAD_BYTES:
        return await run_in_thread(partial(_parse, data), "parse MCP message")
    return _parse(data)


def _parse(data: bytes | bytearray) -> "JSONRPCMessage | None":
    from mcp_types import jsonrpc_message_adapter

    # in two steps: a union validated straight from JSON converts the whole message several times
    try:
        return jsonrpc_message_adapter.validate_python(_parse_json(data), by_name=False)
    except (ValueError, RecursionError):
        return None


def _parse_json(data: bytes | bytearray) -> object:
    try:
        return from_json(data)
    except ValueError:
        return from_json(_repaired(data))


def _repaired(data: bytes | bytearray) -> bytes:
    """Replaces invalid UTF-8, and the half surrogate pairs that a careless cut leaves in JSON."""
    value = json.loads(data.decode(errors="replace"))
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")

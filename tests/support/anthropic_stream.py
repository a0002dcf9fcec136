"""Anthropic's event streams, written short: `answer(*thought("Hm.", "sig"), *said("Hi"))`."""

import json
from typing import Any

Event = dict[str, Any]
USAGE = {"input_tokens": 10, "output_tokens": 1}


def wire(*events: Event, named: bool = True) -> bytes:
    """The bytes; without names as some proxies write them."""
    return b"".join(
        (f"event: {event['type']}\n".encode() if named else b"")
        + f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for event in events
    )


def answer(
    *events: Event, stop: str | None = "end_turn", message_id: str = "msg_1", **usage: int
) -> bytes:
    """A whole answer around these events of its blocks."""
    return wire(start(message_id), *events, ending(stop, **usage), {"type": "message_stop"})


def start(message_id: str = "msg_1", content: Any = (), **usage: int) -> Event:
    message = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": list(content),
        "usage": {**USAGE, **usage},
    }
    return {"type": "message_start", "message": message}


def ending(stop: str | None, **usage: int) -> Event:
    delta = {"stop_reason": stop, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5, **usage}}


def block(content: Event, *deltas: Event, index: Any = 0) -> list[Event]:
    """One block from its start to its stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def said(*pieces: str, index: Any = 0) -> list[Event]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block({"type": "text", "text": ""}, *deltas, index=index)


def thought(text: str, signature: str, index: Any = 0) -> list[Event]:
    return block(
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": text},
        {"type": "signature_delta", "signature": signature},
        index=index,
    )


def called(call_id: str, name: str, *pieces: str, index: Any = 0, **more: Any) -> list[Event]:
    content = {"type": "tool_use", "id": call_id, "name": name, "input": {}, **more}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block(content, *deltas, index=index)

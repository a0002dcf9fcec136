"""What servers of the chat completions format refuse of a request, and the request without it.

A parameter, the role of the system prompt, the order of the messages, what stands in them beside
the text, or the number of tools. Known from the words of a complaint alone: no list of models is
ever complete.
"""

import re

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject
from sidecar.providers.dialects.chat_extras import MESSAGE_FIELDS
from sidecar.providers.dialects.chat_turns import strictly_in_turns, without_system
from sidecar.providers.dialects.tools import limit_exceeded, within

SYSTEM, TURNS = "the role of the system prompt", "the order of the messages"
_TOKEN_LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_DROPPABLE = ("stream_options", "temperature", "top_p", "reasoning_effort", "stop")
_REFUSAL = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed"
    r"|extra (inputs|fields|parameters)|only the default",
    re.IGNORECASE,
)
_NO_SYSTEM = re.compile(  # OpenAI of o1-mini; templates of Gemma and of Mistral's first models
    r"does not support 'system'|system role (is )?not supported"
    r"|only user\b.{0,40} roles are supported",
    re.IGNORECASE,
)
_OUT_OF_TURN = re.compile(r"roles must alternate|unexpected role", re.IGNORECASE)


def refused_by(complaint: str, body: JsonObject) -> str | None:
    """A name for `without`."""
    if limit := limit_exceeded(complaint):
        return limit if within(body, limit) != body else None
    rows = jsons.rows(body["messages"])
    is_out_of_turn = _OUT_OF_TURN.search(complaint) is not None
    if is_out_of_turn and strictly_in_turns(rows) != rows:
        return TURNS
    if is_out_of_turn or _NO_SYSTEM.search(complaint):
        return SYSTEM if any(row["role"] == "system" for row in rows) else None
    if not _REFUSAL.search(complaint):
        return None
    present = {*body, *(name for row in rows for name in row)}
    for name in (*_DROPPABLE, *_TOKEN_LIMITS, *MESSAGE_FIELDS):
        words = name.replace("_", "_?")  # xAI says reasoningEffort
        if name in present and re.search(rf"(?<!\w){words}(?!\w)", complaint, re.IGNORECASE):
            return name
    return None


def without(body: JsonObject, name: str) -> JsonObject:
    rows = jsons.rows(body["messages"])
    if name == SYSTEM:
        return body | {"messages": list[JsonValue](without_system(rows))}
    if name == TURNS:
        return body | {"messages": list[JsonValue](strictly_in_turns(rows))}
    if name in MESSAGE_FIELDS:
        return body | {"messages": [_less(row, name) for row in rows]}
    kept = within(_less(body, name), name)
    if name in _TOKEN_LIMITS and name in body:
        kept[_TOKEN_LIMITS[name]] = body[name]
    return kept


def _less(fields: JsonObject, name: str) -> JsonObject:
    return {key: value for key, value in fields.items() if key != name}

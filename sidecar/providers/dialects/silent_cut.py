"""A question that a server shortened without a word, seen from how little of it was counted.

Ollama drops the oldest messages of what exceeds the context it is set to, and some gateways the
ones in the middle; neither says so. Promises no false alarm rather than every true one: no text
has as many characters to a token as is taken for granted here.
"""

import re
from collections.abc import Iterator

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Usage
from sidecar.providers.base import Notice

CHARS_PER_TOKEN = 10  # English has four or five, all other languages and code have fewer
ENOUGH_CHARS = 8192  # below this, a few long words are the rule
_RUN = re.compile(r"\s{2,}|(\S)\1{2,}")  # indentation, rules: any length of it may be one token


def notice_of_cut(server: str, body: JsonObject, usage: Usage | None) -> Iterator[Notice]:
    """What a person should know of `usage`, which is what was counted of the request `body`."""
    read = usage.input + usage.cached if usage else 0  # some count what was cached apart
    least = max(read * CHARS_PER_TOKEN, ENOUGH_CHARS)
    texts = list(_texts(body))
    is_long = sum(map(len, texts)) >= least  # looked at first, for it costs nothing
    if read and is_long and sum(len(_RUN.sub(" ", text)) for text in texts) >= least:
        yield Notice(
            "context_cut",
            f"{server} has read only a part of this conversation: the rest did not fit into the"
            " context that it is set to (Ollama: OLLAMA_CONTEXT_LENGTH).",
        )


def _texts(body: JsonObject) -> Iterator[str]:
    for row in jsons.rows(body.get("messages")):
        content: JsonValue = row.get("content")
        yield jsons.text(content)
        yield from (jsons.text(block.get("text")) for block in jsons.rows(content))

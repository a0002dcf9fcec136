"""The messages of a chat completions request, in the order that servers demand.

The chat templates of many models want the person and the assistant to take turns, and their
servers refuse everything else. Neighbours of one side are therefore always one message; what
changes the conversation more than that is done only for servers that ask for it. Pure functions
on rows as they are sent.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject
from sidecar.providers.dialects.base import SILENCE

_SAID = frozenset(("role", "content"))


def in_turns(rows: Iterable[JsonObject]) -> list[JsonObject]:
    """One message for each change of who speaks, and none of a person's that is empty."""
    turns: list[JsonObject] = []
    for row in rows:
        if turns and _are_one(turns[-1], row):
            content = _joined(turns[-1]["content"], row["content"])
            turns[-1] = turns[-1] | row | {"content": content}
        else:
            turns.append(row)
    return [row | {"content": SILENCE} if _is_blank(row) else row for row in turns]


def strictly_in_turns(rows: Sequence[JsonObject]) -> list[JsonObject]:
    """The person begins, and speaks only after the assistant: not after a tool, as Mistral says."""
    return list(_with_turns_between(rows))


def without_system(rows: Sequence[JsonObject]) -> list[JsonObject]:
    """The system prompt as the first thing that the person says."""
    told: list[JsonObject] = [
        row | {"role": "user"} if row["role"] == "system" else row for row in rows
    ]
    return in_turns(told)


def _with_turns_between(rows: Sequence[JsonObject]) -> Iterator[JsonObject]:
    start: JsonObject = {"role": "system"}
    for before, row in pairwise([start, *rows]):
        if before["role"] == "system" and row["role"] == "assistant":
            yield {"role": "user", "content": SILENCE}
        elif before["role"] == "tool" and row["role"] == "user":
            yield {"role": "assistant", "content": SILENCE}
        yield row


def _are_one(before: JsonObject, row: JsonObject) -> bool:
    """A message with calls, or with anything else of its vendor's, stays what it is."""
    if before["role"] != row["role"]:
        return False
    return row["role"] == "user" or (row["role"] == "assistant" and before.keys() <= _SAID)


def _joined(one: JsonValue, other: JsonValue) -> JsonValue:
    if isinstance(one, list) or isinstance(other, list):
        return [*_blocks(one), *_blocks(other)]
    return "\n\n".join(text for text in (one, other) if isinstance(text, str) and text) or None


def _blocks(content: JsonValue) -> list[JsonValue]:
    if isinstance(content, str) and content:
        return [{"type": "text", "text": content}]
    return jsons.items(content)


def _is_blank(row: JsonObject) -> bool:
    content = row["content"]
    return row["role"] == "user" and not (content.strip() if isinstance(content, str) else content)

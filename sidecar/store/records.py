"""Messages and conversations as rows, and back.

A message is its JSON, as it is sent; what is looked for stands in columns beside it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from sidecar.messages import Message, Part, ReasoningPart, TextPart, Usage, VendorContent
from sidecar.protocol.conversations import Conversation

TITLE_CHARS = 80
SEARCHED_CHARS = 256 * 1024  # of a message; what is longer is rarely prose

# Scripts without spaces: each character is a word of its own, or only whole sentences are found.
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff])")

CONVERSATION_COLUMNS = (
    "conversation_id, title, model, created_at, updated_at, message_count, pinned, archived, "
    "usage, system_prompt, params, tools"
)


def message_row(message: Message) -> tuple[str, str | None]:
    """`body` and `vendor` of a message."""
    vendor = json.dumps([asdict(said) for said in message.vendor_content], ensure_ascii=False)
    return message.model_dump_json(), vendor if message.vendor_content else None


def parse_message(body: str, vendor: str | None = None) -> Message:
    message = Message.model_validate_json(body)
    if vendor is None:
        return message
    said = tuple(VendorContent(**each) for each in json.loads(vendor))
    return message.model_copy(update={"vendor_content": said})


def parse_conversation(row: Sequence[Any]) -> Conversation:
    """From CONVERSATION_COLUMNS."""
    params, tools = row[10], row[11]
    return Conversation(
        conversation_id=row[0],
        title=row[1],
        model=row[2],
        created_at=row[3],
        updated_at=row[4],
        message_count=row[5],
        pinned=bool(row[6]),
        archived=bool(row[7]),
        usage=Usage.model_validate_json(row[8]),
        system_prompt=row[9],
        params=None if params is None else json.loads(params),
        tools=None if tools is None else json.loads(tools),
    )


def title_of(message: Message) -> str:
    """The first words of a first message; the names of files where it has none."""
    words = " ".join(message.text.split())
    if not words:
        words = ", ".join(part.name for part in message.attached if part.name) or "New conversation"
    if len(words) <= TITLE_CHARS:
        return words
    return words[: TITLE_CHARS - 1].rsplit(" ", 1)[0] + "…"


def searched(text: str) -> str:
    """The text as it is looked through."""
    return _UNSPACED.sub(r" \1 ", text[:SEARCHED_CHARS])


def search_terms(question: str) -> str | None:
    """An FTS5 query for all words of `question`, each a beginning; None where there are none."""
    words = [word for word in re.split(r"[^\w]+", question) if word]
    terms = []
    for word in words:
        parts = searched(word).split()
        terms.append('"{}"'.format(" ".join(parts)) + ("*" if len(parts) == 1 else ""))
    return " AND ".join(terms) or None


def snippet(text: str, question: str, width: int = 160) -> str:
    """What stands around the first of the words."""
    flat = " ".join(text.split())
    lowered = flat.casefold()
    found = [lowered.find(word.casefold()) for word in re.split(r"[^\w]+", question) if word]
    first = min((place for place in found if place >= 0), default=0)
    start = max(first - width // 3, 0)
    end = start + width
    return ("…" if start else "") + flat[start:end] + ("…" if end < len(flat) else "")


# ---- pieces of a message that is being written ------------------------------------------------

_part: TypeAdapter[Part] = TypeAdapter(Part, config={"defer_build": True})


def encode_part(part: Part) -> str:
    return part.model_dump_json()


def join_pieces(pieces: Iterable[tuple[int, str]]) -> Iterator[Part]:
    """Parts from (place, JSON), in order; what has the same place goes on."""
    last: Part | None = None
    last_place = -1
    for place, text in pieces:
        part = _part.validate_json(text)
        if place == last_place and isinstance(last, TextPart | ReasoningPart):
            assert isinstance(part, TextPart | ReasoningPart)
            last = type(last)(text=last.text + part.text)
            continue
        if last is not None:
            yield last
        last, last_place = part, place
    if last is not None:
        yield last


def ids_of(rows: Iterable[Sequence[Any]]) -> list[Any]:
    return [row[0] for row in rows]


def marks(values: Sequence[object]) -> str:
    """`?, ?, ?` for a list of values."""
    return ", ".join("?" * len(values))

"""Conversations as files: out as Markdown or JSON, and in from ours, ChatGPT's and Claude's.

For a thread: a person's whole history is hundreds of megabytes. No reference in an
imported file is followed, and nothing in it is trusted: ids are new, and what does not fit is left
out or refused with the reason.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal
from uuid import uuid4

from pydantic import JsonValue, ValidationError

from sidecar import jsons
from sidecar.errors import BadRequest
from sidecar.messages import JsonObject, Message, TextPart, ToolResultPart, now
from sidecar.protocol.base import IMPORT_BYTES

FORMAT = "sidecar/conversations"
VERSION = 1
TITLE_CHARS = 256
MESSAGES = 100_000  # of one conversation
PIECE_CHARS = 1024 * 1024
ITEM_CHARS = 64 * 1024 * 1024  # of one conversation
_LIST = re.compile(r'\s*(?:\{\s*"format":\s*"sidecar/conversations"[^\[]*"conversations":\s*)?\[')
_DECODER = json.JSONDecoder()

NOT_OURS = (
    "This is no export of conversations that sidecar can read: it reads its own JSON, and the "
    "`conversations.json` of ChatGPT's and Claude's data exports, also inside of their zip file."
)


@dataclass(frozen=True, slots=True)
class Whole:
    """A conversation with all its messages, in an order in which parents come first."""

    title: str
    created_at: str
    messages: Sequence[Message]
    head: str | None
    model: str | None = None
    system_prompt: str | None = None


# ---- out ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """How a file is written: what stands around and between its conversations."""

    opening: str
    encode: Callable[[Whole], str]
    separator: str
    closing: str


def to_json(whole: Whole) -> str:
    """With all its branches, as `read` takes it."""
    about = {
        "title": whole.title,
        "created_at": whole.created_at,
        "model": whole.model,
        "system_prompt": whole.system_prompt,
    }
    messages = [message.model_dump(mode="json") for message in whole.messages]
    written = {"conversation": about, "head": whole.head, "messages": messages}
    return json.dumps(written, ensure_ascii=False)


def to_markdown(whole: Whole) -> str:
    """The branch in use, as a person would read it."""
    sections = [f"# {whole.title}", f"*{whole.created_at}*"]
    for message in _branch(whole):
        who = "You" if message.role == "user" else message.model or "Assistant"
        sections += [f"## {who}", *_paragraphs(message)]
        if message.status != "complete":
            sections.append(f"*{message.error or message.status}*")
    return "\n\n".join(sections)


FORMS: Mapping[Literal["markdown", "json"], Form] = {
    "markdown": Form("", to_markdown, "\n\n---\n\n", "\n"),
    "json": Form(
        f'{{"format": "{FORMAT}", "version": {VERSION}, "conversations": [\n',
        to_json,
        ",\n",
        "\n]}\n",
    ),
}


def _branch(whole: Whole) -> list[Message]:
    known = {message.message_id: message for message in whole.messages}
    branch: list[Message] = []
    at = whole.head
    while at is not None and (message := known.get(at)) is not None:
        branch.append(message)
        at = message.parent_id
    return branch[::-1]


def _paragraphs(message: Message) -> Iterator[str]:
    for part in message.parts:
        match part.type:
            case "text":
                yield part.text
            case "reasoning" if part.text:
                yield "\n".join(f"> {line}" for line in part.text.splitlines())
            case "summary":
                yield f"*Summary of what came before:*\n\n{part.text}"
            case "tool_call":
                arguments = json.dumps(part.arguments, ensure_ascii=False, indent=1)
                yield f"**{part.server or '?'} / {part.name}**\n\n{_fenced(arguments, 'json')}"
            case "tool_result":
                yield _fenced(part.text, "")
            case "image" | "file":
                yield f"*[{part.name or part.type}]*"
            case "citation":
                yield f"*[{part.title or part.url}]({part.url})*" if part.url else f"*{part.title}*"
            case _:
                pass


def _fenced(text: str, language: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


# ---- in -------------------------------------------------------------------------------------


def read(file: Path) -> Generator[Whole, None, None]:
    """One conversation after the other, so that no more than one is in memory.

    Raises BadRequest with what is wrong, and OSError.
    """
    with file.open("rb") as start:
        is_archive = start.read(2) == b"PK"
    if not is_archive:
        with file.open("rb") as plain:
            yield from _conversations(plain)
        return
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if _is_conversations(name)]
            if not names:
                raise BadRequest(f"There is no conversations.json in this archive. {NOT_OURS}")
            with archive.open(names[0]) as packed:
                yield from _conversations(packed)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise BadRequest(f"The archive cannot be read: {error}.") from error


def _is_conversations(name: str) -> bool:
    return name.rpartition("/")[2] == "conversations.json"


def _conversations(file: IO[bytes]) -> Iterator[Whole]:
    stream = io.TextIOWrapper(file, "utf-8-sig", "replace")
    try:
        yield from (whole for item in _items(stream) if (whole := _conversation(item)).messages)
    finally:
        stream.detach()  # whoever opened the file closes it


def _conversation(item: str) -> Whole:
    row = jsons.fields(jsons.loads(item))
    if "conversation" in row:
        return _ours(row)
    if "mapping" in row:
        return _chatgpt(row)
    if "chat_messages" in row:
        return _claude(row)
    raise BadRequest(NOT_OURS)


def _items(stream: IO[str]) -> Iterator[str]:
    """The JSON of each conversation in the file's list.

    A piece at a time: to decode all of it at once would stop every thread for as long as it takes.
    """
    text = stream.read(PIECE_CHARS)
    start = _LIST.match(text)
    if start is None:
        raise BadRequest(NOT_OURS)
    text, size = text[start.end() :], len(text)
    while True:
        text = text.lstrip(" \t\r\n,")
        if text.startswith("]"):
            return
        try:
            _, end = _DECODER.raw_decode(text)
        except RecursionError as error:
            raise BadRequest(f"{NOT_OURS} (nested too deeply)") from error
        except json.JSONDecodeError as error:
            more = stream.read(max(PIECE_CHARS, len(text)))
            size += len(more)
            if not more or size > IMPORT_BYTES or len(text) > ITEM_CHARS:
                raise BadRequest(f"{NOT_OURS} ({error.msg}, near {text[:40]!r})") from error
            text += more
            continue
        yield text[:end]
        text = text[end:]


def _ours(row: JsonObject) -> Whole:
    about = jsons.fields(row.get("conversation"))
    try:
        messages = [Message.model_validate(each) for each in jsons.items(row.get("messages"))]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadRequest(
            f"A message of {_title(about)!r} is damaged: {place}: {first['msg']}"
        ) from error
    messages = [
        each.model_copy(update={"status": "interrupted"}) if each.status == "streaming" else each
        for each in messages
    ]
    return _renamed(
        Whole(
            title=_title(about),
            created_at=_time(about.get("created_at")),
            messages=messages,
            head=jsons.text(row.get("head")) or None,
            model=jsons.text(about.get("model")) or None,
            system_prompt=jsons.text(about.get("system_prompt")) or None,
        )
    )


def _chatgpt(item: JsonObject) -> Whole:
    """A tree of nodes, many of them without a visible message; those are skipped over."""
    nodes = {key: jsons.fields(node) for key, node in jsons.fields(item.get("mapping")).items()}
    made: dict[str, Message | None] = {}
    for key in _parents_first(nodes):
        said = jsons.fields(nodes[key].get("message"))
        role = jsons.fields(said.get("author")).get("role")
        text = "\n\n".join(_texts(jsons.fields(said.get("content")).get("parts")))
        if role in ("user", "assistant") and text.strip():
            model = jsons.text(jsons.fields(said.get("metadata")).get("model_slug"))
            made[key] = _message(
                role, text, said.get("create_time"), _above(key, nodes, made), model or None
            )
        else:
            made[key] = None
    current = jsons.text(item.get("current_node"))
    head = made.get(current) or _above(current, nodes, made)
    messages = [message for message in made.values() if message is not None]
    return Whole(
        title=_title(item),
        created_at=_time(item.get("create_time")),
        messages=messages,
        head=head.message_id if head else messages[-1].message_id if messages else None,
    )


def _parents_first(nodes: Mapping[str, JsonObject]) -> Iterator[str]:
    """Every node once; whose parent is missing, or above itself, is a root."""
    done: set[str] = set()
    for start in nodes:
        chain: list[str] = []
        at: str | None = start
        while at is not None and at in nodes and at not in done:
            if len(chain) >= MESSAGES:
                raise BadRequest(f"A conversation has at most {MESSAGES:,} messages.")
            chain.append(at)
            done.add(at)
            at = jsons.text(nodes[at].get("parent")) or None
        yield from reversed(chain)


def _above(
    key: str, nodes: Mapping[str, JsonObject], made: Mapping[str, Message | None]
) -> Message | None:
    """The nearest visible message above a node."""
    seen: set[str] = set()
    at = jsons.text(jsons.fields(nodes.get(key)).get("parent"))
    while at in nodes and at not in seen:
        if (message := made.get(at)) is not None:
            return message
        seen.add(at)
        at = jsons.text(nodes[at].get("parent"))
    return None


def _claude(item: JsonObject) -> Whole:
    """A list; later exports name each message's parent."""
    made: dict[str, Message] = {}
    last: Message | None = None
    for said in jsons.items(item.get("chat_messages")):
        row = jsons.fields(said)
        role = "user" if row.get("sender") == "human" else "assistant"
        text = "\n\n".join(_texts(row.get("content"))) or jsons.text(row.get("text"))
        if not text.strip():
            continue
        parent = made.get(jsons.text(row.get("parent_message_uuid"))) or last
        last = _message(role, text, row.get("created_at"), parent, None)
        made[jsons.text(row.get("uuid")) or last.message_id] = last
    return Whole(
        title=_title(item),
        created_at=_time(item.get("created_at")),
        messages=list(made.values()),
        head=last.message_id if last else None,
    )


def _texts(parts: JsonValue) -> Iterator[str]:
    for part in jsons.items(parts):
        text = part if isinstance(part, str) else jsons.text(jsons.fields(part).get("text"))
        if text.strip():
            yield text


def _message(
    role: str, text: str, at: JsonValue, parent: Message | None, model: str | None
) -> Message:
    side: Literal["user", "assistant"] = "user" if role == "user" else "assistant"
    return Message(
        message_id=uuid4().hex,
        parent_id=parent.message_id if parent else None,
        role=side,
        parts=(TextPart(text=text),),
        model=model,
        created_at=_time(at),
    )


def _renamed(whole: Whole) -> Whole:
    """With ids of its own: the same file may be read twice. Files that it names are not in it."""
    ids = {message.message_id: uuid4().hex for message in whole.messages}
    messages = []
    seen: set[str] = set()
    for message in whole.messages:
        parent = message.parent_id if message.parent_id in seen else None
        seen.add(message.message_id)
        update = {
            "message_id": ids[message.message_id],
            "parent_id": None if parent is None else ids[parent],
            "parts": tuple(_without_files(message)),
        }
        messages.append(message.model_copy(update=update))
    head = ids.get(whole.head or "") or (messages[-1].message_id if messages else None)
    return Whole(whole.title, whole.created_at, messages, head, whole.model, whole.system_prompt)


def _without_files(message: Message) -> Iterator[Any]:
    for part in message.parts:
        if part.type == "image" or part.type == "file":
            yield TextPart(text=f"[{part.name or part.type}]")
        elif isinstance(part, ToolResultPart):
            yield part.model_copy(update={"content": None})
        else:
            yield part


def _title(row: JsonObject) -> str:
    words = " ".join((jsons.text(row.get("title")) or jsons.text(row.get("name"))).split())
    return words[:TITLE_CHARS] or "Imported conversation"


def _time(value: JsonValue) -> str:
    """From seconds since 1970 or RFC 3339; now, where it says nothing."""
    try:
        if isinstance(value, int | float):
            at = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str):
            at = datetime.fromisoformat(value.replace("Z", "+00:00"))
            at = at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
        else:
            return now()
    except (ValueError, OverflowError, OSError):
        return now()
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

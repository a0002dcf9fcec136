"""What every dialect is: a vendor's format as pure functions and one state machine.

A dialect turns a ModelRequest into a body and a vendor's events into ours. It does no I/O, has no
clock and knows of a provider no more than its name. Also here: what all of them need to tell a
conversation, cut into the steps in which it was asked for.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol, TypeAlias

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import (
    FilePart,
    ImagePart,
    JsonObject,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from sidecar.providers.base import ModelEvent, ModelInfo, ModelRequest, Notice, StopReason
from sidecar.providers.failures import MAX_WORDS, Vendor
from sidecar.providers.sse import SseEvent

MAX_COUNT = 2**53  # what every reader of our frames can hold; more is no count of tokens
SILENCE = "…"  # for what must not be empty
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SIGN = re.compile(r"[^A-Za-z0-9_-]")
UNANSWERED = "This call was cancelled before it gave a result."


@dataclass(frozen=True, slots=True)
class Takes:
    """The files that a format takes as they are; what it does not take becomes text.

    Images of more than `image_side` pixels on a side or `image_bytes` are scaled down to that.
    `together_chars` is what all files of a request may have, as base64; None: no limit is known.
    """

    image_types: frozenset[str] = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
    image_side: int = 2048
    image_bytes: int = 5 * 1024 * 1024
    pdf_bytes: int = 0
    together_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Native:
    """A file to be sent as it is; `data` is base64."""

    mime: str
    data: str = field(repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Extracted:
    """What stands for a file that this format does not take."""

    text: str
    name: str | None = None


Fitted: TypeAlias = Native | Extracted
Files: TypeAlias = Mapping[str, Fitted]  # by attachment_id


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request's body, and what the person should know of it."""

    body: JsonObject
    notices: tuple[Notice, ...] = ()


class AnswerStream(Protocol):
    """One answer. Feed it the stream's events in order, then call `end`.

    `done` says that nothing more will come, although the body may not have ended yet; `is_whole`
    that all is there but perhaps the usage. `sequel`, after `end`, is the body with which to ask
    for the rest of an answer that the vendor has paused; the same stream then goes on with it.
    """

    @property
    def done(self) -> bool: ...

    @property
    def sequel(self) -> JsonObject | None: ...

    @property
    def is_whole(self) -> bool: ...

    def feed(self, event: SseEvent) -> Iterator[ModelEvent]:
        """Raises ProviderError for an error inside the stream, after what came before it."""

    def end(self) -> Iterator[ModelEvent]:
        """The rest and Finished; no Finished before a `sequel`. Raises ProviderBadResponse."""


class Dialect(Protocol):
    """One vendor format. `path` and `models_path` go below the provider's address."""

    takes: Takes
    models_path: str

    def path(self, model: str) -> str: ...

    def encode(self, request: ModelRequest, files: Files) -> Encoded: ...

    def stream(self, vendor: Vendor, body: JsonObject) -> AnswerStream:
        """Reads the answer to `body`."""

    def parse_models(self, body: bytes) -> list[ModelInfo]:
        """The models that can chat, by id. Raises ValueError."""

    def refused_parameter(self, complaint: str, body: JsonObject) -> str | None:
        """What in `body` a server's complaint (HTTP 400, 422 or 500) says it does not take, if
        without it the question stays the same question; a name for `without`."""

    def without(self, body: JsonObject, name: str) -> JsonObject:
        """The body without a refused parameter, or with it under the name that is left.

        It may stand anywhere in the body; one that does not have it stays as it is.
        """


SaidPart: TypeAlias = TextPart | ReasoningPart | ToolCallPart | ImagePart | FilePart


@dataclass(slots=True)
class Step:
    """What the model said in one answer, and what its calls gave.

    `verbatim` is the same in the vendor's own words, where these are its own.
    """

    said: list[SaidPart] = field(default_factory=list)
    results: dict[str, ToolResultPart] = field(default_factory=dict)
    verbatim: JsonValue = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.said if part.type == "text")

    @property
    def calls(self) -> list[ToolCallPart]:
        return [part for part in self.said if part.type == "tool_call"]

    def answers(self) -> Iterator[tuple[ToolCallPart, ToolResultPart]]:
        """Each call with its result: vendors reject a call that has none."""
        for call in self.calls:
            yield call, self.results.get(call.tool_call_id) or _unanswered(call)


def steps(message: Message, *, provider: str, model: str, format: str) -> Iterator[Step]:
    """An assistant's message, cut where the model was asked again; none that is empty.

    The arguments say who is asked now: a step's `verbatim` is for the one that said it, and what
    another model said has ids of calls that nobody refuses.
    """
    own = {
        content.first: content
        for content in message.vendor_content
        if (content.provider, content.model, content.format) == (provider, model, format)
    }
    starts = {content.first for content in message.vendor_content}
    is_own = message.model in (None, f"{provider}/{model}")
    step = Step()
    for index, part in enumerate(message.parts):
        if not is_own and (part.type == "tool_call" or part.type == "tool_result"):
            part = part.model_copy(update={"tool_call_id": _plain_id(part.tool_call_id)})
        if part.type == "tool_call" and not _NAME.fullmatch(part.offered_as):
            part = part.model_copy(update={"offered_as": _plain_name(part.offered_as)})
        if part.type == "tool_result":
            step.results[part.tool_call_id] = part
            continue
        if step.results or (index in starts and (step.said or step.verbatim)):
            yield step
            step = Step()
        if index in own:
            step.verbatim = own[index].content
        if part.type != "citation" and part.type != "provider_item" and part.type != "summary":
            step.said.append(part)
    if step.said or step.verbatim:
        yield step


def pictures(result: ToolResultPart, files: Files) -> list[Native]:
    """The images that a call gave, as far as the format takes them."""
    ids = [block.attachment_id for block in result.content or () if block.type == "image"]
    fitted = [files.get(attachment_id) for attachment_id in ids if attachment_id]
    return [file for file in fitted if isinstance(file, Native)]


def _plain_id(tool_call_id: str) -> str:
    """An id that every vendor takes: Mistral wants nine letters and digits, others no signs."""
    return sha256(tool_call_id.encode()).hexdigest()[:9]


def _plain_name(name: str) -> str:
    """A name that every vendor takes back: a model may call what was never offered."""
    plain = _SIGN.sub("_", name)[:64]
    return plain if _NAME.fullmatch(plain) else f"_{plain[:63]}"


def parse_chunk(event: SseEvent, vendor: Vendor, *, is_whole: bool) -> JsonObject:
    """An event's object, or the first one of a list; empty for what is neither.

    Once the answer `is_whole`, a broken event is the usage, cut off with the connection. An `error`
    event may be a plain text. Raises ProviderBadResponse.
    """
    try:
        chunk = jsons.loads(event.data)
    except ValueError as error:
        if event.event == "error":
            return {"error": event.data}
        if is_whole:
            return {}
        raise vendor.bad_response("sent a piece of its answer that is no JSON.") from error
    return jsons.fields(next(iter(chunk), None) if isinstance(chunk, list) else chunk)


def stopped(vendor: Vendor, reason: StopReason, why: str) -> Iterator[Notice]:
    """The vendor's own words for why it refused an answer or filtered it, where it has any."""
    if why:
        yield Notice(reason, f"{vendor.name} stopped this answer: {why[:MAX_WORDS]}")


def listing(listed: JsonValue, model: Callable[[JsonObject], ModelInfo | None]) -> list[ModelInfo]:
    """The models of a vendor's list, by id. Raises ValueError for what is no list."""
    if not isinstance(listed, list):
        raise ValueError("no list of models")
    found = map(model, jsons.rows(listed))
    return sorted((info for info in found if info is not None), key=lambda info: info.model)


def count(counts: JsonValue, name: str) -> int:
    """A number of tokens; 0 for whatever is none."""
    value = counts.get(name) if isinstance(counts, dict) else None
    return int(value) if isinstance(value, int | float) and 0 <= value <= MAX_COUNT else 0


def output_of(usage: JsonValue, output: int, reasoning: int, *, read: int) -> int:
    """Tokens of output, with those of reasoning: xAI leaves these out, but not of the total."""
    whole = count(usage, "total_tokens") - read
    return whole if whole == output + reasoning else output


def first_answer(answers: JsonValue) -> JsonObject:
    """Of several at once, which nobody asked for; empty where there is none."""
    return next((answer for answer in jsons.rows(answers) if not answer.get("index")), {})


def _unanswered(call: ToolCallPart) -> ToolResultPart:
    return ToolResultPart(
        tool_call_id=call.tool_call_id, status="cancelled", text=UNANSWERED, duration_ms=0
    )

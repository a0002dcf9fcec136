"""What a conversation is made of.

Values without behaviour: stored, sent and shown in this one form. A message's parts are in the
order in which a person saw them; ids and parents belong to the message, never to its parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SkipValidation

JsonObject = dict[str, JsonValue]
Role = Literal["user", "assistant"]
MessageStatus = Literal["streaming", "complete", "cancelled", "interrupted", "error"]
ToolStatus = Literal["ok", "error", "denied", "timeout", "cancelled", "unknown"]
FinishReason = Literal["stop", "length", "step_limit", "content_filter", "refusal", "cancelled"]


def now() -> str:
    """RFC 3339, UTC, to the millisecond: the form of every time that is stored or sent."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _absent(value: object) -> bool:
    return value is None


def optional(description: str, alias: str | None = None) -> Any:
    """A field that is left out of the JSON when it has no value; `alias` is its name there."""
    return Field(default=None, exclude_if=_absent, description=description, alias=alias)


class Value(BaseModel):
    """An immutable value; its schema is built on first use, to keep the start short."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Cost(Value):
    amount: float
    currency: str = "USD"
    estimated: bool = Field(description="True when it comes from a price table.")


class Price(Value):
    """What a million tokens cost, by a table: an estimate."""

    input: float
    output: float
    cached: float | None = optional("Of input that is read from the vendor's cache.")
    currency: str = "USD"


class Context(Value):
    """How full a model's window was after a step."""

    used: int = Field(description="Tokens of the request and of the answer.")
    limit: int | None = optional("Tokens that the window has.")


class Usage(Value):
    """Tokens, counted alike for every vendor."""

    input: int = Field(
        default=0, description="Tokens read, those from and into the cache included."
    )
    output: int = Field(default=0, description="Tokens written, those of reasoning included.")
    cached: int = Field(default=0, description="Input tokens read from the vendor's cache.")
    cache_written: int = Field(
        default=0, description="Input tokens put into the vendor's cache, where it counts them."
    )
    reasoning: int = Field(default=0, description="Output tokens spent on reasoning.")
    cost: Cost | None = optional("What it cost, where that is known.")
    context: Context | None = optional("The model's window after it, where the vendor counts.")

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input=self.input + other.input,
            output=self.output + other.output,
            cached=self.cached + other.cached,
            cache_written=self.cache_written + other.cache_written,
            reasoning=self.reasoning + other.reasoning,
            cost=_sum(self.cost, other.cost),
            context=other.context or self.context,
        )


def _sum(one: Cost | None, other: Cost | None) -> Cost | None:
    """What both cost together; an unknown cost counts as none."""
    if one is None or other is None:
        return one or other
    return Cost(amount=one.amount + other.amount, estimated=one.estimated or other.estimated)


class ErrorInfo(Value):
    """The programs' half of an error; the sentence for people stands beside it."""

    code: str = Field(description="Stable; treat one that you do not know as `internal`.")
    retryable: bool = Field(description="The same request may succeed later.")
    retry_after_ms: int | None = optional("How long to wait before trying again.")
    origin: Literal["client", "server", "provider", "mcp", "network"]
    provider: str | None = optional("Which provider it concerns.")
    server: str | None = optional("Which MCP server it concerns.")
    http_status: int | None = optional("The vendor's HTTP status.")
    detail: str | None = optional("More for a log or a tooltip, such as a server's last lines.")


class TextPart(Value):
    type: Literal["text"] = "text"
    text: str


class ReasoningPart(Value):
    type: Literal["reasoning"] = "reasoning"
    text: str = Field(description="Empty where the vendor keeps it to itself.")


class SummaryPart(Value):
    """Stands for everything before it, in what a model is shown; people still have all of it."""

    type: Literal["summary"] = "summary"
    text: str


class ImagePart(Value):
    type: Literal["image"] = "image"
    attachment_id: str
    mime: str
    name: str | None = optional("What the person called it.")


class FilePart(Value):
    type: Literal["file"] = "file"
    attachment_id: str
    mime: str
    name: str | None = optional("What the person called it.")


@dataclass(frozen=True, slots=True)
class Attachment:
    """The bytes behind an ImagePart or a FilePart."""

    mime: str
    data: bytes = field(repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An attachment where it is kept; `name` is what it was called when it came."""

    attachment_id: str
    mime: str
    bytes: int
    name: str | None = None


class CitationPart(Value):
    """Where the text before it comes from."""

    type: Literal["citation"] = "citation"
    url: str | None = optional("The page it cites.")
    title: str | None = optional("The title of what it cites.")


class ProviderItemPart(Value):
    """Something that the vendor did by itself, such as a search of the web."""

    type: Literal["provider_item"] = "provider_item"
    kind: str = Field(description="The vendor's own word for it.")


class ToolCallPart(Value):
    type: Literal["tool_call"] = "tool_call"
    tool_call_id: str
    server: str | None = Field(description="The MCP server; null for a tool that we do not have.")
    name: str = Field(description="The tool's name on its server.")
    offered_as: str = Field(description="The name under which the model knows the tool.")
    arguments: JsonObject
    invalid_arguments: str | None = optional(
        "What the model wrote, when it was no JSON object; `arguments` is then empty."
    )


class TextContent(Value):
    type: Literal["text"] = "text"
    text: str


class MediaContent(Value):
    """An image, a sound or a file of a tool's result, without its bytes."""

    type: Literal["image", "audio", "file"]
    mime: str
    bytes: int
    attachment_id: str | None = optional("Where its bytes are; absent when they are not kept.")


class LinkContent(Value):
    type: Literal["link"] = "link"
    uri: str
    name: str


ToolContent = Annotated[TextContent | MediaContent | LinkContent, Field(discriminator="type")]


class ToolResultPart(Value):
    type: Literal["tool_result"] = "tool_result"
    tool_call_id: str
    status: ToolStatus
    text: str = Field(description="The result as the model and the person read it.")
    duration_ms: int
    reason: str | None = optional("Why it was not run: unanswered, rule, off, person, …")
    arguments_used: JsonObject | None = optional("The arguments, when the person changed them.")
    content: tuple[ToolContent, ...] | None = optional("The result's blocks, where not only text.")
    structured_content: JsonValue | None = optional("The result as the tool's schema has it.")
    truncated: bool | None = optional("True when the text was cut to the limit.")


Part = Annotated[
    TextPart
    | ReasoningPart
    | ToolCallPart
    | ToolResultPart
    | ImagePart
    | FilePart
    | CitationPart
    | ProviderItemPart
    | SummaryPart,
    Field(discriminator="type"),
]


@dataclass(frozen=True, slots=True)
class VendorContent:
    """One step of an assistant's message in the vendor's own words, for that vendor alone.

    It stands for `parts[first:last]` of the message where the same `provider` and `model` are
    asked again in the same `format`; for everybody else the parts stand for themselves. Signatures
    and encrypted reasoning are good for nothing anywhere else.
    """

    provider: str
    model: str
    format: str
    first: int
    last: int
    content: JsonValue


class Message(Value):
    """One side's turn. An assistant's includes its tool calls and their results."""

    message_id: str
    parent_id: str | None
    role: Role
    parts: tuple[Part, ...]
    status: MessageStatus = "complete"
    model: str | None = optional("`provider/model` that wrote it.")
    usage: Usage | None = optional("The sum over its steps.")
    error: str | None = optional("Why it ended early, for a person.")
    error_info: ErrorInfo | None = optional("Why it ended early, for a program.")
    created_at: str = Field(description="RFC 3339, UTC.")
    truncated: bool | None = optional("True when its beginning is left out, to fit a frame.")
    vendor_content: SkipValidation[tuple[VendorContent, ...]] = Field(
        default=(), exclude=True, repr=False
    )

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if part.type == "text")

    @property
    def attached(self) -> "tuple[ImagePart | FilePart, ...]":
        """The images and files that it shows, and the images that its tools gave."""
        return tuple(_attached(self.parts))

    @property
    def attachment_ids(self) -> frozenset[str]:
        """All that it names, in its parts and in the results of its tools."""
        return frozenset(_attachment_ids(self.parts))


def _attached(parts: "tuple[Part, ...]") -> "Iterator[ImagePart | FilePart]":
    for part in parts:
        if part.type == "image" or part.type == "file":
            yield part
        elif part.type == "tool_result":
            for block in part.content or ():
                if block.type == "image" and block.attachment_id:
                    yield ImagePart(attachment_id=block.attachment_id, mime=block.mime)


def _attachment_ids(parts: "tuple[Part, ...]") -> "Iterator[str]":
    for part in parts:
        if part.type == "image" or part.type == "file":
            yield part.attachment_id
        elif part.type == "tool_result":
            for block in part.content or ():
                if block.type != "text" and block.type != "link" and block.attachment_id:
                    yield block.attachment_id


class Hints(Value):
    """What a tool says of itself. An untrusted server's word, and only that."""

    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


class Tool(Value):
    """Something a model may call.

    `name` is unique among all servers and fits every vendor (`[A-Za-z_][A-Za-z0-9_-]{0,63}`);
    `server` and `server_name` are what people know it by. `trusted` and
    `allowed` are the person's word on its server and on itself; `digest` is a SHA-256 over what its
    server says of it, `fingerprint` one over how that server is started.
    """

    name: str
    server: str
    server_name: str
    title: str | None = None
    description: str
    input_schema: JsonObject
    output_schema: JsonObject | None = None
    hints: Hints = Hints()
    trusted: bool = False
    allowed: bool = False
    fingerprint: str
    digest: str

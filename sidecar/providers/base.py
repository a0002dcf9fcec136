"""The seam to the vendors of language models: one request out, one stream of events in.

Knows no vendor, no HTTP and no socket. Events are flat values; a stream is
`Retrying* (Notice | TextDelta | ReasoningDelta | ToolArguments | …)* Verbatim? Finished`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from pydantic import JsonValue

from sidecar.errors import SidecarError
from sidecar.messages import Attachment, JsonObject, Message, Price, Tool, Usage

StopReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]


@dataclass(frozen=True, slots=True)
class Params:
    """What the person set, and only that: None is never sent to a vendor."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    stop: tuple[str, ...] | None = None
    json_schema: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One step: `history` ends with a user message or with an assistant's answered tool calls.

    `attachments` has what the history refers to, by attachment_id.
    """

    model: str
    history: Sequence[Message]
    system_prompt: str | None = None
    tools: Sequence[Tool] = ()
    params: Params = field(default_factory=Params)
    attachments: Mapping[str, Attachment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Empty for reasoning that the vendor does not show, once for each piece of it."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """A piece of a call's arguments as they are written; for display only."""

    call_id: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call, once per call, after its last ToolArguments.

    `arguments` is None when the model wrote no JSON object; `raw` is what it wrote.
    """

    call_id: str
    name: str
    arguments: JsonObject | None
    raw: str


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a file that the model made."""

    mime: str
    data: bytes = field(repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """Where the text before it comes from; one of the two at least is there."""

    url: str | None
    title: str | None


@dataclass(frozen=True, slots=True)
class ProviderItem:
    """Something that the vendor did by itself, when it is complete; `kind` is its word for it."""

    kind: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person should know about the request or its answer; `code` is for programs."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Verbatim:
    """The step in the vendor's own words: what must come back to it when it is asked again.

    Only where the other events do not say it all. `format` is the dialect's name.
    """

    format: str
    content: JsonValue


@dataclass(frozen=True, slots=True)
class UsageReport:
    """This step's tokens; the last report counts."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Retrying:
    """An attempt failed before its first event; retry `attempt` of `limit` follows in `delay_s`."""

    attempt: int
    limit: int
    delay_s: float
    error: SidecarError


@dataclass(frozen=True, slots=True)
class Finished:
    """`reason` is `tool_calls` exactly when there was a ToolCall; `raw` is the vendor's word."""

    reason: StopReason
    raw: str | None = None


ModelEvent: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | ToolArguments
    | ToolCall
    | Media
    | Citation
    | ProviderItem
    | Notice
    | Verbatim
    | UsageReport
    | Retrying
    | Finished
)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as its vendor lists it; None is unknown."""

    model: str  # the vendor's own id, without the provider
    name: str
    context: int | None = None
    max_output: int | None = None
    vision: bool | None = None
    tools: bool | None = None
    reasoning: bool | None = None
    price: Price | None = None


class Provider(Protocol):
    """A vendor's API, reduced to what a turn and a settings page need."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Yield events in order; exactly one Finished comes last.

        Closing the generator closes the HTTP response. Raises ProviderError and nothing else.
        """

    async def models(self) -> Sequence[ModelInfo]:
        """What the vendor offers to this key. Raises ProviderError."""

    async def about(self, model: str) -> ModelInfo:
        """What is known of a model without asking the vendor."""

    async def prepare(self) -> None:
        """Import what the first request needs, off the loop; ahead of it, to shorten its wait."""

    async def close(self) -> None: ...

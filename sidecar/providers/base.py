"""The seam to the vendors of language models: one request out, one stream of events in.

Knows no vendor, no HTTP and no socket. Events are flat values; a stream is
`(Retrying* … (TextDelta | ReasoningDelta | ToolArguments | ToolCall | UsageReport)* Finished)`.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from sidecar.errors import SidecarError
from sidecar.messages import JsonObject, Message, Tool, Usage

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
    """One step: `history` ends with a user message or with an assistant's answered tool calls."""

    model: str
    history: Sequence[Message]
    system_prompt: str | None = None
    tools: Sequence[Tool] = ()
    params: Params = field(default_factory=Params)


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
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
    TextDelta | ReasoningDelta | ToolArguments | ToolCall | UsageReport | Retrying | Finished
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


class Provider(Protocol):
    """A vendor's API, reduced to what a turn and a settings page need."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Yield events in order; exactly one Finished comes last.

        Closing the generator closes the HTTP response. Raises ProviderError and nothing else.
        """

    async def models(self) -> Sequence[ModelInfo]:
        """What the vendor offers to this key. Raises ProviderError."""

    async def prepare(self) -> None:
        """Import what the first request needs, off the loop; ahead of it, to shorten its wait."""

    async def close(self) -> None: ...

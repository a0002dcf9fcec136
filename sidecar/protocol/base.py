"""What every action is made of, and the numbers that both sides know."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 1
SUPPORTED_VERSIONS = (1,)
FRAME_BYTES_IN = 4 * 1024 * 1024
FRAME_BYTES_OUT = 512 * 1024
RESULT_BYTES = 64 * 1024  # of a tool's result, to the model
TOOLS_PER_SERVER = 512
DESCRIPTION_BYTES = 2 * 1024
ATTACHMENT_BYTES = 25 * 1024 * 1024
ATTACHMENTS_BYTES = 2 * 1024 * 1024 * 1024
IMPORT_BYTES = 512 * 1024 * 1024
CHAT_PARTS = 64
RUNS = 32
TOOL_CALLS = 64
ACTIONS_PER_S = 50
WAITING_TURNS = 16  # of a basic client, which has one conversation
CLOSE_SHUTDOWN = 1001
CLOSE_BINARY = 1003
CLOSE_TOO_BIG = 1009
CLOSE_SESSION_ENDED = 4001
CLOSE_SLOW_CONSUMER = 4008


class Inbound(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Nothing(Inbound):
    """An empty payload."""


class Request(Inbound):
    """`{action, payload, request_id}`; `result` is the model of its `complete`."""

    result: ClassVar[type["Result"]]
    action: str
    request_id: str = Field(
        min_length=1, max_length=128, description="Chosen by the client; unique while unanswered."
    )


class Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Empty(Result):
    """`{}`."""


class Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class NoMetadata(Metadata):
    """`{}`."""


class EventModel(BaseModel):
    """Topic is the first word of `type`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    type: str

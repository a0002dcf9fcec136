"""What a server asks of a person in the middle of its work, as it crosses to whoever asks people.

Knows neither the SDK nor the sockets: `eliciting` makes questions of the SDK's, and the host is
given a function that has them answered.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sidecar.messages import JsonObject
from sidecar.protocol.elicitations import ElicitationAction


@dataclass(frozen=True, slots=True)
class Question:
    """`schema` is what a form asks for, `url` what is to be opened: one of them."""

    server: str
    message: str
    schema: JsonObject | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    action: ElicitationAction
    content: JsonObject | None = None


Ask = Callable[[Question], Awaitable[Reply]]
"""Cancelling it takes the question back."""

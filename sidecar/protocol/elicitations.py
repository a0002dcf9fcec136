"""What MCP servers ask of a person in the middle of their work."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from sidecar.messages import JsonObject, optional
from sidecar.protocol.base import EventModel, Inbound, Request, Result

ElicitationAction = Literal["accept", "decline", "cancel"]


class Elicitation(Result):
    """A question of a server that waits for a person."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)
    elicitation_id: str
    server: str
    mode: Literal["form", "url"]
    message: str = Field(description="The server's own words.")
    requested_schema: JsonObject | None = optional(
        "Of a form: an object of plain fields, as JSON Schema.", alias="schema"
    )
    url: str | None = optional("To open, once the person agrees; nothing is sent back from there.")
    expires_at: str


class ElicitationsPending(EventModel):
    type: Literal["elicitations.pending"] = "elicitations.pending"
    data: Elicitation = Field(description="A server asks a person something.")


class ElicitationsResolvePayload(Inbound):
    elicitation_id: str = Field(max_length=256)
    action: ElicitationAction = Field(description="cancel: dismissed without a choice.")
    content: dict[str, JsonValue] | None = Field(
        default=None, description="What a form was filled with; fields left out get their defaults."
    )


class ElicitationsResolveResult(Result):
    applied: bool = Field(description="False: somebody else was first.")
    action: ElicitationAction
    by: str = Field(description="connection_id, or cancel, shutdown, timeout.")


class ElicitationsResolve(Request):
    result = ElicitationsResolveResult
    action: Literal["elicitations.resolve"]
    payload: ElicitationsResolvePayload


class ElicitationResolution(Result):
    elicitation_id: str
    action: ElicitationAction
    by: str


class ElicitationsResolved(EventModel):
    type: Literal["elicitations.resolved"] = "elicitations.resolved"
    data: ElicitationResolution = Field(description="Somebody or something answered it.")

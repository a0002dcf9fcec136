"""Questions of MCP servers that wait for a person. Knows no server: it is asked, and answers."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

from sidecar.chat.questions import Questions
from sidecar.errors import BadRequest
from sidecar.mcp_host.asking import Question, Reply
from sidecar.messages import JsonObject
from sidecar.protocol.elicitations import (
    Elicitation,
    ElicitationResolution,
    ElicitationsPending,
    ElicitationsResolved,
    ElicitationsResolvePayload,
    ElicitationsResolveResult,
)
from sidecar.protocol.events import Event
from sidecar.visible import visible_json

OPEN_BYTES = 128 * 1024  # of all open questions, so that `hello` fits a frame
SHOWN_CHARS = 2048  # of one text in a form

Check = Callable[[JsonObject, JsonObject], Awaitable[None]]
"""A schema and what was filled in. Raises BadRequest that names the field."""


class Elicitations:
    def __init__(self, *, timeout_s: float, check: Check, publish: Callable[[Event], None]) -> None:
        self._check = check
        self._publish = publish
        self.questions: Questions[Reply, ElicitationResolution] = Questions(
            "elicitation", timeout_s, self._tell
        )
        self._open: dict[str, tuple[Elicitation, Question]] = {}

    def pending(self) -> tuple[Elicitation, ...]:
        return tuple(shown for shown, _ in self._open.values())

    async def ask(self, question: Question) -> Reply:
        """Wait for a person; dismissed at once where nobody can be asked, or too much already."""
        dismissed = Reply("cancel")
        shown = self._shown(question)
        if not self.questions.can_ask or not self._has_room_for(shown):
            return dismissed
        self._open[shown.elicitation_id] = shown, question
        pending = ElicitationsPending(data=shown)
        return await self.questions.ask(
            shown.elicitation_id, lambda: self._publish(pending), dismissed
        )

    async def resolve(
        self, answer: ElicitationsResolvePayload, connection_id: str
    ) -> ElicitationsResolveResult:
        """Take a person's answer. Raises NotFound, or BadRequest for what does not fit the form."""
        elicitation_id = answer.elicitation_id
        content = None
        asked = self._open.get(elicitation_id)
        if asked is not None:
            content = await self._content(asked[1], answer)
        if elicitation_id not in self._open:  # somebody may have been faster
            told = self.questions.told(elicitation_id)
            return ElicitationsResolveResult(applied=False, action=told.action, by=told.by)
        self.questions.settle(elicitation_id, Reply(answer.action, content), connection_id)
        return ElicitationsResolveResult(applied=True, action=answer.action, by=connection_id)

    async def _content(
        self, question: Question, answer: ElicitationsResolvePayload
    ) -> JsonObject | None:
        if answer.action != "accept" or question.schema is None:
            if answer.content is not None:
                raise BadRequest("content goes with accepting a form only.")
            return None
        content = {**_defaults(question.schema), **(answer.content or {})}
        await self._check(question.schema, content)
        return content

    def _shown(self, question: Question) -> Elicitation:
        schema = visible_json(question.schema, SHOWN_CHARS)
        return Elicitation(
            elicitation_id=uuid4().hex,
            server=question.server,
            mode="form" if question.url is None else "url",
            message=question.message,
            requested_schema=schema if isinstance(schema, dict) else None,
            url=question.url,
            expires_at=self.questions.expires_at(),
        )

    def _has_room_for(self, shown: Elicitation) -> bool:
        return sum(_size(each) for each in (*self.pending(), shown)) <= OPEN_BYTES

    def _tell(self, elicitation_id: str, reply: Reply, by: str) -> ElicitationResolution:
        del self._open[elicitation_id]
        resolution = ElicitationResolution(
            elicitation_id=elicitation_id, action=reply.action, by=by
        )
        self._publish(ElicitationsResolved(data=resolution))
        return resolution


def _size(elicitation: Elicitation) -> int:
    return len(elicitation.model_dump_json(by_alias=True).encode())


def _defaults(schema: JsonObject) -> JsonObject:
    fields = schema.get("properties")
    assert isinstance(fields, dict)
    return {
        name: field["default"]
        for name, field in fields.items()
        if isinstance(field, dict) and "default" in field
    }

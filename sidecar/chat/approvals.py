"""Tool calls that wait for a person.

What needs no question is decided by `mcp_host.consent`; this file asks, and remembers what the
person said. Knows no socket: it publishes events and is told the answers.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never
from uuid import uuid4

from sidecar.chat.base import ToolSource
from sidecar.chat.questions import Questions
from sidecar.errors import BadRequest
from sidecar.mcp_host.consent import (
    Allowed,
    Asked,
    Decision,
    Denied,
    Mode,
    StoredRule,
    decide,
    pins_of,
)
from sidecar.messages import JsonObject, Tool, now
from sidecar.protocol.approvals import (
    Approval,
    ApprovalResolution,
    ApprovalsPending,
    ApprovalsResolved,
    ApprovalsResolvePayload,
    ApprovalsResolveResult,
    Rule,
    ToolChange,
)
from sidecar.protocol.events import Event
from sidecar.store.rules import Rules
from sidecar.visible import visible, visible_json

SHOWN_CHARS = 8 * 1024  # of one string of the arguments
SHOWN_TOTAL_CHARS = 64 * 1024  # of all of them, so that the event fits a frame
PENDING_CHARS = 128 * 1024  # of the arguments of all open questions, for `hello`

DENIALS = {
    "rule": "A remembered rule denies this tool. Do not call it again.",
    "off": "Tools are switched off for this message.",
    "person": "The person denied this call. Do not repeat it; ask them what they want instead.",
    "unanswered": "Nobody answered whether this call may run, so it was not run.",
}


@dataclass(frozen=True, slots=True)
class Asking:
    """On whose behalf a call is made; `run_id` None is a person's own call."""

    run_id: str | None
    conversation_id: str | None
    mode: Mode = "rules"
    deny: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Allow:
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Deny:
    """`text` is for the model."""

    reason: str
    text: str


Verdict: TypeAlias = Allow | Deny


@dataclass(slots=True)
class _Question:
    approval: Approval
    tool: Tool
    arguments: JsonObject
    asking: Asking


class Approvals:
    def __init__(
        self,
        *,
        rules: Rules,
        tools: ToolSource,
        timeout_s: float,
        publish: Callable[[Event], None],
    ) -> None:
        self._rules = rules
        self._tools = tools
        self._publish = publish
        self.questions: Questions[Verdict, ApprovalResolution] = Questions(
            "approval", timeout_s, self._tell
        )
        self._open: dict[str, _Question] = {}
        self._conversation_rules: list[StoredRule] = []

    def pending(self) -> tuple[Approval, ...]:
        """All open questions; arguments that do not fit one frame together are left out."""
        left = PENDING_CHARS
        listed: list[Approval] = []
        for question in self._open.values():
            approval = question.approval
            left -= len(json.dumps(approval.arguments))
            if left < 0:
                changes = {"arguments": {}, "arguments_truncated": True}
                approval = approval.model_copy(update=changes)
            listed.append(approval)
        return tuple(listed)

    def decide(self, tool: Tool, asking: Asking) -> Decision:
        """What the rules say, without asking anybody."""
        rules = (*self._rules.all(), *self._conversation_rules)
        # a denial may be among what could not be read, so that nothing runs unasked
        mode = "ask" if self._rules.are_incomplete and asking.mode == "rules" else asking.mode
        return decide(tool, rules, mode, asking.deny, asking.conversation_id)

    async def permit(
        self, tool: Tool, arguments: JsonObject, tool_call_id: str, asking: Asking
    ) -> Verdict:
        """Decide by the rules, else ask. Cancelling the caller takes the question back."""
        decision = self.decide(tool, asking)
        match decision:
            case Allowed():
                return Allow(arguments)
            case Denied(reason):
                return Deny(reason, DENIALS[reason])
            case Asked(changed):
                return await self._ask(tool, arguments, tool_call_id, asking, changed)
            case _:
                assert_never(decision)

    async def resolve(
        self, payload: ApprovalsResolvePayload, connection_id: str
    ) -> ApprovalsResolveResult:
        """Take a person's answer. Raises NotFound, or BadRequest for unusable arguments."""
        question = self._open.get(payload.approval_id)
        if question is not None:
            await self._check(question, payload)
            question = self._open.get(payload.approval_id)  # somebody may have been faster
        if question is None:
            told = self.questions.told(payload.approval_id)
            return ApprovalsResolveResult(applied=False, decision=told.decision, by=told.by)
        verdict: Verdict = Deny("person", DENIALS["person"])
        if payload.decision == "allow":
            verdict = Allow(question.arguments if payload.arguments is None else payload.arguments)
        result = ApprovalsResolveResult(applied=True, decision=payload.decision, by=connection_id)
        self.questions.settle(payload.approval_id, verdict, connection_id)
        if payload.duration == "conversation":
            self._remember_here(self._rule(question, payload))
            self._answer_alike(connection_id)
        elif payload.duration == "always":
            try:
                await self._rules.add(self._rule(question, payload))
            finally:
                self._answer_alike(connection_id)  # it holds, whether it could be written or not
        return result

    async def _check(self, question: _Question, payload: ApprovalsResolvePayload) -> None:
        if payload.duration == "conversation" and question.asking.conversation_id is None:
            raise BadRequest("This call belongs to no conversation: answer once or always.")
        if payload.arguments is not None:
            if payload.decision == "deny" or payload.duration != "once":
                raise BadRequest("arguments go with decision allow and duration once only.")
            await self._tools.check(question.tool, payload.arguments)

    def rules(self) -> tuple[Rule, ...]:
        """What is remembered, for always and for conversations."""
        stored = (*self._rules.all(), *self._conversation_rules)
        return tuple(
            Rule(
                rule_id=rule.rule_id,
                decision=rule.decision,
                scope=rule.scope,
                server=rule.server,
                name=rule.name,
                conversation_id=rule.conversation_id,
                created_at=rule.created_at,
            )
            for rule in stored
        )

    async def forget(self, rule_id: str | None) -> int:
        """One rule, or all of them for None. Returns how many there were."""
        kept = [
            rule
            for rule in self._conversation_rules
            if rule_id is not None and rule.rule_id != rule_id
        ]
        dropped = len(self._conversation_rules) - len(kept)
        self._conversation_rules = kept
        return dropped + await self._rules.remove(rule_id)

    async def _ask(
        self,
        tool: Tool,
        arguments: JsonObject,
        tool_call_id: str,
        asking: Asking,
        changed: ToolChange | None,
    ) -> Verdict:
        unanswered = Deny("unanswered", DENIALS["unanswered"])
        if not self.questions.can_ask:
            return unanswered
        expires_at = self.questions.expires_at()
        approval = _approval(tool, arguments, tool_call_id, asking, changed, expires_at)
        self._open[approval.approval_id] = _Question(approval, tool, arguments, asking)
        pending = ApprovalsPending(data=approval)
        return await self.questions.ask(
            approval.approval_id, lambda: self._publish(pending), unanswered
        )

    def _tell(self, approval_id: str, verdict: Verdict, by: str) -> ApprovalResolution:
        del self._open[approval_id]
        decision: Literal["allow", "deny"] = "allow" if isinstance(verdict, Allow) else "deny"
        resolution = ApprovalResolution(approval_id=approval_id, decision=decision, by=by)
        self._publish(ApprovalsResolved(data=resolution))
        return resolution

    def _rule(self, question: _Question, payload: ApprovalsResolvePayload) -> StoredRule:
        tool, is_tool = question.tool, payload.scope == "tool"
        known = [each for each in self._tools.tools() if each.server == tool.server]
        is_here = payload.duration == "conversation"
        return StoredRule(
            rule_id=uuid4().hex,
            decision=payload.decision,
            scope=payload.scope,
            server=tool.server,
            name=tool.server_name if is_tool else None,
            fingerprint=tool.fingerprint,
            pins=pins_of([tool] if is_tool else [*known, tool]),
            conversation_id=question.asking.conversation_id if is_here else None,
            created_at=now(),
        )

    def _remember_here(self, rule: StoredRule) -> None:
        """For its conversation; it takes the place of what was said about the same before."""
        about = (rule.conversation_id, rule.server, rule.scope, rule.name)
        self._conversation_rules = [
            old
            for old in self._conversation_rules
            if (old.conversation_id, old.server, old.scope, old.name) != about
        ]
        self._conversation_rules.append(rule)

    def _answer_alike(self, connection_id: str) -> None:
        """What was just remembered may answer other open questions too."""
        for approval_id, question in tuple(self._open.items()):
            match self.decide(question.tool, question.asking):
                case Allowed():
                    self.questions.settle(approval_id, Allow(question.arguments), connection_id)
                case Denied(reason):
                    denial = Deny(reason, DENIALS[reason])
                    self.questions.settle(approval_id, denial, connection_id)


def _approval(
    tool: Tool,
    arguments: JsonObject,
    tool_call_id: str,
    asking: Asking,
    changed: ToolChange | None,
    expires_at: str,
) -> Approval:
    shown = visible_json(arguments, SHOWN_CHARS)
    assert isinstance(shown, dict)
    is_cut = shown != visible_json(arguments, sys.maxsize)
    too_long = len(json.dumps(shown)) > SHOWN_TOTAL_CHARS
    if changed is not None:
        changed = ToolChange(before=visible(changed.before), after=visible(changed.after))
    return Approval(
        approval_id=uuid4().hex,
        run_id=asking.run_id,
        conversation_id=asking.conversation_id,
        tool_call_id=tool_call_id,
        server=tool.server,
        name=visible(tool.server_name).replace("\n", "\\n"),
        description=visible(tool.description),
        arguments={} if too_long else shown,
        arguments_truncated=True if is_cut or too_long else None,
        hints=tool.hints,
        changed=changed,
        expires_at=expires_at,
    )

"""What was remembered of a person's answers."""

from sidecar.chat.approvals import Approvals
from sidecar.errors import BadRequest, NotFound
from sidecar.protocol.approvals import RulesDeletePayload, RulesDeleteResult


async def forget(approvals: Approvals, payload: RulesDeletePayload) -> RulesDeleteResult:
    if (payload.rule_id is None) == (not payload.all):
        raise BadRequest("Name one rule by rule_id, or all of them with all: true.")
    deleted = await approvals.forget(payload.rule_id)
    if not deleted and payload.rule_id:
        raise NotFound("There is no such rule; approvals.rules.list has them.")
    return RulesDeleteResult(deleted=deleted)

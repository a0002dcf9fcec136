"""All that a client may send. Unknown fields are errors.

A request gets exactly one terminal frame, `complete` or `error`.
"""

import json
from typing import TypeAlias, get_args

from pydantic import ValidationError

from sidecar import jsons
from sidecar.errors import BadRequest, InvalidJson, SidecarError, UnknownAction
from sidecar.protocol.approvals import ApprovalsResolve, ApprovalsRulesDelete, ApprovalsRulesList
from sidecar.protocol.chat import AttachmentsCreate, Cancel, Chat, Regenerate, Resume
from sidecar.protocol.conversations import (
    ConversationsCompact,
    ConversationsDelete,
    ConversationsExport,
    ConversationsFork,
    ConversationsGet,
    ConversationsImport,
    ConversationsList,
    ConversationsSearch,
    ConversationsUpdate,
)
from sidecar.protocol.elicitations import ElicitationsResolve
from sidecar.protocol.mcp import (
    McpServersAdd,
    McpServersApprove,
    McpServersAuthorize,
    McpServersDelete,
    McpServersDisable,
    McpServersEnable,
    McpServersImport,
    McpServersList,
    McpServersLogs,
    McpServersRestart,
    McpServersUpdate,
    McpToolsCall,
    McpToolsList,
)
from sidecar.protocol.program import ConfigGet, Diagnostics, Hello, Ping, Shutdown
from sidecar.protocol.providers import (
    KeysDelete,
    KeysSet,
    KeysStatus,
    ModelsList,
    ProvidersList,
    ProvidersTest,
)

AnyRequest: TypeAlias = (
    Hello
    | Ping
    | Chat
    | Cancel
    | Regenerate
    | Resume
    | ConversationsList
    | ConversationsGet
    | ConversationsSearch
    | ConversationsUpdate
    | ConversationsDelete
    | ConversationsFork
    | ConversationsCompact
    | ConversationsExport
    | ConversationsImport
    | AttachmentsCreate
    | ModelsList
    | ProvidersList
    | ProvidersTest
    | KeysStatus
    | KeysSet
    | KeysDelete
    | ApprovalsResolve
    | ApprovalsRulesList
    | ApprovalsRulesDelete
    | ElicitationsResolve
    | McpServersList
    | McpServersAdd
    | McpServersUpdate
    | McpServersImport
    | McpServersApprove
    | McpServersDelete
    | McpServersEnable
    | McpServersDisable
    | McpServersRestart
    | McpServersLogs
    | McpServersAuthorize
    | McpToolsList
    | McpToolsCall
    | ConfigGet
    | Diagnostics
    | Shutdown
)
REQUESTS: dict[str, type[AnyRequest]] = {
    get_args(model.model_fields["action"].annotation)[0]: model for model in get_args(AnyRequest)
}
CAPABILITIES = tuple(REQUESTS)
BASIC_REQUESTS = (Hello, Chat, Cancel, Ping)  # what needs no hello before it


class RequestProblem(Exception):
    """A frame that is no request; `request_id` is None when it could not be read."""

    def __init__(self, request_id: str | None, error: SidecarError) -> None:
        super().__init__(str(error))
        self.request_id = request_id
        self.error = error


def parse_request(text: str) -> AnyRequest:
    """Raises RequestProblem with what is wrong and where."""
    try:
        frame = jsons.loads(text)
    except ValueError as error:
        raise RequestProblem(None, InvalidJson(f"The frame is not valid JSON: {error}")) from error
    if not isinstance(frame, dict):
        raise RequestProblem(
            None, BadRequest("A frame is a JSON object: {action, payload, request_id}.")
        )
    request_id = frame.get("request_id")
    readable = request_id if isinstance(request_id, str) and 0 < len(request_id) <= 128 else None
    action = frame.get("action")
    model = REQUESTS.get(action) if isinstance(action, str) else None
    if model is None:
        known = ", ".join(CAPABILITIES)
        raise RequestProblem(
            readable, UnknownAction(f"There is no action {_brief(action)}; there are: {known}.")
        )
    try:
        return model.model_validate(frame)
    except ValidationError as error:
        raise RequestProblem(readable, BadRequest(_sentence(error))) from error


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _sentence(error: ValidationError) -> str:
    """The first problem as one line; never the input, which may hold a key."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{place} is not a field of this action."
    return f"{place}: {first['msg']}."

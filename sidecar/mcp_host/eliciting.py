"""Questions of servers, from the SDK to a person and back. Importing this imports the SDK.

What could deceive is declined here and never shown: an address that is no plain web address, or a
form that is more than a form.
"""

import json
from urllib.parse import urlsplit

import mcp_types as types
import structlog

from sidecar.config import is_loopback
from sidecar.mcp_host.asking import Ask, Question, Reply
from sidecar.messages import JsonObject
from sidecar.visible import visible

MESSAGE_CHARS = 4096
URL_BYTES = 2048
SCHEMA_BYTES = 64 * 1024
FIELDS = 100
PLAIN = frozenset(("string", "number", "integer", "boolean"))

log = structlog.get_logger()


async def elicit(server: str, params: types.ElicitRequestParams, ask: Ask) -> types.ElicitResult:
    message = visible(params.message[:MESSAGE_CHARS])
    if isinstance(params, types.ElicitRequestURLParams):
        problem = url_problem(params.url)
        question = Question(server, message, url=params.url)
    else:
        problem = form_problem(params.requested_schema)
        question = Question(server, message, schema=params.requested_schema)
    if problem is not None:
        log.warning("mcp_question_declined", server=server, reason=problem)
        return types.ElicitResult(action="decline")
    return _result(await ask(question))


def _result(reply: Reply) -> types.ElicitResult:
    if reply.content is None:
        return types.ElicitResult(action=reply.action)
    return types.ElicitResult.model_validate({"action": reply.action, "content": reply.content})


def url_problem(url: str) -> str | None:
    """Why nobody should open it."""
    parts = urlsplit(url)
    is_web = parts.scheme == "https" and parts.hostname
    is_literal = parts.hostname != "localhost" and is_loopback(parts.hostname)
    is_here = parts.scheme == "http" and is_literal
    if not (is_web or is_here):
        return "its address is neither https nor one of this machine"
    if "@" in parts.netloc:
        return "its address has a name or a password in it"
    if len(url.encode()) > URL_BYTES:
        return f"its address has more than {URL_BYTES} bytes"
    return "its address has hidden characters" if visible(url) != url else None


def form_problem(schema: JsonObject) -> str | None:
    """Why it is no form of a few plain fields."""
    fields = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(fields, dict):
        return "its form is no object with properties"
    if len(fields) > FIELDS or len(json.dumps(schema)) > SCHEMA_BYTES:
        return f"its form has more than {FIELDS} fields, or {SCHEMA_BYTES // 1024} KiB"
    for name, field in fields.items():
        if not isinstance(field, dict) or not _is_plain(field):
            return f"its field {visible(name[:80])} is not plain"
    return None


def _is_plain(field: JsonObject) -> bool:
    """A value, a choice, or several choices, as MCP lets a form have them."""
    if field.get("type") in PLAIN or "enum" in field or "oneOf" in field:
        return True
    items = field.get("items")
    is_choice = isinstance(items, dict) and bool({"enum", "anyOf", "oneOf"} & items.keys())
    return field.get("type") == "array" and is_choice

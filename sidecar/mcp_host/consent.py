"""May this tool be called: allowed, denied, or to be asked. A pure function of rules and call.

The first match wins: a remembered deny, the turn's own `off` or `deny`, the turn's `ask`,
a remembered or configured allow, a `read_only` hint of a trusted server; otherwise a person is
asked.
Knows no clock, no store and no person; whoever asks and remembers is elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.messages import Tool
from sidecar.protocol.approvals import ToolChange

Mode = Literal["rules", "ask", "off"]
DenyReason = Literal["rule", "off"]


@dataclass(frozen=True, slots=True)
class Pin:
    """What a tool was when it was allowed."""

    digest: str
    description: str


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A remembered decision.

    An allow holds while the server's `fingerprint` and the tool's pin are what they were: at tool
    scope `pins` has that one tool, at server scope every tool known when it was given. A deny
    needs neither. `name` is the tool's name on its server, None at server scope;
    `conversation_id` None is always.
    """

    rule_id: str
    decision: Literal["allow", "deny"]
    scope: Literal["tool", "server"]
    server: str
    name: str | None
    fingerprint: str
    pins: Mapping[str, Pin]
    conversation_id: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Allowed:
    pass


@dataclass(frozen=True, slots=True)
class Denied:
    """`rule`: remembered; `off`: this turn's own choice."""

    reason: DenyReason


@dataclass(frozen=True, slots=True)
class Asked:
    """`changed` is set when an allow sleeps because the tool or its server is not what it was."""

    changed: ToolChange | None = None


Decision: TypeAlias = Allowed | Denied | Asked


def decide(
    tool: Tool,
    rules: Iterable[StoredRule],
    mode: Mode,
    deny: Sequence[str],
    conversation_id: str | None,
) -> Decision:
    """`deny` is the turn's own list of `server` and `server/tool`."""
    known = [rule for rule in rules if _concerns(rule, tool, conversation_id)]
    allows = [rule for rule in known if rule.decision == "allow"]
    if len(allows) < len(known):
        return Denied("rule")
    if mode == "off" or is_left_out(tool, deny):
        return Denied("off")
    holds = any(_still_holds(rule, tool) for rule in allows)
    if mode == "rules" and (holds or tool.allowed or (tool.trusted and tool.hints.read_only)):
        return Allowed()
    return Asked(None if holds else _change(allows, tool))


def is_left_out(tool: Tool, deny: Sequence[str]) -> bool:
    """Whether a turn's own list names the tool or its server."""
    return tool.server in deny or f"{tool.server}/{tool.server_name}" in deny


def pins_of(tools: Iterable[Tool]) -> dict[str, Pin]:
    """The pins of a rule given now for these tools of one server."""
    return {tool.server_name: Pin(tool.digest, tool.description) for tool in tools}


def _concerns(rule: StoredRule, tool: Tool, conversation_id: str | None) -> bool:
    return (
        rule.server == tool.server
        and (rule.scope == "server" or rule.name == tool.server_name)
        and rule.conversation_id in (None, conversation_id)
    )


def _still_holds(rule: StoredRule, tool: Tool) -> bool:
    pin = rule.pins.get(tool.server_name)
    return rule.fingerprint == tool.fingerprint and pin is not None and pin.digest == tool.digest


def _change(allows: Sequence[StoredRule], tool: Tool) -> ToolChange | None:
    """Against the newest sleeping allow that knew this tool."""
    pinned = [rule for rule in allows if tool.server_name in rule.pins]
    if not pinned:
        return None
    newest = max(pinned, key=lambda rule: rule.created_at)
    return ToolChange(before=newest.pins[tool.server_name].description, after=tool.description)

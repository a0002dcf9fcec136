"""Allowed, denied or asked: every rule of the protocol's section on consent, in its order."""

import pytest

from sidecar.mcp_host.consent import (
    Allowed,
    Asked,
    Decision,
    Denied,
    Mode,
    Pin,
    StoredRule,
    decide,
    pins_of,
)
from sidecar.messages import Hints, Tool
from sidecar.protocol.approvals import ToolChange

CONVERSATION = "conversation-1"


def a_tool(
    name: str = "read",
    *,
    trusted: bool = False,
    allowed: bool = False,
    read_only: bool | None = None,
    digest: str = "d1",
) -> Tool:
    return Tool(
        name=f"files__{name}",
        server="files",
        server_name=name,
        description=f"{name}, {digest}",
        input_schema={"type": "object"},
        hints=Hints(read_only=read_only),
        trusted=trusted,
        allowed=allowed,
        fingerprint="f1",
        digest=digest,
    )


TOOL = a_tool()
TRUSTED = a_tool(trusted=True, read_only=True)


def allow(*tools: Tool, scope: str = "tool", **changes: object) -> StoredRule:
    return _rule("allow", scope, *(tools or (TOOL,)), **changes)


def deny(*tools: Tool, scope: str = "tool", **changes: object) -> StoredRule:
    return _rule("deny", scope, *(tools or (TOOL,)), **changes)


def _rule(decision: str, scope: str, *tools: Tool, **changes: object) -> StoredRule:
    values: dict[str, object] = {
        "rule_id": "rule-1",
        "decision": decision,
        "scope": scope,
        "server": "files",
        "name": tools[0].server_name if scope == "tool" else None,
        "fingerprint": "f1",
        "pins": pins_of(tools),
        "conversation_id": None,
        "created_at": "2026-01-01T00:00:00Z",
        **changes,
    }
    return StoredRule(**values)  # type: ignore[arg-type]


CHANGED = ToolChange(before="read, d0", after="read, d1")
OLD = a_tool(digest="d0")

TABLE: list[tuple[str, Tool, list[StoredRule], Mode, list[str], Decision]] = [
    ("nothing is known: ask", TOOL, [], "rules", [], Asked()),
    # 1: a remembered deny wins over everything
    ("a deny denies", TOOL, [deny()], "rules", [], Denied("rule")),
    ("a deny wins over an allow", TOOL, [allow(), deny()], "rules", [], Denied("rule")),
    ("a deny wins over off", TOOL, [deny()], "off", [], Denied("rule")),
    ("a deny wins over ask", TOOL, [deny()], "ask", [], Denied("rule")),
    ("a deny wins over a trusted hint", TRUSTED, [deny()], "rules", [], Denied("rule")),
    ("a deny of the server", TOOL, [deny(scope="server")], "rules", [], Denied("rule")),
    ("a deny stays when the tool changed", TOOL, [deny(OLD)], "rules", [], Denied("rule")),
    (
        "a deny stays when the server changed",
        TOOL,
        [deny(fingerprint="f0")],
        "rules",
        [],
        Denied("rule"),
    ),
    ("a deny of another tool", TOOL, [deny(a_tool("write"))], "rules", [], Asked()),
    ("a deny of another server", TOOL, [deny(server="web")], "rules", [], Asked()),
    # 2: off, for all or for some
    ("off denies", TOOL, [], "off", [], Denied("off")),
    ("off wins over an allow", TOOL, [allow()], "off", [], Denied("off")),
    ("off wins over a trusted hint", TRUSTED, [], "off", [], Denied("off")),
    ("the turn denies the server", TOOL, [allow()], "rules", ["files"], Denied("off")),
    ("the turn denies the tool", TOOL, [allow()], "rules", ["files/read"], Denied("off")),
    ("the turn denies another tool", TOOL, [allow()], "rules", ["files/write"], Allowed()),
    # 3: ask asks
    ("ask wins over an allow", TOOL, [allow()], "ask", [], Asked()),
    ("ask wins over a trusted hint", TRUSTED, [], "ask", [], Asked()),
    ("ask shows a change too", TOOL, [allow(OLD)], "ask", [], Asked(CHANGED)),
    # 4: a remembered allow, for what the tool was
    ("an allow allows", TOOL, [allow()], "rules", [], Allowed()),
    ("an allow of the server", TOOL, [allow(scope="server")], "rules", [], Allowed()),
    ("an allow sleeps when the tool changed", TOOL, [allow(OLD)], "rules", [], Asked(CHANGED)),
    (
        "an allow of the server sleeps for a tool that changed",
        TOOL,
        [allow(OLD, scope="server")],
        "rules",
        [],
        Asked(CHANGED),
    ),
    (
        "an allow of the server covers the tools of then",
        a_tool("new"),
        [allow(TOOL, scope="server")],
        "rules",
        [],
        Asked(),
    ),
    (
        "an allow sleeps when the server changed",
        TOOL,
        [allow(fingerprint="f0")],
        "rules",
        [],
        Asked(ToolChange(before="read, d1", after="read, d1")),
    ),
    ("a sleeping allow beside a live one", TOOL, [allow(OLD), allow()], "rules", [], Allowed()),
    ("an allow of another tool", a_tool("write"), [allow()], "rules", [], Asked()),
    # the settings' own allow
    ("a configured allow allows", a_tool(allowed=True), [], "rules", [], Allowed()),
    (
        "a deny wins over a configured allow",
        a_tool(allowed=True),
        [deny()],
        "rules",
        [],
        Denied("rule"),
    ),
    ("ask wins over a configured allow", a_tool(allowed=True), [], "ask", [], Asked()),
    # 5: the hint of a trusted server
    ("a trusted hint allows", TRUSTED, [], "rules", [], Allowed()),
    ("an untrusted hint asks", a_tool(read_only=True), [], "rules", [], Asked()),
    ("trust without a hint asks", a_tool(trusted=True), [], "rules", [], Asked()),
    (
        "trust with the opposite hint asks",
        a_tool(trusted=True, read_only=False),
        [],
        "rules",
        [],
        Asked(),
    ),
    # rules of one conversation
    (
        "an allow of this conversation",
        TOOL,
        [allow(conversation_id=CONVERSATION)],
        "rules",
        [],
        Allowed(),
    ),
    ("an allow of another one", TOOL, [allow(conversation_id="x")], "rules", [], Asked()),
    ("a deny of another one", TOOL, [deny(conversation_id="x")], "rules", [], Asked()),
]


@pytest.mark.parametrize(
    ("tool", "rules", "mode", "turn_denies", "decision"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_the_first_rule_that_matches_decides(
    tool: Tool,
    rules: list[StoredRule],
    mode: Mode,
    turn_denies: list[str],
    decision: Decision,
) -> None:
    assert decide(tool, rules, mode, turn_denies, CONVERSATION) == decision


def test_a_call_outside_of_conversations_knows_no_rule_of_one() -> None:
    assert decide(TOOL, [allow(conversation_id=CONVERSATION)], "rules", [], None) == Asked()


def test_of_two_sleeping_allows_the_newer_one_says_what_changed() -> None:
    older = allow(a_tool(digest="a"), created_at="2026-01-01T00:00:00Z")
    newer = allow(a_tool(digest="b"), created_at="2026-02-01T00:00:00Z")

    decision = decide(TOOL, [newer, older], "rules", [], CONVERSATION)

    assert decision == Asked(ToolChange(before="read, b", after="read, d1"))


def test_pins_remember_each_tool_as_it_is() -> None:
    assert pins_of([TOOL, a_tool("write", digest="d9")]) == {
        "read": Pin("d1", "read, d1"),
        "write": Pin("d9", "write, d9"),
    }

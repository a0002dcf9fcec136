"""Many servers → one sorted list of tools, with names that every vendor takes.

A name depends on its server and tool alone, so it stays the same when other servers come and go
and across restarts: vendors' prompt caches live by that. A name is never parsed back.
Knows no connection and asks no server.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from sidecar.config import McpServerConfig
from sidecar.messages import Hints, JsonObject, Tool
from sidecar.protocol.base import DESCRIPTION_BYTES

NAME_CHARS = 64  # OpenAI's and Anthropic's limit
SERVER_CHARS = 20  # leaves 42 for the tool
HASH_CHARS = 6
TITLE_BYTES = 256  # one line to be shown


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server lists it. `digest` is a SHA-256 over all of it."""

    name: str
    title: str | None
    description: str
    input_schema: JsonObject
    output_schema: JsonObject | None
    hints: Hints
    digest: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """One server's tools, with what the settings say about them."""

    server: str
    config: McpServerConfig
    fingerprint: str
    tools: Sequence[ListedTool]


def merge(shelves: Iterable[Shelf]) -> tuple[Tool, ...]:
    """All tools, sorted by name."""
    found = sorted(
        ((shelf, tool) for shelf in shelves for tool in shelf.tools),
        key=lambda pair: (pair[0].server, pair[1].name),
    )
    merged: dict[str, Tool] = {}
    for shelf, tool in found:
        name = _free_name(shelf.server, tool.name, merged)
        merged[name] = Tool(
            name=name,
            server=shelf.server,
            server_name=tool.name,
            title=None if tool.title is None else cut(tool.title, TITLE_BYTES),
            description=cut(tool.description, DESCRIPTION_BYTES),
            input_schema=tool.input_schema,
            output_schema=tool.output_schema,
            hints=tool.hints,
            trusted=shelf.config.trusted,
            allowed=tool.name in shelf.config.allow,
            fingerprint=shelf.fingerprint,
            digest=tool.digest,
        )
    return tuple(merged[name] for name in sorted(merged))


def offered(config: McpServerConfig, tools: Iterable[ListedTool]) -> tuple[ListedTool, ...]:
    """Those that the entry does not deny: what may never run is not shown to a model."""
    return tuple(tool for tool in tools if tool.name not in config.deny)


def digest(
    name: str,
    title: str | None,
    description: str,
    input_schema: JsonObject,
    output_schema: JsonObject | None,
    hints: Hints,
) -> str:
    """SHA-256 over what a server says of its tool; slow for a large list, so not on the loop."""
    return _sha256([name, title, description, input_schema, output_schema, hints.model_dump()])


def fingerprint(config: McpServerConfig, executable: str | None) -> str:
    """SHA-256 over how a server is started; `executable` is what its command resolves to now."""
    return _sha256([config.command, [*config.args], executable, [*sorted(config.env)], config.url])


def cut(text: str, max_bytes: int) -> str:
    """The longest beginning that fits, on a character boundary."""
    head = text[:max_bytes].encode()
    if len(text) <= max_bytes and len(head) <= max_bytes:
        return text
    return head[:max_bytes].decode(errors="ignore")


def fits(value: JsonValue, limit: int) -> bool:
    """Whether its JSON has about `limit` characters at most; stops counting there."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        limit -= 4
        if isinstance(item, str):
            limit -= len(item)
        elif isinstance(item, dict):
            limit -= sum(map(len, item)) if len(item) < limit else limit
            waiting.extend(item.values())
        elif isinstance(item, list):
            if len(item) > limit:
                return False
            waiting.extend(item)
        if limit < 0:
            return False
    return True


def _sha256(value: JsonValue) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _free_name(server: str, tool: str, taken: dict[str, Tool]) -> str:
    """`server__tool`; with a hash where that would lose or confuse something, or is taken."""
    plain = _plain_name(server, tool)
    if plain is not None and plain not in taken:
        return plain
    attempt = 0
    while (name := _hashed_name(server, tool, attempt)) in taken:
        attempt += 1
    return name


def _plain_name(server: str, tool: str) -> str | None:
    """None unless another server and tool can never have the same plain name."""
    name = f"{server}__{tool}"
    # "a" + "b__c" and "a__b" + "c" would meet; a server with no "__" of its own cannot
    is_unique = "__" not in server and not server.endswith("_")
    fits = len(server) <= SERVER_CHARS and len(name) <= NAME_CHARS
    is_taken_by_vendors = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) is not None
    return name if is_unique and fits and is_taken_by_vendors and tool else None


def _hashed_name(server: str, tool: str, attempt: int) -> str:
    mark = _sha256([server, tool, attempt])[:HASH_CHARS]
    stem = f"{_slug(server)[:SERVER_CHARS]}__{_slug(tool)}"
    if not re.match("[A-Za-z_]", stem):
        stem = f"_{stem}"
    return f"{stem[: NAME_CHARS - HASH_CHARS - 1]}_{mark}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)

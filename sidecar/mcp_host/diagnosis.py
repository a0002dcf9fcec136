"""Why an MCP server is not there: its remains → one error that a person can act on.

The sentence names the cause and what to do; `detail` has what the server itself wrote last.
"""

import signal
from collections.abc import Iterator, Sequence

from yarl import URL

from sidecar.errors import McpAuthRequired, McpCrashed, McpError, McpStartFailed, McpTimeout
from sidecar.mcp_host.catalogue import cut
from sidecar.mcp_host.challenge import Challenge
from sidecar.mcp_host.known_causes import advice_on
from sidecar.redaction import redact

DETAIL_BYTES = 4000
REASON_BYTES = 300


class NotDelivered(McpCrashed):
    """The call never reached the server, so it may be made again."""


def silent(server: str, timeout_s: float, stderr: Sequence[str]) -> McpError:
    return McpTimeout(
        f"The MCP server {server} did not answer within {timeout_s:g} s of its start. "
        "If it only needs longer, raise its `connect_timeout_s`.",
        server=server,
        detail=_detail(stderr),
    )


def stdio_failure(
    server: str,
    *,
    was_ready: bool,
    exit_code: int | None,
    fault: str | None,
    junk: Sequence[str],
    stderr: Sequence[str],
    error: Exception | None,
) -> McpError:
    """`exit_code` None: it did not end by itself."""
    kind: type[McpError] = McpCrashed if was_ready else McpStartFailed
    when = "" if was_ready else " before it was ready"
    if fault is not None:
        said = f"was stopped. {fault}"
    elif exit_code is not None:
        said = f"{_ended(exit_code)}{when}."
    elif was_ready:
        said = "closed its output."
    else:
        said = f"could not be connected to: {reason(error)}."
    lines = [*stderr, *(f"on stdout: {line}" for line in junk)]
    return kind(
        f"The MCP server {server} {said} {_advice(server, stderr)}".strip(),
        server=server,
        detail=_detail(lines),
    )


def http_failure(
    server: str,
    url: str,
    *,
    was_ready: bool,
    status: int | None,
    challenge: Challenge | None,
    advice: str,
    fault: str | None,
    error: Exception | None,
) -> McpError:
    """`advice` is what to do about a challenge."""
    origin = URL(url).origin()  # the rest of it often has a key
    if challenge is not None and (challenge.status == 401 or not was_ready):
        return unauthorized(server, f"{server} at {origin}", challenge, advice)
    if was_ready:
        return McpCrashed(
            f"The connection to the MCP server {server} is lost: {fault or reason(error)}.",
            server=server,
        )
    if fault is not None:
        return McpStartFailed(
            f"The MCP server {server} does not answer at {origin}: {fault}. "
            "Is it running, and is `url` right?",
            server=server,
        )
    if status is not None and status >= 400:
        return McpStartFailed(
            f"The MCP server {server} answered HTTP {status} at {origin}. "
            "Check the path in `url`, and `headers`.",
            server=server,
            http_status=status,
        )
    return McpStartFailed(
        f"The MCP server {server} could not be connected to: {reason(error)}. Check `url`.",
        server=server,
        http_status=status,
    )


def unauthorized(server: str, where: str, challenge: Challenge, advice: str) -> McpAuthRequired:
    wish = "wants more permission" if challenge.wants_more else "wants to know who is asking"
    return McpAuthRequired(
        f"The MCP server {where} {wish} (HTTP {challenge.status}). {advice}",
        server=server,
        http_status=challenge.status,
        detail=cut(challenge.header, DETAIL_BYTES) or None,
    )


def not_enough(server: str, challenge: Challenge) -> McpStartFailed:
    return McpStartFailed(
        f"The MCP server {server} was given the permission that it wants, and wants it still "
        "(HTTP 403). Whoever runs it must put that right; or sign in to it as somebody else.",
        server=server,
        http_status=challenge.status,
        detail=cut(challenge.header, DETAIL_BYTES) or None,
    )


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def reason(error: Exception | None) -> str:
    if error is None:
        return "the connection was closed"
    first = next(leaves(error))
    text = str(first).strip().partition("\n")[0] or type(first).__name__
    return cut(redact(text), REASON_BYTES).rstrip(".")


def _ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was ended by signal {-exit_code}"


def _advice(server: str, stderr: Sequence[str]) -> str:
    if (advice := advice_on(stderr)) is not None:
        return advice
    said = [line.strip() for line in stderr if line.strip()]
    if said:
        return f"Its last words: {cut(said[-1], REASON_BYTES)}"
    return f"It wrote nothing to stderr; check its `command` and `args` (`mcp.servers.{server}`)."


def _detail(lines: Sequence[str]) -> str | None:
    text = "\n".join(lines)
    return cut(text[-DETAIL_BYTES:], DETAIL_BYTES) or None

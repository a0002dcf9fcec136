"""The terminal as a frontend, over the same socket as any other.

The answer goes to stdout and everything else to stderr, so that a pipe gets the answer alone.
Whatever a model or a server wrote is shown with its control characters escaped.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Literal, TextIO

from pydantic import JsonValue

from sidecar.chat.approvals import SHOWN_CHARS
from sidecar.client import Client, ClientError, Run, ServerError
from sidecar.messages import JsonObject
from sidecar.protocol.approvals import (
    Approval,
    ApprovalsPending,
    ApprovalsResolve,
    ApprovalsResolved,
    ApprovalsResolvePayload,
)
from sidecar.protocol.chunks import (
    NoticeChunk,
    ReasoningChunk,
    RetryChunk,
    TextChunk,
    ToolCallChunk,
    ToolResultChunk,
)
from sidecar.protocol.mcp import (
    ApprovePayload,
    AuthorizePayload,
    McpServersApprove,
    McpServersAuthorize,
    McpServersImport,
    McpServersList,
    McpServersLogs,
    McpServerStateChanged,
    McpServerStatus,
    McpToolsCall,
    McpToolsList,
    ServerLogsPayload,
    ServersImportPayload,
    ToolsCallPayload,
    ToolsListPayload,
)
from sidecar.visible import visible, visible_json

if sys.platform != "win32":
    import termios

RESULT_CHARS = 400  # of a tool's result; the model has read all of it
ABOUT_CHARS = 200  # of a name or a description
ARGUMENT_CHARS = 2000
FAILED = 1
CANCELLED = 130
GREETING = "Ctrl-C stops an answer, Ctrl-D ends the chat."
PROMPT = "> "
QUESTION = "Allow? [y]es, [a]lways, [n]o: "
ANSWERS: dict[str, tuple[Literal["allow", "deny"], Literal["once", "always"]]] = {
    **dict.fromkeys(("y", "yes"), ("allow", "once")),
    **dict.fromkeys(("a", "always"), ("allow", "always")),
    **dict.fromkeys(("n", "no"), ("deny", "once")),
}


async def chat(
    client: Client,
    text: str | None,
    model: str | None,
    files: Sequence[tuple[str, bytes]] = (),
    *,
    assume_yes: bool,
) -> int:
    """Send one message, or talk until the end of stdin. Returns the exit code.

    `files` are names and contents; they go along with the first message.
    """
    attached: list[JsonValue] = [
        {"type": "attachment", "attachment_id": await client.attach(data, name), "name": name}
        for name, data in files
    ]
    async with asyncio.TaskGroup() as group:
        talk = _Talk(client, group, model, attached, assume_yes)
        answering = group.create_task(talk.answer_approvals())
        talking = group.create_task(talk.converse() if text is None else talk.say(text))
        with talk.interruptible(talking):
            await asyncio.wait([talking])
        answering.cancel()
    return CANCELLED if talking.cancelled() else talking.result()


def can_ask() -> bool:
    """Whether there is a person at this terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


async def print_servers(client: Client) -> int:
    servers = await _settled(client)
    for server in servers:
        print(visible(f"{server.server:<20} {server.state:<10} {server.tools:>4} tools"))
        if server.error:
            print(visible(f"  {server.error}"))
    if not servers:
        _note("There are no MCP servers; they are added to the settings as mcp.servers.")
    return 0


async def print_tools(client: Client) -> int:
    for server in await _settled(client):
        listing = await client.request(McpToolsList, ToolsListPayload(server=server.server))
        for tool in listing.items:
            about = _one_line(tool.description.strip().partition("\n")[0], ABOUT_CHARS)
            name = _one_line(f"{tool.server}/{tool.name}", ABOUT_CHARS)
            print(f"{name}  [{tool.permission}]  {about}")
        if server.error:
            _note(visible(f"{server.server} is {server.state}: {server.error}"))
    return 0


async def print_logs(client: Client, server: str) -> int:
    await _settled(client)
    payload = ServerLogsPayload(server=server)
    for line in (await client.request(McpServersLogs, payload)).items:
        print(visible(line))
    return 0


async def import_servers(client: Client, text: str, accept: tuple[str, ...] | None) -> int:
    """What is in it, and what was stored; 1 when there is nothing to import."""
    asked = ServersImportPayload(text=text, accept=accept)
    found = await client.request(McpServersImport, asked)
    for item in found.items:
        how = item.url or " ".join((item.command or "", *item.args))
        taken = "  (there is one of that name)" if item.is_taken else ""
        print(f"{item.server}: {_one_line(how, ARGUMENT_CHARS)}{taken}")
        for warning in item.warnings:
            _note(f"  {warning}")
    for left_out in found.left_out:
        _note(f"{left_out.server} is left out: {left_out.reason}")
    for status in found.stored:
        _note(f"{status.server} is stored, and starts when you approve it.")
    if found.items and accept is None:
        _note("Nothing is stored yet: name the servers to store after the file, or --all.")
    return 0 if found.items else FAILED


async def approve_server(client: Client, server: str) -> int:
    """Let a server start as it is now."""
    servers = (await client.request(McpServersList)).items
    status = next((each for each in servers if each.server == server), None)
    if status is None:
        _note(f"There is no MCP server {server}.")
        return FAILED
    agreed = ApprovePayload(server=server, fingerprint=status.fingerprint)
    print((await client.request(McpServersApprove, agreed)).state)
    return 0


async def sign_in(client: Client, server: str) -> int:
    """Show where, and wait until the server can be used, or says why it still cannot."""
    await _settled(client)
    before = await _status(client, server)
    begin = AuthorizePayload(server=server)
    invitation = await client.request(McpServersAuthorize, begin)
    _note("Open this in your browser; it leads back here:")
    print(invitation.url, flush=True)
    while (now := await _status(client, server)) == before or _is_starting(now):
        await client.event(McpServerStateChanged)
    if now is None or now.error:
        _note(visible(now.error or "") if now else f"{server} was deleted.")
        return FAILED
    _note(f"{server} is {now.state}.")
    return 0


def _is_starting(status: McpServerStatus | None) -> bool:
    return status is not None and status.state == "starting"


async def sign_out(client: Client, server: str) -> int:
    await client.request(McpServersAuthorize, AuthorizePayload(server=server, action="revoke"))
    _note(f"Signed out of {server}.")
    return 0


async def _status(client: Client, server: str) -> McpServerStatus | None:
    servers = (await client.request(McpServersList)).items
    return next((each for each in servers if each.server == server), None)


async def call_tool(client: Client, server: str, name: str, arguments: JsonObject) -> int:
    """Whoever types the call has allowed it; a rule that denies it holds all the same."""
    await _settled(client)
    async with asyncio.TaskGroup() as group:
        payload = ToolsCallPayload(server=server, name=name, arguments=arguments)
        allowing = group.create_task(_allow(client, payload))
        try:
            result = await client.request(McpToolsCall, payload)
        finally:
            allowing.cancel()
    if result.status != "ok":
        _note(visible(result.text))
        return FAILED
    print(visible(result.text))
    return 0


async def _allow(client: Client, call: ToolsCallPayload) -> None:
    """This call, and nothing that another window of the same sidecar is asked about."""
    shown = visible_json(call.arguments, SHOWN_CHARS)
    while True:
        approval = (await client.event(ApprovalsPending)).data
        is_same = (approval.server, approval.name) == (call.server, visible(call.name))
        is_shown = approval.arguments == shown or approval.arguments_truncated
        if approval.run_id is None and is_same and is_shown:
            break
    answer = ApprovalsResolvePayload(approval_id=approval.approval_id, decision="allow")
    await client.request(ApprovalsResolve, answer)


async def _settled(client: Client) -> Sequence[McpServerStatus]:
    """The servers, once none of them is starting."""
    while True:
        servers = (await client.request(McpServersList)).items
        if all(server.state != "starting" for server in servers):
            return servers
        await client.event(McpServerStateChanged)


class _Talk:
    def __init__(
        self,
        client: Client,
        group: asyncio.TaskGroup,
        model: str | None,
        attached: list[JsonValue],
        assume_yes: bool,
    ) -> None:
        self._client = client
        self._group = group
        self._model = model
        self._attached = attached  # and not yet sent
        self._assume_yes = assume_yes
        self._lines = _Lines()
        self._screen = _Screen()
        self._run: Run | None = None
        self._cancelled: Run | None = None
        self._conversation_id: str | None = None
        self._resolved: set[str] = set()  # approvals

    async def converse(self) -> int:
        self._screen.note(_dim(GREETING))
        while True:
            line = await self._ask_for_line(PROMPT)
            if line is None:
                self._screen.end_line()
                return 0
            if line.strip():
                await self.say(line)

    async def say(self, text: str) -> int:
        readable = text.encode(errors="replace").decode()  # a terminal may give any bytes
        fields: JsonObject = {
            "parts": [{"type": "text", "text": readable}, *self._attached],
            "conversation_id": self._conversation_id,
            "model": self._model,
        }
        self._attached = []
        self._run = await self._client.chat(None, **fields)
        try:
            self._conversation_id = (await self._run.started()).conversation_id
            await self._show(self._run)
            outcome = await self._run.finished()
        except ServerError as error:
            self._screen.note(visible(f"sidecar: {error}"))
            return FAILED
        finally:
            self._screen.end_line()
            self._run = None
        if outcome.finish_reason == "cancelled":
            self._screen.note("(cancelled)")
            return CANCELLED
        if outcome.finish_reason != "stop":
            self._screen.note(f"(it ended early: {outcome.finish_reason})")
        return 0

    async def answer_approvals(self) -> None:
        """Put every pending call of ours to the person, one after the other, while it waits."""
        with contextlib.suppress(ClientError):  # the chat itself says that the socket is gone
            while True:
                approval = (await self._client.event(ApprovalsPending)).data
                if not await self._is_ours(approval):
                    continue  # of another window of the same sidecar
                async with asyncio.TaskGroup() as group:
                    asking = group.create_task(self._answer(approval))
                    await self._until_resolved(approval.approval_id)
                    asking.cancel()

    async def _is_ours(self, approval: Approval) -> bool:
        if self._run is None:
            return False
        try:
            return approval.run_id == (await self._run.started()).run_id
        except ServerError:  # ours was refused
            return False

    async def _answer(self, approval: Approval) -> None:
        answer = await self._ask(approval)
        with contextlib.suppress(ServerError):  # it was taken back at this moment
            await self._client.request(ApprovalsResolve, answer)

    async def _until_resolved(self, approval_id: str) -> None:
        """By us, or because the turn was cancelled or nobody answered in time."""
        while approval_id not in self._resolved:
            self._resolved.add((await self._client.event(ApprovalsResolved)).data.approval_id)

    @contextlib.contextmanager
    def interruptible(self, talking: "asyncio.Task[int]") -> Iterator[None]:
        """Ctrl-C cancels the turn; again, or without a turn, it ends the chat."""
        if sys.platform == "win32":  # its loop has no signal handlers; Ctrl-C ends the chat
            yield
            return

        def interrupted() -> None:
            if self._run is None or self._run is self._cancelled:
                self._screen.end_line()
                talking.cancel()
            else:
                self._cancelled = self._run
                self._group.create_task(self._client.cancel(self._run))

        loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    async def _ask(self, approval: Approval) -> ApprovalsResolvePayload:
        if self._assume_yes:
            return ApprovalsResolvePayload(approval_id=approval.approval_id, decision="allow")
        for line in _described(approval):
            self._screen.note(line)
        self._lines.forget_unread()  # what was typed before the question does not answer it
        decision = None
        while decision is None:
            answer = await self._ask_for_line(QUESTION)
            decision = ANSWERS.get("n" if answer is None else answer.strip().lower())
        allow, duration = decision
        return ApprovalsResolvePayload(
            approval_id=approval.approval_id, decision=allow, duration=duration
        )

    async def _ask_for_line(self, prompt: str) -> str | None:
        self._screen.ask(prompt)
        line = await self._lines.next()
        if line is not None:
            self._screen.was_answered()
        return line

    async def _show(self, run: Run) -> None:
        """Print what comes until the run ends."""
        screen = self._screen
        async for chunk in run:
            match chunk:
                case TextChunk(data=text):
                    screen.say(visible(text))
                case ReasoningChunk(data=text):
                    screen.think(visible(text))
                case ToolCallChunk(data=arguments, metadata=call):
                    made = f"→ {call.server or '?'}/{call.name} {arguments}"
                    screen.note(_dim(_one_line(made, ARGUMENT_CHARS)))
                case ToolResultChunk(data=text, metadata=result):
                    shown = text if len(text) <= RESULT_CHARS else text[:RESULT_CHARS] + "…"
                    screen.note(_dim(visible(f"← {result.status}: {shown}")))
                    if result.status == "denied" and not self._assume_yes and not can_ask():
                        screen.note("Nobody can be asked here; --yes allows every tool call.")
                case RetryChunk(data=text) | NoticeChunk(data=text):
                    screen.note(_dim(visible(text)))
                case _:
                    pass


def _described(approval: Approval) -> Iterator[str]:
    """What is asked, in lines of which none can hide another: the call itself comes last."""
    if approval.description:
        yield _dim(f"  {_one_line(approval.description, ABOUT_CHARS)}")
    if approval.changed is not None:
        before = _one_line(approval.changed.before, ABOUT_CHARS)
        yield f"  It has changed since you allowed it; before: {before}"
    arguments = json.dumps(approval.arguments, ensure_ascii=False)
    if approval.arguments_truncated:
        yield "  Its arguments are too long to be shown in full."
    call = f"{approval.server} wants to run {approval.name}"
    yield f"{_one_line(call, ABOUT_CHARS)} {_one_line(arguments, ARGUMENT_CHARS)}"


def _one_line(text: str, max_chars: int) -> str:
    line = visible(text).replace("\n", "\\n")
    return line if len(line) <= max_chars else f"{line[:max_chars]}… ({len(text)} characters)"


class _Screen:
    """The answer on stdout, the rest on stderr; neither begins within the other's line."""

    def __init__(self) -> None:
        self._unended: TextIO | None = None

    def say(self, text: str) -> None:
        self._write(text, text, sys.stdout)

    def think(self, text: str) -> None:
        self._write(text, _dim(text), sys.stderr)

    def note(self, text: str) -> None:
        self.end_line()
        _note(text)

    def ask(self, prompt: str) -> None:
        self._write(prompt, prompt, sys.stderr)

    def was_answered(self) -> None:
        """The person's Enter has ended the line."""
        self._unended = None

    def end_line(self) -> None:
        if self._unended is not None:
            print(file=self._unended, flush=True)
            self._unended = None

    def _write(self, text: str, shown: str, target: TextIO) -> None:
        if self._unended is not target:
            self.end_line()
        print(shown, end="", file=target, flush=True)
        if text:
            self._unended = None if text.endswith("\n") else target


class _Lines:
    """Lines of stdin, read by one thread from the first one asked for; None at the end."""

    def __init__(self) -> None:
        self._read: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_reading = False
        self._has_ended = False

    def forget_unread(self) -> None:
        while not self._read.empty():
            self._has_ended |= self._read.get_nowait() is None
        if sys.platform != "win32" and sys.stdin.isatty():
            termios.tcflush(0, termios.TCIFLUSH)

    async def next(self) -> str | None:
        if self._has_ended:
            return None
        if not self._is_reading:
            self._is_reading = True
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._pump, args=(loop,), name="stdin", daemon=True).start()
        line = await self._read.get()
        self._has_ended = line is None
        return line

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        # the bare descriptor: a thread inside sys.stdin would abort a normal exit
        with (
            contextlib.suppress(RuntimeError, OSError),  # the loop, or stdin, is gone
            open(0, encoding="utf-8", errors="replace", closefd=False) as stdin,
        ):
            while line := stdin.readline():
                loop.call_soon_threadsafe(self._read.put_nowait, line.rstrip("\n"))
            loop.call_soon_threadsafe(self._read.put_nowait, None)


def _note(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def _dim(text: str) -> str:
    is_coloured = sys.stderr.isatty() and sys.platform != "win32" and "NO_COLOR" not in os.environ
    return f"\x1b[2m{text}\x1b[0m" if is_coloured else text

"""The terminal as a frontend, over the same socket as any other.

The answer goes to stdout and everything else to stderr, so that a pipe gets the answer alone.
Whatever a model or a server wrote is shown with its control characters escaped.
"""

import asyncio
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

from sidecar.client import Client, ClientError, Run, ServerError
from sidecar.messages import JsonObject
from sidecar.protocol import (
    Approval,
    ApprovalsPending,
    ApprovalsResolve,
    ApprovalsResolvePayload,
    McpServersList,
    McpServersLogs,
    McpServerStateChanged,
    McpServerStatus,
    McpToolsCall,
    McpToolsList,
    NoticeChunk,
    ReasoningChunk,
    RetryChunk,
    ServerLogsPayload,
    TextChunk,
    ToolCallChunk,
    ToolResultChunk,
    ToolsCallPayload,
    ToolsListPayload,
)
from sidecar.visible import visible

RESULT_CHARS = 400  # of a tool's result; the model has read all of it
FAILED = 1
CANCELLED = 130
PROMPT = "> "
ANSWERS: dict[str, tuple[Literal["allow", "deny"], Literal["once", "always"]]] = {
    "y": ("allow", "once"),
    "a": ("allow", "always"),
    "n": ("deny", "once"),
}


async def chat(client: Client, text: str | None, model: str | None, *, assume_yes: bool) -> int:
    """Send one message, or talk until the end of stdin. Returns the exit code."""
    async with asyncio.TaskGroup() as group:
        talk = _Talk(client, group, model, assume_yes)
        answering = group.create_task(talk.answer_approvals())
        try:
            with talk.interruptible():
                return await (talk.converse() if text is None else talk.say(text))
        finally:
            answering.cancel()


def can_ask() -> bool:
    """Whether there is a person at this terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def print_servers(client: Client) -> int:
    for server in await _settled(client):
        line = f"{server.server:<20} {server.state:<10} {server.tools:>4} tools"
        print(visible(f"{line}  {server.error}" if server.error else line))
    return 0


async def print_tools(client: Client) -> int:
    for server in await _settled(client):
        listing = await client.request(McpToolsList, ToolsListPayload(server=server.server))
        for tool in listing.items:
            about = tool.description.strip().partition("\n")[0]
            print(visible(f"{tool.server}/{tool.name}  [{tool.permission}]  {about}"))
    return 0


async def print_logs(client: Client, server: str) -> int:
    await _settled(client)
    payload = ServerLogsPayload(server=server)
    for line in (await client.request(McpServersLogs, payload)).items:
        print(visible(line))
    return 0


async def call_tool(client: Client, server: str, name: str, arguments: JsonObject) -> int:
    """Whoever types the call has allowed it; a rule that denies it holds all the same."""
    await _settled(client)
    async with asyncio.TaskGroup() as group:
        allowing = group.create_task(_allow_next(client))
        try:
            payload = ToolsCallPayload(server=server, name=name, arguments=arguments)
            result = await client.request(McpToolsCall, payload)
        finally:
            allowing.cancel()
    print(visible(result.text))
    return 0 if result.status == "ok" else FAILED


async def _allow_next(client: Client) -> None:
    approval = (await client.event(ApprovalsPending)).data
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
        self, client: Client, group: asyncio.TaskGroup, model: str | None, assume_yes: bool
    ) -> None:
        self._client = client
        self._group = group
        self._model = model
        self._assume_yes = assume_yes
        self._lines = _Lines()
        self._run: Run | None = None
        self._cancelled: Run | None = None
        self._conversation_id: str | None = None

    async def converse(self) -> int:
        while True:
            _note(PROMPT if can_ask() else "", end="")
            line = await self._lines.next()
            if line is None:
                return 0
            if line.strip():
                await self.say(line)

    async def say(self, text: str) -> int:
        fields: JsonObject = {"conversation_id": self._conversation_id, "model": self._model}
        self._run = await self._client.chat(text, **fields)
        try:
            self._conversation_id = (await self._run.started()).conversation_id
            await _show(self._run)
            outcome = await self._run.finished()
        except ServerError as error:
            _note(f"\n{visible(str(error))}")
            return FAILED
        finally:
            self._run = None
        if outcome.finish_reason == "cancelled":
            _note("(cancelled)")
            return CANCELLED
        if outcome.finish_reason != "stop":
            _note(f"(it ended early: {outcome.finish_reason})")
        return 0

    async def answer_approvals(self) -> None:
        """Put every pending call to the person, one after the other."""
        with contextlib.suppress(ClientError):  # the chat itself says that the socket is gone
            while True:
                approval = (await self._client.event(ApprovalsPending)).data
                answer = await self._ask(approval)
                with contextlib.suppress(ServerError):  # the turn may have been cancelled meanwhile
                    await self._client.request(ApprovalsResolve, answer)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C cancels the turn; again, or without a turn, it ends the chat."""
        if sys.platform == "win32":  # its loop has no signal handlers; Ctrl-C ends the chat
            yield
            return
        talking = asyncio.current_task()
        assert talking is not None

        def interrupted() -> None:
            if self._run is None or self._run is self._cancelled:
                talking.cancel()
            else:
                self._cancelled = self._run
                self._group.create_task(self._client.cancel(self._run))

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _ask(self, approval: Approval) -> ApprovalsResolvePayload:
        if self._assume_yes:
            return ApprovalsResolvePayload(approval_id=approval.approval_id, decision="allow")
        arguments = json.dumps(approval.arguments, ensure_ascii=False)
        _note(f"\n{approval.server} wants to run {approval.name} {arguments}")
        _note(f"  {approval.description}" if approval.description else "", end="\n")
        if approval.changed is not None:
            _note(f"  It has changed since you allowed it; before: {approval.changed.before}")
        while True:
            _note("Allow? [y]es, [a]lways, [n]o: ", end="")
            answer = await self._lines.next()
            decision = ANSWERS.get("n" if answer is None else answer.strip().lower()[:1])
            if decision is not None:
                break
        allow, duration = decision
        return ApprovalsResolvePayload(
            approval_id=approval.approval_id, decision=allow, duration=duration
        )


async def _show(run: Run) -> None:
    """Print what comes until the run ends."""
    async for chunk in run:
        match chunk:
            case TextChunk(data=text):
                print(visible(text), end="", flush=True)
            case ReasoningChunk(data=text):
                _note(_dim(visible(text)), end="")
            case ToolCallChunk(data=arguments, metadata=call):
                _note(_dim(visible(f"\n→ {call.server or '?'}/{call.name} {arguments}")))
            case ToolResultChunk(data=text, metadata=result):
                shown = text if len(text) <= RESULT_CHARS else text[:RESULT_CHARS] + "…"
                _note(_dim(visible(f"← {result.status}: {shown}")))
            case RetryChunk(data=text) | NoticeChunk(data=text):
                _note(_dim(visible(text)))
            case _:
                pass
    print(flush=True)


class _Lines:
    """Lines of stdin, read by one thread from the first one asked for; None at the end."""

    def __init__(self) -> None:
        self._read: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_reading = False

    async def next(self) -> str | None:
        if not self._is_reading:
            self._is_reading = True
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._pump, args=(loop,), name="stdin", daemon=True).start()
        return await self._read.get()

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
    return f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text

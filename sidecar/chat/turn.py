"""One turn: ask the model, run the tools it calls, ask again, until it stops.

Tells everything to `emit` as it happens and keeps it in `draft`, so that after a cancel or a
failure what was seen is what there is. Knows no socket, no store and no vendor. A tool's failure
is a result that the model reads; a provider's failure ends the turn as ProviderError.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias, assert_never

from sidecar.chat import context
from sidecar.chat.approvals import Allow, Approvals, Asking, Deny
from sidecar.chat.base import Attachments, Emit, ToolSource
from sidecar.chat.draft import Draft
from sidecar.errors import ContextTooLong, NotFound, RequestError, StorageError
from sidecar.mcp_host.consent import is_left_out
from sidecar.messages import (
    Attachment,
    CitationPart,
    Context,
    FilePart,
    FinishReason,
    ImagePart,
    Message,
    ProviderItemPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    ToolStatus,
    Usage,
)
from sidecar.protocol.base import FRAME_BYTES_OUT
from sidecar.protocol.chunks import (
    AttachmentMetadata,
    CitationChunk,
    CitationMetadata,
    FileChunk,
    ImageChunk,
    NoticeChunk,
    NoticeMetadata,
    ProviderItemChunk,
    ProviderItemMetadata,
    ReasoningChunk,
    RetryChunk,
    RetryMetadata,
    TextChunk,
    ToolArgumentsChunk,
    ToolArgumentsMetadata,
    ToolCallChunk,
    ToolCallMetadata,
    ToolProgressChunk,
    ToolProgressMetadata,
    ToolResultChunk,
    ToolResultMetadata,
    UsageChunk,
)
from sidecar.protocol.frames import error_info
from sidecar.providers.base import (
    Citation,
    Finished,
    Media,
    ModelRequest,
    Notice,
    Params,
    Provider,
    ProviderItem,
    ReasoningDelta,
    Retrying,
    TextDelta,
    ToolArguments,
    ToolCall,
    UsageReport,
    Verbatim,
)

PIECE_CHARS = 64 * 1024  # six bytes each at worst in JSON, so that any frame stays below 512 KiB
LOADED_BYTES = 128 * 1024 * 1024  # of attachments, in a turn; no vendor takes so much at once
SMALLEST_WINDOW = 2000  # tokens; up to here nobody need be asked how large it is
TOOLS_WAIT_S = 20.0  # a server that was just launched is worth waiting for, a stuck one is not


Window: TypeAlias = Callable[[], Awaitable[int | None]]
"""How many tokens the model takes, where that is known."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn is about. `history` is as a ModelRequest's, or begins with what is summarised.

    With `handed_out`, the tools of whoever asks are offered in place of ours: the first step ends
    the turn, and its calls stay open for them to answer.
    """

    provider: Provider
    model: str
    history: Sequence[Message]
    system_prompt: str | None
    params: Params
    asking: Asking
    servers: frozenset[str] | None
    max_steps: int
    window: Window
    handed_out: Sequence[Tool] = ()


class Turn:
    def __init__(
        self,
        plan: Plan,
        draft: Draft,
        source: ToolSource,
        approvals: Approvals,
        attachments: Attachments,
    ) -> None:
        self.draft = draft
        self._plan = plan
        self._source = source
        self._approvals = approvals
        self._attachments = attachments
        self._loaded: dict[str, Attachment] = {}
        self._looked_for: set[str] = set()  # attachments, also those that were not found
        self._notices: set[str] = set()
        self._tools: dict[str, Tool] = {}
        self._reason: FinishReason = "stop"
        self._before = context.effective(plan.history)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._stopped: set[str] = set()

    @property
    def question(self) -> Message:
        """What it answers."""
        return self._plan.history[-1]

    async def run(self, emit: Emit) -> FinishReason:
        """Drive model and tools until the model stops. Whatever was shown is in `draft`."""
        await self._take_tools(emit)
        try:
            for _ in range(self._plan.max_steps):
                calls = await self._step(emit)
                if not calls or self._plan.handed_out:
                    return self._reason
                async with asyncio.TaskGroup() as group:  # siblings live and die together
                    for part, call in calls:
                        group.create_task(self._answer(part, call, emit))
            return "step_limit"
        finally:
            if not self._plan.handed_out:
                self._close_unanswered(emit)  # vendors reject a call without its result

    def cancel_call(self, tool_call_id: str) -> bool:
        """Stop one call that was shown; the model reads that it was and the turn goes on."""
        if all(part.tool_call_id != tool_call_id for part in self.draft.unanswered()):
            return False
        self._stopped.add(tool_call_id)
        if (task := self._running.get(tool_call_id)) is not None:
            task.cancel()
        return True

    async def _take_tools(self, emit: Emit) -> None:
        """The list is frozen here, for the length of the turn."""
        asking = self._plan.asking
        if self._plan.handed_out:
            self._tools = {tool.name: tool for tool in self._plan.handed_out}
            return
        if asking.mode == "off":
            return
        starting = self._source.starting()
        if starting:
            waiting_for = "Waiting for MCP servers that are starting: " + ", ".join(starting) + "."
            metadata = NoticeMetadata(code="servers_starting")
            emit(NoticeChunk(data=waiting_for, metadata=metadata))
            with suppress(TimeoutError):
                async with asyncio.timeout(TOOLS_WAIT_S):
                    await self._source.settled()
        self._tools = {
            tool.name: tool
            for tool in self._source.tools()
            if (self._plan.servers is None or tool.server in self._plan.servers)
            and not is_left_out(tool, asking.deny)
        }

    async def _step(self, emit: Emit) -> list[tuple[ToolCallPart, ToolCall]]:
        """Ask the model; with less of the conversation where it says that this is too much."""
        while True:
            try:
                return await self._ask_model(emit)
            except ContextTooLong:
                shorter = context.halved(self._before)
                if len(shorter) == len(self._before) or self.draft.has_step_begun:
                    raise
                self._leave_out(shorter, emit)

    async def _make_room(self, emit: Emit) -> None:
        plan, tools = self._plan, tuple(self._tools.values())
        used = context.used_tokens(self._history(), plan.system_prompt, tools)
        if used < SMALLEST_WINDOW or (window := await plan.window()) is None:
            return
        room = window - context.answer_tokens(window, plan.params.max_tokens)
        if used > room:
            own = context.used_tokens((), plan.system_prompt, tools)
            own += context.estimate(self.draft.message("streaming"))
            self._leave_out(context.trimmed(self._before, room - own), emit)

    def _leave_out(self, shorter: Sequence[Message], emit: Emit) -> None:
        if len(shorter) < len(self._before):
            self._before = shorter
            text = "The conversation is longer than the model can read; its beginning is left out."
            self._notify("context_trimmed", text, emit)

    async def _ask_model(self, emit: Emit) -> list[tuple[ToolCallPart, ToolCall]]:
        """One step: stream the model's answer into the draft. Returns the calls it made."""
        draft = self.draft
        calls: list[tuple[ToolCallPart, ToolCall]] = []
        ids: dict[str, str] = {}
        usage = Usage()
        await self._make_room(emit)
        history = self._history()
        await self._load(history)
        request = ModelRequest(
            model=self._plan.model,
            history=history,
            system_prompt=self._plan.system_prompt,
            tools=tuple(self._tools.values()),
            params=self._plan.params,
            attachments=self._loaded,
        )
        draft.begin_step()
        async with aclosing(self._plan.provider.stream(request)) as events:
            async for event in events:
                match event:
                    case TextDelta(text):
                        draft.add_text(text)
                        for piece in _pieces(text):
                            emit(TextChunk(data=piece))
                    case ReasoningDelta(text):
                        draft.add_reasoning(text)
                        for piece in _pieces(text) if text else ("",):
                            emit(ReasoningChunk(data=piece))
                    case ToolArguments(call_id, _, text):
                        shown_id = self._unique(call_id, ids)
                        metadata = ToolArgumentsMetadata(tool_call_id=shown_id)
                        for piece in _pieces(text):
                            emit(ToolArgumentsChunk(data=piece, metadata=metadata))
                    case ToolCall(call_id):
                        part = self._call_part(event, self._unique(call_id, ids))
                        draft.add_call(part)
                        emit(_call_chunk(part))
                        calls.append((part, event))
                    case Media():
                        await self._keep(event, emit)
                    case Citation(url, title):
                        draft.add_whole(CitationPart(url=url, title=title))
                        emit(CitationChunk(metadata=CitationMetadata(url=url, title=title)))
                    case ProviderItem(kind):
                        draft.add_whole(ProviderItemPart(kind=kind))
                        emit(ProviderItemChunk(metadata=ProviderItemMetadata(kind=kind)))
                    case Notice(code, text):
                        self._notify(code, text, emit)
                    case Verbatim(format, content):
                        draft.add_verbatim(format, content)
                    case UsageReport(usage):
                        pass
                    case Retrying():
                        emit(_retry_chunk(event))
                    case Finished(reason):
                        if reason != "tool_calls":
                            self._reason = reason
                    case _:
                        assert_never(event)
        if usage.input:
            full = Context(used=usage.input + usage.output, limit=await self._plan.window())
            usage = usage.model_copy(update={"context": full})
        draft.usage += usage
        emit(UsageChunk(metadata=usage))
        return calls

    def _notify(self, code: str, text: str, emit: Emit) -> None:
        if text not in self._notices:  # every step of a turn has the same to say
            self._notices.add(text)
            emit(NoticeChunk(data=text, metadata=NoticeMetadata(code=code)))

    async def _load(self, history: Sequence[Message]) -> None:
        """What the history shows and was not loaded yet, the newest first, as far as there is room.

        What is not there any more stays out: the model is told so, and the turn goes on.
        """
        room = LOADED_BYTES - sum(len(each.data) for each in self._loaded.values())
        for message in reversed(history):
            for part in message.attached:
                if part.attachment_id in self._looked_for or room <= 0:
                    continue
                self._looked_for.add(part.attachment_id)
                with suppress(NotFound, StorageError):
                    attachment = await self._attachments.load(part.attachment_id)
                    self._loaded[part.attachment_id] = attachment
                    room -= len(attachment.data)

    async def _keep(self, media: Media, emit: Emit) -> None:
        """Bytes never go into a message or a frame, only where they are kept."""
        attachment = Attachment(media.mime, media.data, media.name)
        try:
            attachment_id = await self._attachments.save(attachment)
        except (RequestError, StorageError) as error:  # the answer goes on without it
            emit(NoticeChunk(data=str(error), metadata=NoticeMetadata(code=error.code)))
            return
        metadata = AttachmentMetadata(attachment_id=attachment_id, mime=media.mime, name=media.name)
        named = metadata.model_dump(exclude_none=True)
        if media.mime.startswith("image/"):
            self.draft.add_whole(ImagePart(**named))
            emit(ImageChunk(metadata=metadata))
        else:
            self.draft.add_whole(FilePart(**named))
            emit(FileChunk(metadata=metadata))

    def _history(self) -> Sequence[Message]:
        own = self.draft.message("streaming")
        return (*self._before, own) if own.parts else self._before

    def _unique(self, call_id: str, ids: dict[str, str]) -> str:
        """Some vendors number the calls of every step from 0; ours are unique in the message."""
        if call_id not in ids:
            ids[call_id], count = call_id, 1
            while self.draft.has_call(ids[call_id]):
                count += 1
                ids[call_id] = f"{call_id}_{count}"
        return ids[call_id]

    def _call_part(self, call: ToolCall, tool_call_id: str) -> ToolCallPart:
        tool = self._tools.get(call.name)
        return ToolCallPart(
            tool_call_id=tool_call_id,
            server=tool.server if tool else None,
            name=tool.server_name if tool else call.name,
            offered_as=call.name,
            arguments=call.arguments or {},
            invalid_arguments=call.raw if call.arguments is None else None,
        )

    async def _answer(self, part: ToolCallPart, call: ToolCall, emit: Emit) -> None:
        started, current = monotonic(), asyncio.current_task()
        assert current is not None
        result = _own_result(
            part, "cancelled", "The person cancelled this call.", started, "person"
        )
        if part.tool_call_id not in self._stopped:
            self._running[part.tool_call_id] = current
            try:
                result = await self._result(part, call, emit)
            except asyncio.CancelledError:
                if part.tool_call_id not in self._stopped:
                    raise
                current.uncancel()  # the cancel was for this call, and it ends here
            finally:
                del self._running[part.tool_call_id]
        self.draft.add_result(result)
        emit(_result_chunk(result))

    async def _result(self, part: ToolCallPart, call: ToolCall, emit: Emit) -> ToolResultPart:
        started = monotonic()
        tool = self._tools.get(call.name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            text = f"There is no tool {call.name!r}. The tools there are: {names}."
            return _own_result(part, "error", text, started, "tool_not_found")
        if call.arguments is None:
            text = "The arguments are not a JSON object; call the tool again with valid ones."
            return _own_result(part, "error", text, started, "invalid_arguments")
        verdict = await self._approvals.permit(
            tool, call.arguments, part.tool_call_id, self._plan.asking
        )
        match verdict:
            case Deny(reason, text):
                return _own_result(part, "denied", text, started, reason)
            case Allow(arguments):
                pass
            case _:
                assert_never(verdict)

        def on_progress(progress: float, total: float | None, message: str | None) -> None:
            metadata = ToolProgressMetadata(
                tool_call_id=part.tool_call_id, progress=progress, total=total
            )
            emit(ToolProgressChunk(data=message, metadata=metadata))

        result = await self._source.call(tool, arguments, part.tool_call_id, on_progress)
        if arguments != call.arguments:
            result = result.model_copy(update={"arguments_used": arguments})
        return result

    def _close_unanswered(self, emit: Emit) -> None:
        for part in self.draft.unanswered():
            text = "The turn ended before this call did."
            result = _own_result(part, "cancelled", text, monotonic(), "cancel")
            self.draft.add_result(result)
            emit(_result_chunk(result))


def _pieces(text: str) -> Iterator[str]:
    if len(text) <= PIECE_CHARS:
        if text:
            yield text
        return
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]


def _own_result(
    part: ToolCallPart, status: ToolStatus, text: str, started: float, reason: str
) -> ToolResultPart:
    return ToolResultPart(
        tool_call_id=part.tool_call_id,
        status=status,
        text=text,
        duration_ms=round((monotonic() - started) * 1000),
        reason=reason,
    )


def _call_chunk(part: ToolCallPart) -> ToolCallChunk:
    text = json.dumps(part.arguments, ensure_ascii=False)
    if part.invalid_arguments is not None:
        text = part.invalid_arguments
    too_long = len(text) > PIECE_CHARS // 2  # it stands in the frame twice
    return ToolCallChunk(
        data=text[: PIECE_CHARS // 2],
        metadata=ToolCallMetadata(
            tool_call_id=part.tool_call_id,
            server=part.server,
            name=part.name,
            offered_as=part.offered_as,
            arguments={} if too_long else part.arguments,
            invalid_arguments=None if too_long else part.invalid_arguments,
            truncated=True if too_long else None,
        ),
    )


def _result_chunk(result: ToolResultPart) -> ToolResultChunk:
    """What does not fit a frame beside the rest is left out, and said to be."""
    chunk = ToolResultChunk(
        data=result.text,
        metadata=ToolResultMetadata(
            tool_call_id=result.tool_call_id,
            status=result.status,
            duration_ms=result.duration_ms,
            reason=result.reason,
            arguments_used=result.arguments_used,
            content=result.content,
            structured_content=result.structured_content,
            truncated=result.truncated,
        ),
    )
    if len(chunk.model_dump_json()) <= FRAME_BYTES_OUT // 4:  # characters, of four bytes at most
        return chunk
    changes = {"arguments_used": None, "structured_content": None, "truncated": True}
    return ToolResultChunk(
        data=chunk.data[: FRAME_BYTES_OUT // 8],  # six bytes each at worst, as escapes
        metadata=chunk.metadata.model_copy(update=changes),
    )


def _retry_chunk(event: Retrying) -> RetryChunk:
    return RetryChunk(
        data=f"{event.error} Trying again in {event.delay_s:.1f} s.",
        metadata=RetryMetadata(
            attempt=event.attempt,
            max=event.limit,
            delay_ms=round(event.delay_s * 1000),
            error_info=error_info(event.error),
        ),
    )

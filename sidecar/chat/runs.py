"""Running turns: start, cancel, follow.

A run belongs to the program, not to a socket: it goes on when its followers leave, unless they
said otherwise. Its log gets exactly one terminal entry, whatever happens to the turn, and what
was shown is appended to its conversation before that.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol
from uuid import uuid4

import structlog

from sidecar.chat.approvals import Approvals, Asking
from sidecar.chat.base import Attachments, ToolSource
from sidecar.chat.draft import Draft, newest_parts
from sidecar.chat.log import Failed, RunLog, Waker
from sidecar.chat.turn import PIECE_CHARS, Plan, Turn
from sidecar.errors import (
    BadRequest,
    Busy,
    DuplicateRequest,
    NotFound,
    Overloaded,
    SidecarError,
    UnsupportedMedia,
)
from sidecar.messages import (
    FilePart,
    FinishReason,
    ImagePart,
    Message,
    Part,
    TextPart,
    Tool,
    Usage,
    now,
)
from sidecar.protocol.base import FRAME_BYTES_OUT, RUNS, WAITING_TURNS
from sidecar.protocol.chat import (
    AttachmentPart,
    ChatPayload,
    ChatResult,
    RunInfo,
    RunsEnded,
    RunsStarted,
)
from sidecar.protocol.chat import Params as ChatParams
from sidecar.protocol.chunks import SnapshotChunk, SnapshotMetadata
from sidecar.protocol.events import Event
from sidecar.protocol.frames import Started, StartedMetadata, error_info
from sidecar.providers.base import Params, Provider
from sidecar.store.conversations import Conversations

KEPT_AFTER_END_S = 15 * 60  # so long can a run be resumed that has ended
SNAPSHOT_BYTES = FRAME_BYTES_OUT // 2
RETRY_KEY_S = 24 * 60 * 60
IMAGES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
DOCUMENTS = frozenset(("application/pdf", "text/plain"))

log = structlog.get_logger()


class Models(Protocol):
    """Where a run's model comes from."""

    def open(self, model: str) -> tuple[Provider, str]:
        """`provider/model` → its provider and the vendor's own id. Raises SidecarError."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a chat that does not say otherwise uses."""

    model: str
    system_prompt: str | None
    params: Params
    max_steps: int


class Run:
    """One turn and its log. Only Runs makes and ends one."""

    def __init__(
        self,
        conversation_id: str,
        chat: ChatPayload,
        model: str,
        *,
        ends_alone: bool,
        is_kept: bool = True,
    ) -> None:
        self.run_id = uuid4().hex
        self.conversation_id = conversation_id
        self.chat = chat
        self.model = model
        self.user_message_id = uuid4().hex
        self.message_id = uuid4().hex
        self.log = RunLog()
        self.ended = asyncio.Event()
        self.turn: Turn | None = None
        self.answer: Message | None = None  # once it has ended
        self.is_kept = is_kept  # in its conversation, and here for those who resume it
        self._ends_alone = ends_alone  # when its last follower leaves
        self._driver: asyncio.Task[None] | None = None
        self._is_cancelled = False

    @property
    def info(self) -> RunInfo:
        return RunInfo(
            run_id=self.run_id,
            conversation_id=self.conversation_id,
            seq=self.log.next_seq - 1,
            state="ended" if self.ended.is_set() else "running",
        )

    def snapshot(self) -> SnapshotChunk:
        """The message so far; stands for every entry up to its seq, the terminal one excepted."""
        assert self.turn is not None  # a log that has lost entries has had a turn
        message = self.answer or self.turn.draft.message("streaming")
        message, is_whole = newest_parts(message, SNAPSHOT_BYTES)
        metadata = SnapshotMetadata(
            message=message,
            seq=self.log.next_seq - (2 if self.ended.is_set() else 1),
            truncated=None if is_whole else True,
        )
        return SnapshotChunk(metadata=metadata)

    def follow(self, waker: Waker) -> None:
        self.log.watch(waker)

    def unfollow(self, waker: Waker) -> None:
        self.log.unwatch(waker)
        if not self.log.watchers and self._ends_alone:
            self.cancel()

    def cancel(self) -> bool:
        """False when it has ended, or is ending, already."""
        if self._is_cancelled or self.ended.is_set():
            return not self.ended.is_set()
        self._is_cancelled = True
        if self._driver is not None:
            self._driver.cancel()
        return True

    def driven_by(self, driver: asyncio.Task[None] | None) -> None:
        """Whom to cancel. A cancel that came before the task's first step is given to it now."""
        self._driver = driver
        if driver is not None and self._is_cancelled:
            driver.cancel()


class Runs:
    def __init__(
        self,
        group: asyncio.TaskGroup,
        *,
        conversations: Conversations,
        models: Models,
        tools: ToolSource,
        approvals: Approvals,
        attachments: Attachments,
        defaults: Defaults,
        publish: Callable[[Event], None],
    ) -> None:
        self._group = group
        self._conversations = conversations
        self._models = models
        self._tools = tools
        self._approvals = approvals
        self._attachments = attachments
        self._defaults = defaults
        self._publish = publish
        self._runs: dict[str, Run] = {}
        self._queues: dict[str, list[Run]] = {}  # by conversation; the first one runs
        self._retries: dict[str, tuple[bytes, Run]] = {}
        self._closing = False

    async def start(
        self, chat: ChatPayload, *, queue: bool = False, conversation_id: str | None = None
    ) -> Run:
        """Begin a turn, in `conversation_id` if the chat names none, which may be a new one.

        With `queue`, it waits for its conversation's turns that came before, and ends with its
        last follower. Raises RequestError, or ProviderError when there is no such model; then
        nothing began.
        """
        parts = await self._parts(chat)
        digest = hashlib.sha256(chat.model_dump_json().encode()).digest()
        if known := self._known(chat.retry_key, digest):
            return known
        self._check_room()
        model = chat.model or self._defaults.model
        provider, model_id = self._models.open(model)
        conversation_id = await self._place(chat, chat.conversation_id or conversation_id)
        before = self._queues.get(conversation_id, [])
        if before and not queue:
            raise Busy("This conversation is being answered already; cancel that run or wait.")
        if len(before) > WAITING_TURNS:
            raise Overloaded(f"{WAITING_TURNS} messages wait already; wait for an answer.")

        ends_alone = queue or chat.on_disconnect == "cancel"
        run = Run(conversation_id, chat, model, ends_alone=ends_alone)
        self._register(run, digest, parts)
        self._launch(run, partial(self._begin, run, parts, provider, model_id))
        return run

    async def answer(
        self, history: Sequence[Message], chat: ChatPayload, handed_out: Sequence[Tool] = ()
    ) -> Run:
        """Begin a turn on a conversation that the caller brings along, as in a ModelRequest.

        Of `chat`, what says how to answer counts; with `store` it becomes a new conversation,
        otherwise nothing is left of it once it has ended. It ends with its last follower.
        `handed_out` is as in a Plan. Raises as `start` does.
        """
        self._check_room()
        model = chat.model or self._defaults.model
        provider, model_id = self._models.open(model)
        conversation_id = await self._keep(history) if chat.store else uuid4().hex
        run = Run(conversation_id, chat, model, ends_alone=True, is_kept=chat.store)
        asked = [message for message in history if message.role == "user"]
        run.user_message_id = asked[-1].message_id if asked else history[-1].message_id
        self._register(run, b"", asked[-1].parts if asked else ())

        async def begin() -> Turn:
            return self._lay_out(run, history, provider, model_id, handed_out)

        self._launch(run, begin)
        return run

    def get(self, run_id: str) -> Run:
        run = self._runs.get(run_id)
        if run is None:
            raise NotFound("There is no such run: it ended over 15 minutes ago, or never began.")
        return run

    def running(self) -> tuple[RunInfo, ...]:
        return tuple(run.info for run in self._runs.values() if not run.ended.is_set())

    def cancel(self, run_id: str, tool_call_id: str | None = None) -> bool:
        """False when there is nothing to cancel any more."""
        run = self._runs.get(run_id)
        if run is None:
            return False
        if tool_call_id is None:
            return run.cancel()
        return run.turn is not None and run.turn.cancel_call(tool_call_id)

    async def close(self) -> None:
        """Cancel every run and wait until each has kept what was shown."""
        self._closing = True
        running = [run for run in self._runs.values() if run.cancel()]
        for run in running:
            await run.ended.wait()

    def _check_room(self) -> None:
        if self._closing:
            raise Overloaded("The sidecar is shutting down.")
        if sum(not run.ended.is_set() for run in self._runs.values()) >= RUNS:
            raise Overloaded(f"{RUNS} runs are going on already; wait for one to end.")

    async def _keep(self, history: Sequence[Message]) -> str:
        conversation_id = await self._conversations.create()
        for message in history:
            await self._conversations.append(conversation_id, message)
        return conversation_id

    def _launch(self, run: Run, begin: Callable[[], Awaitable[Turn]]) -> None:
        self._group.create_task(self._drive(run, begin), name=f"run {run.run_id}")

    async def _parts(self, chat: ChatPayload) -> tuple[Part, ...]:
        """What the person says, as it is stored."""
        if (chat.text is None) == (chat.parts is None):
            raise BadRequest("A chat has either text or parts.")
        given = (TextPart(text=chat.text),) if chat.text is not None else chat.parts or ()
        if all(part.type == "text" and not part.text.strip() for part in given):
            raise BadRequest("The message is empty.")
        return tuple(
            [
                part if part.type == "text" else await self._attached(part)
                for part in given
                if part.type != "text" or part.text.strip()
            ]
        )

    async def _attached(self, part: AttachmentPart) -> ImagePart | FilePart:
        kept = await self._attachments.find(part.attachment_id)
        name = part.name or kept.name
        if kept.mime in IMAGES:
            return ImagePart(attachment_id=kept.attachment_id, mime=kept.mime, name=name)
        if kept.mime in DOCUMENTS:
            return FilePart(attachment_id=kept.attachment_id, mime=kept.mime, name=name)
        raise UnsupportedMedia(
            f"{name or 'The attachment'} is neither an image (PNG, JPEG, GIF, WebP) nor a PDF nor "
            f"text ({kept.mime}); no model can be shown it."
        )

    def _register(self, run: Run, digest: bytes, parts: Sequence[Part]) -> None:
        self._runs[run.run_id] = run
        self._queues.setdefault(run.conversation_id, []).append(run)
        if run.chat.retry_key:
            self._retries[run.chat.retry_key] = (digest, run)
            self._later(RETRY_KEY_S, self._retries.pop, run.chat.retry_key, None)
        metadata = StartedMetadata(
            user_message=_text(parts)[:PIECE_CHARS],
            run_id=run.run_id,
            conversation_id=run.conversation_id,
            user_message_id=run.user_message_id,
            message_id=run.message_id,
            model=run.model,
        )
        run.log.append(Started(metadata=metadata))
        self._publish(RunsStarted(data=run.info))

    async def _place(self, chat: ChatPayload, conversation_id: str | None) -> str:
        """The conversation to go on with, or a new one. What the chat refers to must be there."""
        if conversation_id is None:
            if chat.parent_id or chat.replaces:
                raise BadRequest("parent_id and replaces need their conversation_id.")
            return await self._conversations.create()
        await self._parent_id(chat, conversation_id)
        return conversation_id

    async def _parent_id(self, chat: ChatPayload, conversation_id: str) -> str | None:
        """The message below which the new one hangs; None makes it a root."""
        store = self._conversations
        if chat.parent_id and chat.replaces:
            raise BadRequest("Give parent_id or replaces, not both.")
        if chat.replaces:
            replaced = await store.message(conversation_id, chat.replaces)
            if replaced.role != "user":
                raise BadRequest("replaces must name a user's message.")
            return replaced.parent_id
        if chat.parent_id:
            return (await store.message(conversation_id, chat.parent_id)).message_id
        return await store.head(conversation_id)

    def _known(self, retry_key: str | None, digest: bytes) -> Run | None:
        known = self._retries.get(retry_key) if retry_key else None
        if known is None:
            return None
        if known[0] != digest:
            raise DuplicateRequest("This retry_key was used for another message; make a new one.")
        return known[1]

    async def _drive(self, run: Run, begin: Callable[[], Awaitable[Turn]]) -> None:
        """Owns the turn: whatever ends it, the run gets its one terminal entry."""
        reason: FinishReason = "cancelled"
        failure: Failed | None = None
        with structlog.contextvars.bound_contextvars(run=run.run_id):
            try:
                run.driven_by(asyncio.current_task())
                queue = self._queues[run.conversation_id]
                while (first := queue[0]) is not run:
                    await first.ended.wait()
                turn = await begin()
                reason = await turn.run(run.log.append)
            except asyncio.CancelledError:
                log.info("run_cancelled")  # this task is what was to be cancelled
            except SidecarError as error:
                failure = Failed(str(error), error_info(error))
                log.warning("run_failed", code=error.code, http_status=error.http_status)
            except Exception:  # the owner of the turn: a bug must end this run and no other
                bug = SidecarError("Something went wrong inside the sidecar; its log has more.")
                failure = Failed(str(bug), error_info(bug))
                log.exception("run_crashed")
            run.driven_by(None)
            await self._end(run, reason, failure)

    async def _begin(
        self, run: Run, parts: tuple[Part, ...], provider: Provider, model_id: str
    ) -> Turn:
        """Store the user's message and lay out the turn."""
        store = self._conversations
        question = Message(
            message_id=run.user_message_id,
            parent_id=await self._parent_id(run.chat, run.conversation_id),
            role="user",
            parts=parts,
            created_at=now(),
        )
        await store.append(run.conversation_id, question)
        history = await store.path(run.conversation_id, question.message_id)
        return self._lay_out(run, history, provider, model_id)

    def _lay_out(
        self,
        run: Run,
        history: Sequence[Message],
        provider: Provider,
        model_id: str,
        handed_out: Sequence[Tool] = (),
    ) -> Turn:
        chat, defaults = run.chat, self._defaults
        system_prompt = chat.system_prompt
        plan = Plan(
            provider=provider,
            model=model_id,
            history=history,
            system_prompt=defaults.system_prompt if system_prompt is None else system_prompt,
            params=_params(chat.params, defaults.params),
            asking=Asking(
                run_id=run.run_id,
                conversation_id=run.conversation_id,
                mode=chat.tools.mode,
                deny=chat.tools.deny,
            ),
            servers=None if chat.tools.servers is None else frozenset(chat.tools.servers),
            max_steps=defaults.max_steps,
            handed_out=handed_out,
        )
        draft = Draft(run.message_id, history[-1].message_id, run.model)
        run.turn = Turn(plan, draft, self._tools, self._approvals, self._attachments)
        return run.turn

    async def _end(self, run: Run, reason: FinishReason, failure: Failed | None) -> None:
        """Keep what was shown, then tell everybody; the next run of the conversation may begin."""
        usage = Usage()
        if run.turn is not None:
            usage = run.turn.draft.usage
            run.answer = _answer(run.turn.draft, reason, failure)
            if run.is_kept:
                await self._conversations.append(run.conversation_id, run.answer)
        queue = self._queues[run.conversation_id]
        queue.remove(run)
        if not queue:
            del self._queues[run.conversation_id]
        run.ended.set()
        result = ChatResult(
            run_id=run.run_id,
            conversation_id=run.conversation_id,
            message_id=run.message_id,
            finish_reason=reason,
            usage=usage,
        )
        run.log.append(failure or result)
        self._publish(RunsEnded(data=run.info))
        if run.is_kept:
            self._later(KEPT_AFTER_END_S, self._forget, run)
        else:
            del self._runs[run.run_id]

    def _forget(self, run: Run) -> None:
        """A retry_key may still lead to it; then its answer is all that is left."""
        del self._runs[run.run_id]
        if run.answer is not None:
            run.log.keep_last()

    def _later(self, delay_s: float, function: Callable[..., object], *args: object) -> None:
        asyncio.get_running_loop().call_later(delay_s, function, *args)


def _text(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts if part.type == "text")


def _params(given: ChatParams, defaults: Params) -> Params:
    """What the chat says, and the settings where it says nothing."""
    return replace(defaults, **given.model_dump(exclude_none=True))


def _answer(draft: Draft, reason: FinishReason, failure: Failed | None) -> Message:
    if failure is not None:
        return draft.message("error", failure.error, failure.info)
    return draft.message("cancelled" if reason == "cancelled" else "complete")

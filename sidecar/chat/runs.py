"""Running turns: start, cancel, follow.

A run belongs to the program, not to a socket: it goes on when its followers leave, unless they
said otherwise. Its log gets exactly one terminal entry, whatever happens to the turn, and what
was shown is appended to its conversation before that.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

import structlog

from sidecar.chat.approvals import Approvals, Asking
from sidecar.chat.base import Attachments, Models, ToolSource
from sidecar.chat.draft import Draft
from sidecar.chat.log import Failed
from sidecar.chat.retries import Retries
from sidecar.chat.run import Run, question_of, result, started
from sidecar.chat.turn import Plan, Turn
from sidecar.chat.upkeep import Upkeep
from sidecar.errors import (
    AttachmentTooLarge,
    BadRequest,
    Busy,
    NotFound,
    Overloaded,
    SidecarError,
    StorageError,
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
)
from sidecar.protocol.base import ATTACHMENT_BYTES, RUNS, WAITING_TURNS
from sidecar.protocol.chat import (
    AttachmentPart,
    ChatPayload,
    RegeneratePayload,
    RunInfo,
    RunsEnded,
    RunsStarted,
)
from sidecar.protocol.chat import Params as ChatParams
from sidecar.protocol.chunks import NoticeChunk, NoticeMetadata
from sidecar.protocol.events import Event
from sidecar.protocol.frames import error_info
from sidecar.providers.base import Params, Provider
from sidecar.store.conversations import Conversations, Settings
from sidecar.store.rows import Progress, Retry

SAVE_S = 0.4  # so old may be what a crash takes away of an answer, and 0.1 to write it
KEPT_AFTER_END_S = 15 * 60  # so long can a run be resumed that has ended
IMAGES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
DOCUMENTS = frozenset(("application/pdf", "text/plain"))

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a chat that does not say otherwise uses."""

    model: str
    system_prompt: str | None
    params: Params
    max_steps: int
    has_model_titles: bool
    compact_at: float | None
    """Of a model's window."""


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
        self._retries = Retries(conversations)
        self._upkeep = Upkeep(
            conversations,
            models,
            compact_at=defaults.compact_at,
            has_model_titles=defaults.has_model_titles,
        )
        self._entitling: set[asyncio.Task[None]] = set()
        self._saving: asyncio.Task[None] | None = None
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
        digest = _digest(chat)
        if known := await self._retries.find(chat.retry_key, digest):
            return known
        self._check_room()
        named = chat.conversation_id or conversation_id
        own = await self._settings(named)
        model = chat.model or own.model or self._defaults.model
        provider, model_id = self._models.open(model)
        run = Run(
            await self._place(chat, named),
            chat,
            model,
            ends_alone=queue or chat.on_disconnect == "cancel",
        )
        run.said = parts
        if known := self._retries.known(chat.retry_key, digest):  # the same chat was faster
            return known
        self._check_queue(run.conversation_id, queue=queue)
        self._register(run, digest, parts)
        self._launch(run, partial(self._begin, run, parts, provider, model_id, own))
        return run

    async def regenerate(self, asked: RegeneratePayload) -> Run:
        """Answer a user's message, or once more what an assistant's message answered.

        Raises as `start` does.
        """
        digest = _digest(asked)
        if known := await self._retries.find(asked.retry_key, digest):
            return known
        self._check_room()
        conversation_id, message = await self._conversations.find(asked.message_id)
        asked_id = message.message_id if message.role == "user" else message.parent_id
        if asked_id is None:
            raise BadRequest("There is no message that this one answers.")
        question = await self._conversations.message(conversation_id, asked_id)
        own = await self._settings(conversation_id)
        model = asked.model or own.model or self._defaults.model
        provider, model_id = self._models.open(model)
        if known := self._retries.known(asked.retry_key, digest):  # the same one was faster
            return known
        self._check_queue(conversation_id, queue=False)
        how = asked.model_dump(exclude_unset=True, exclude={"message_id"})
        chat = ChatPayload.model_validate({**how, "conversation_id": conversation_id})
        run = Run(conversation_id, chat, model, ends_alone=asked.on_disconnect == "cancel")
        run.user_message_id = question.message_id
        self._register(run, digest, question.parts)

        async def begin() -> Turn:
            history = await self._conversations.path(conversation_id, question.message_id)
            if run.retry is not None:
                with suppress(StorageError):  # then a restart forgets it
                    await self._conversations.remember(run.retry)
            return self._lay_out(run, history, provider, model_id, own)

        self._launch(run, begin)
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
            return self._lay_out(run, history, provider, model_id, Settings(), handed_out)

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
        for task in self._entitling:
            task.cancel()
        running = [run for run in self._runs.values() if run.cancel()]
        for run in running:
            await run.ended.wait()

    async def compact(self, conversation_id: str) -> str:
        """Summarise the branch in use. Returns the summary's message_id. Raises SidecarError."""
        own = await self._settings(conversation_id)
        self._check_queue(conversation_id, queue=False)
        return await self._upkeep.compact(conversation_id, own.model or self._defaults.model)

    async def end_in(self, conversation_ids: Collection[str] | None) -> None:
        """Cancel what goes on in these conversations, in all for None, and wait for its end."""
        ending = [
            run
            for run in self._runs.values()
            if (conversation_ids is None or run.conversation_id in conversation_ids)
            and run.cancel()
        ]
        for run in ending:
            await run.ended.wait()

    def running_in(self, conversation_id: str) -> str | None:
        """The run_id of what goes on there."""
        queue = self._queues.get(conversation_id)
        return queue[0].run_id if queue else None

    def _check_queue(self, conversation_id: str, *, queue: bool) -> None:
        before = self._queues.get(conversation_id, [])
        if before and not queue:
            raise Busy("This conversation is being answered already; cancel that run or wait.")
        if len(before) > WAITING_TURNS:
            raise Overloaded(f"{WAITING_TURNS} messages wait already; wait for an answer.")

    async def _settings(self, conversation_id: str | None) -> Settings:
        if conversation_id is None:
            return Settings()
        return await self._conversations.settings(conversation_id)

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
        if kept.bytes > ATTACHMENT_BYTES:  # it came to be imported
            most = ATTACHMENT_BYTES // 2**20
            raise AttachmentTooLarge(f"{name or 'The attachment'} is larger than {most} MiB.")
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
            run.retry = Retry(
                run.chat.retry_key,
                digest,
                run.run_id,
                run.conversation_id,
                run.user_message_id,
                run.message_id,
            )
            self._retries.remember(run, run.retry)
        run.log.append(started(run, parts))
        self._publish(RunsStarted(data=run.info))
        if self._saving is None:
            self._saving = self._group.create_task(self._save_progress(), name="save progress")

    async def _place(self, chat: ChatPayload, conversation_id: str | None) -> str:
        """The conversation to go on with, or a new one. What the chat refers to must be there."""
        if conversation_id is None:
            if chat.parent_id or chat.replaces:
                raise BadRequest("parent_id and replaces need their conversation_id.")
            return await self._conversations.create(is_private=not chat.store)
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
        self,
        run: Run,
        parts: tuple[Part, ...],
        provider: Provider,
        model_id: str,
        own: Settings,
    ) -> Turn:
        """Store the user's message and lay out the turn."""
        conversation_id = run.conversation_id
        parent_id = await self._parent_id(run.chat, conversation_id)
        question = question_of(run, parts, parent_id)
        before = await self._upkeep.make_room(
            conversation_id,
            run.model,
            await self._conversations.path(conversation_id, parent_id),
            question,
            run.log.append,
        )
        if before:
            question = question.model_copy(update={"parent_id": before[-1].message_id})
        run.question = question
        await self._append(run, question)
        return self._lay_out(run, (*before, question), provider, model_id, own)

    async def _append(self, run: Run, message: Message) -> None:
        """Keep it; where it can only be kept in memory, the person is told and the chat goes on."""
        try:
            await self._conversations.append(run.conversation_id, message, run.retry)
        except StorageError as error:
            log.warning("message_not_written", code=error.code)
            if not run.is_saved:  # the person was told already
                return
            run.is_saved = False
            run.log.append(NoticeChunk(data=str(error), metadata=NoticeMetadata(code=error.code)))

    async def _save_progress(self) -> None:
        """What is being written goes to the disk while anything is."""
        while any(not run.ended.is_set() for run in self._runs.values()):
            await asyncio.sleep(SAVE_S)
            saved = [run for run in self._runs.values() if run.is_growing]
            progress = [
                Progress(run.conversation_id, run.turn.draft.beginning(), gained)
                for run in saved
                if run.turn is not None and (gained := run.turn.draft.gained())
            ]
            try:
                await self._conversations.save(progress)
            except StorageError as error:
                log.warning("progress_not_saved", code=error.code)
                for run in saved:  # with a gap in it, the rest would be worth nothing
                    run.is_saved = False
        self._saving = None

    def _lay_out(
        self,
        run: Run,
        history: Sequence[Message],
        provider: Provider,
        model_id: str,
        own: Settings,
        handed_out: Sequence[Tool] = (),
    ) -> Turn:
        """What the chat says counts, then what the conversation has, then the settings."""
        chat, defaults = run.chat, self._defaults
        prompts = (chat.system_prompt, own.system_prompt, defaults.system_prompt)
        tools = chat.tools if "tools" in chat.model_fields_set else own.tools or chat.tools
        plan = Plan(
            provider=provider,
            model=model_id,
            history=history,
            system_prompt=next((prompt for prompt in prompts if prompt is not None), None),
            params=_params(chat.params, _params(own.params or ChatParams(), defaults.params)),
            asking=Asking(
                run_id=run.run_id,
                conversation_id=run.conversation_id,
                mode=tools.mode,
                deny=tools.deny,
            ),
            servers=None if tools.servers is None else frozenset(tools.servers),
            max_steps=defaults.max_steps,
            window=partial(self._models.window, run.model),
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
            if run.retry is not None:
                run.retry = replace(run.retry, finish_reason=reason)
            if run.is_kept:
                await self._append(run, run.answer)
                self._entitle(run, run.turn.question, run.answer)
        elif run.is_kept and run.said is not None:
            with suppress(SidecarError):  # the run has an end of its own to tell
                await self._keep_unbegun(run, run.said, reason, failure)
        queue = self._queues[run.conversation_id]
        queue.remove(run)
        if not queue:
            del self._queues[run.conversation_id]
        run.ended.set()
        run.log.append(failure or result(run, reason, usage))
        self._publish(RunsEnded(data=run.info))
        if run.is_kept:
            self._later(KEPT_AFTER_END_S, self._forget, run)
        else:
            del self._runs[run.run_id]

    async def _keep_unbegun(
        self, run: Run, said: Sequence[Part], reason: FinishReason, failure: Failed | None
    ) -> None:
        """What the person said is kept also when the turn ended before it began."""
        question = run.question
        if question is None:
            parent_id = await self._parent_id(run.chat, run.conversation_id)
            question = question_of(run, said, parent_id)
        draft = Draft(run.message_id, question.message_id, run.model)
        run.answer = _answer(draft, reason, failure)
        await self._append(run, question)
        await self._append(run, run.answer)

    def _entitle(self, run: Run, question: Message, answer: Message) -> None:
        """After the first exchange; nobody waits for it."""
        if question.parent_id is not None or answer.status != "complete" or self._closing:
            return
        work = self._upkeep.entitle(run.conversation_id, run.model, question, answer)
        task = self._group.create_task(work, name="title")
        self._entitling.add(task)
        task.add_done_callback(self._entitling.discard)

    def _forget(self, run: Run) -> None:
        """A retry_key may still lead to it; then its answer is all that is left."""
        del self._runs[run.run_id]
        if run.answer is not None:
            run.log.keep_last()

    def _later(self, delay_s: float, function: Callable[..., object], *args: object) -> None:
        asyncio.get_running_loop().call_later(delay_s, function, *args)


def _digest(asked: ChatPayload | RegeneratePayload) -> bytes:
    return hashlib.sha256(asked.model_dump_json().encode()).digest()


def _params(given: ChatParams, defaults: Params) -> Params:
    """What the chat says, and the settings where it says nothing."""
    return replace(defaults, **given.model_dump(exclude_none=True))


def _answer(draft: Draft, reason: FinishReason, failure: Failed | None) -> Message:
    if failure is not None:
        return draft.message("error", failure.error, failure.info)
    return draft.message("cancelled" if reason == "cancelled" else "complete")

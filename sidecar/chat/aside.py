"""Questions to a model that are no part of a conversation: its title, and what to keep of it."""

from collections.abc import Sequence
from contextlib import aclosing
from uuid import uuid4

from sidecar.chat import context
from sidecar.errors import ProviderBadResponse
from sidecar.messages import Message, TextPart, Usage, now
from sidecar.providers.base import ModelRequest, Params, Provider, TextDelta, UsageReport

TITLE_PROMPT = (
    "Give this conversation a title of two to six words, in the language of its first message. "
    "Answer with the title alone: no quotation marks, no full stop, no explanation."
)
TITLE_SHOWN_CHARS = 2000  # of each side
TITLE_TOKENS = 40
TITLE_CHARS = 80
SUMMARY_PROMPT = (
    "You keep a long conversation usable. Summarise it so that you could go on with it from the "
    "summary alone: what the person wants, decisions and their reasons, facts, names, numbers, "
    "code and file names that are still needed, what tools found, and what is still to be done. "
    "Leave out what no longer matters. Do not address anybody and do not answer anything."
)
SUMMARY_REQUEST = "Write the summary of our conversation so far."
SUMMARY_TOKENS = 2000


async def title(provider: Provider, model: str, question: Message, answer: Message) -> str | None:
    """None when the model has none to offer. Raises ProviderError."""
    said = f"{question.text[:TITLE_SHOWN_CHARS]}\n\n---\n\n{answer.text[:TITLE_SHOWN_CHARS]}"
    text, _ = await _ask(provider, model, TITLE_PROMPT, [_person(said)], TITLE_TOKENS)
    words = " ".join(text.split()).strip("\"'“”«»*#. ")
    return words[:TITLE_CHARS] or None


async def summary(
    provider: Provider, model: str, history: Sequence[Message], window: int | None
) -> tuple[str, Usage]:
    """Raises ProviderError; also when nothing came."""
    asked = context.effective(history)
    if window is not None:
        asked = context.trimmed(asked, window - SUMMARY_TOKENS * 2)
    text, usage = await _ask(
        provider, model, SUMMARY_PROMPT, [*asked, _person(SUMMARY_REQUEST)], SUMMARY_TOKENS
    )
    if not text.strip():
        raise ProviderBadResponse("The model gave no summary of the conversation.")
    return text.strip(), usage


async def _ask(
    provider: Provider, model: str, prompt: str, history: Sequence[Message], max_tokens: int
) -> tuple[str, Usage]:
    request = ModelRequest(
        model=model,
        history=history,
        system_prompt=prompt,
        params=Params(max_tokens=max_tokens),
    )
    pieces: list[str] = []
    usage = Usage()
    async with aclosing(provider.stream(request)) as events:
        async for event in events:
            match event:
                case TextDelta(text):
                    pieces.append(text)
                case UsageReport(reported):
                    usage = reported
                case _:
                    pass
    return "".join(pieces), usage


def _person(text: str) -> Message:
    return Message(
        message_id=uuid4().hex,
        parent_id=None,
        role="user",
        parts=(TextPart(text=text),),
        created_at=now(),
    )

"""What of a conversation a model is shown: as much as fits its window, in whole exchanges.

A summary stands for everything before it. How full the window is, is the vendor's own count as
far as there is one, and an estimate from there on. Pure: knows no store and no vendor.
"""

import json
from collections.abc import Sequence

from sidecar.messages import Message, SummaryPart, TextPart, Tool

CHARS_PER_TOKEN = 3  # of English it is 4, of code and of other languages less
ATTACHMENT_TOKENS = 1500  # an image of a usual size; a PDF has as many for each page
MESSAGE_TOKENS = 8  # what a vendor puts around each
ANSWER_TOKENS = 4096  # kept free for the answer, where nobody says how long it may be
ANSWER_SHARE = 8  # but no more than this part of a small window

SUMMARY_HEADING = "[A summary of the conversation up to here, since it became too long:]"


def effective(history: Sequence[Message]) -> Sequence[Message]:
    """From the newest summary on; it is put before what the person said next."""
    for place in range(len(history) - 1, -1, -1):
        summary = _summary(history[place])
        if summary is not None:
            break
    else:
        return history
    heading = TextPart(text=f"{SUMMARY_HEADING}\n\n{summary}")
    rest = history[place + 1 :]
    if not rest:
        return (history[place].model_copy(update={"role": "user", "parts": (heading,)}),)
    first = rest[0].model_copy(update={"parts": (heading, *rest[0].parts)})
    return (first, *rest[1:])


def used_tokens(
    history: Sequence[Message], system_prompt: str | None = None, tools: Sequence[Tool] = ()
) -> int:
    """How much of the window this takes."""
    since = 0
    for message in reversed(history):
        context = message.usage.context if message.usage else None
        if context is not None:  # it counted all that came before it, prompt and tools as well
            return context.used + since
        since += estimate(message)
    return since + _tokens(len(system_prompt or "")) + sum(_tool_tokens(tool) for tool in tools)


def answer_tokens(window: int, max_tokens: int | None) -> int:
    """What has to stay free of the window."""
    return min(max_tokens or ANSWER_TOKENS, window // ANSWER_SHARE)


def trimmed(history: Sequence[Message], budget_tokens: int) -> Sequence[Message]:
    """Without its oldest exchanges, until the estimate fits; the last exchange always stays.

    A tool call is never parted from its result: both are in one message.
    """
    starts = [place for place, message in enumerate(history) if message.role == "user"]
    sizes = [estimate(message) for message in history]
    first = 0
    for start in starts[1:]:
        if sum(sizes[first:]) <= budget_tokens:
            break
        first = start
    return history[first:]


def halved(history: Sequence[Message]) -> Sequence[Message]:
    """Without the older half; the same history when there is one exchange only."""
    return trimmed(history, sum(map(estimate, history)) // 2)


def estimate(message: Message) -> int:
    """Tokens of a message, as a vendor would count them or a little more."""
    chars = 0
    for part in message.parts:
        match part.type:
            case "text" | "reasoning" | "summary" | "tool_result":
                chars += len(part.text)
            case "tool_call":
                chars += len(part.name) + len(json.dumps(part.arguments))
            case _:
                pass
    return MESSAGE_TOKENS + _tokens(chars) + ATTACHMENT_TOKENS * len(message.attached)


def _summary(message: Message) -> str | None:
    return next((part.text for part in message.parts if isinstance(part, SummaryPart)), None)


def _tool_tokens(tool: Tool) -> int:
    return _tokens(len(tool.description) + len(json.dumps(tool.input_schema)) + len(tool.name))


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)

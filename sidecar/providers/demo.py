"""The built-in demo: a script that behaves like a model, for machines without a key or a network.

Honest: it says that it is a script. It streams word by word, really calls the tools it is offered,
and shows on request every state that a frontend has to draw. Knows no network and no settings.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from sidecar import jsons
from sidecar.errors import ModelNotFound, ProviderError, ProviderOverloaded
from sidecar.messages import JsonObject, Message, Tool, ToolResultPart, Usage
from sidecar.providers.base import (
    Finished,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    ReasoningDelta,
    Retrying,
    TextDelta,
    ToolArguments,
    ToolCall,
    UsageReport,
)

MODEL = "scripted"
WORD_S = 0.02  # about as fast as a small model on a laptop
RETRY_S = 1.0
QUOTED_CHARS = 1000  # of a tool's result; a model would not repeat all of it either
LONG_WORDS = 600

GREETING = (
    "I am the demo script of sidecar, not a language model, and I follow only a few words. "
    "Say “help” to see which."
)
HELP = """I am the demo script of sidecar, not a language model. These words make me do something:

- “time”, “files”, “add 2 and 3”, “note buy milk”: I call the tool for it and say what it returned;
  several in one message are called at once
- “call NAME {…}”: I call any tool that is offered, with these arguments
- “think”: I show reasoning before the answer
- “long”: I talk for a while, so that you can cancel me
- “retry”: I fail once before the answer begins
- “fail”: I fail in the middle of the answer
"""
THOUGHTS = "They asked me to think. I am a script, so this is only what thinking looks like."
_CALL = re.compile(r"\s*call\s+(\S+)\s*(\{.*)?", re.IGNORECASE | re.DOTALL)
_TOOLS = (  # a word in the message, a word in the name of the tool that it stands for
    (re.compile(r"\btime\b", re.IGNORECASE), "time"),
    (re.compile(r"\bfiles?\b", re.IGNORECASE), "list_files"),
    (re.compile(r"\badd\b", re.IGNORECASE), "add"),
    (re.compile(r"\bnote\b", re.IGNORECASE), "write_note"),
)


class DemoProvider:
    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep

    async def about(self, model: str) -> ModelInfo:
        return ModelInfo(model, model)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        if request.model != MODEL:
            text = f"The demo has no model {request.model}; its only one is {MODEL}."
            raise ModelNotFound(text, provider="demo")
        words = 0
        has_called = False
        for event in _script(request):
            if isinstance(event, TextDelta | ReasoningDelta | ToolArguments):
                await self._sleep(WORD_S)
                words += 1
            has_called = has_called or isinstance(event, ToolCall)
            yield event
            if isinstance(event, Retrying):
                await self._sleep(event.delay_s)
        yield UsageReport(Usage(input=_words(request), output=words))
        yield Finished("tool_calls" if has_called else "stop")

    async def models(self) -> Sequence[ModelInfo]:
        name = "Demo script (no model)"
        return [ModelInfo(MODEL, name, vision=False, tools=True, reasoning=True)]

    async def prepare(self) -> None:
        """There is nothing to import."""

    async def close(self) -> None:
        """Nothing is open."""


def _script(request: ModelRequest) -> Iterator[ModelEvent]:
    """One answer, chosen by what came last: a tool's results or the person's words."""
    last = request.history[-1]
    if last.role == "assistant":
        yield from _say(_report(last))
        return
    calls = list(_calls(last.text, request.tools))
    for call in calls:
        call_id = f"demo_{uuid4().hex[:8]}"
        yield from (ToolArguments(call_id, call.name, piece) for piece in _split(call.raw))
        yield ToolCall(call_id, call.name, jsons.parse_object(call.raw), call.raw)
    if not calls:
        yield from _act(last.text)


def _act(text: str) -> Iterator[ModelEvent]:
    words = set(re.findall(r"\w+", text.lower()))
    answer = HELP if "help" in words else GREETING
    if _asked_for(text) or _CALL.fullmatch(text):
        answer = "I would call a tool for that, but none that fits is offered to me."
    if "retry" in words:
        failure = ProviderOverloaded("The demo was asked to fail once.", provider="demo")
        yield Retrying(1, 1, RETRY_S, failure)
        answer = "This is the second attempt, and it works."
    if "think" in words:
        yield from (ReasoningDelta(word) for word in _split(THOUGHTS))
        answer = "I have thought, as far as a script can."
    if "long" in words:
        answer = " ".join(f"word {number}," for number in range(LONG_WORDS // 2)) + " done."
    if "fail" in words:
        yield from _say("I begin to answer, and then ")
        raise ProviderError("The demo was asked to fail, and did.", provider="demo")
    yield from _say(answer)


def _say(text: str) -> Iterator[TextDelta]:
    return (TextDelta(word) for word in _split(text))


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    raw: str


def _calls(text: str, tools: Sequence[Tool]) -> Iterator[_Call]:
    """The calls that the person's words ask for, of tools that are offered."""
    if explicit := _CALL.fullmatch(text):
        name, raw = explicit.groups()
        for tool in tools:
            if name in (tool.name, tool.server_name):
                yield _Call(tool.name, (raw or "{}").strip())
                break
        return
    for word in _asked_for(text):
        for tool in [tool for tool in tools if word in tool.server_name][:1]:
            yield _Call(tool.name, json.dumps(_arguments(tool, text), ensure_ascii=False))


def _asked_for(text: str) -> list[str]:
    return [name for word, name in _TOOLS if word.search(text)]


def _arguments(tool: Tool, text: str) -> JsonObject:
    """What a tool requires: numbers from the text in their order, the text itself for the rest."""
    numbers = (float(number) for number in re.findall(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", text))
    said = re.sub(r"^.*?\bnote\b\W*", "", text, flags=re.IGNORECASE | re.DOTALL) or text
    arguments: JsonObject = {}
    properties, required = tool.input_schema.get("properties"), tool.input_schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return arguments
    for name, schema in properties.items():
        if name not in required:
            continue
        wanted = schema.get("type") if isinstance(schema, dict) else None
        if wanted in ("number", "integer"):
            number = next(numbers, 0.0)
            arguments[name] = int(number) if number.is_integer() else number
        else:
            arguments[name] = said
    return arguments


def _report(message: Message) -> str:
    """What the tools of the last step gave, in the order in which they were called."""
    names = {part.tool_call_id: part.name for part in message.parts if part.type == "tool_call"}
    results: list[ToolResultPart] = []
    for part in reversed(message.parts):
        if part.type != "tool_result":
            break
        results.insert(0, part)
    return "\n\n".join(_outcome(names.get(part.tool_call_id, "?"), part) for part in results)


def _outcome(name: str, result: ToolResultPart) -> str:
    text = result.text.strip()
    if len(text) > QUOTED_CHARS:
        text = text[:QUOTED_CHARS] + "…"
    match result.status:
        case "ok":
            return f"The tool {name} returned: {text}"
        case "denied":
            return f"I was not allowed to call {name}, so I do not know."
        case "cancelled":
            return f"The call of {name} was cancelled."
        case "timeout":
            return f"The tool {name} did not answer in time."
        case _:
            return f"The tool {name} failed: {text}"


def _split(text: str) -> list[str]:
    """Words with the space after them; joined they are the text again."""
    return re.findall(r"\S+\s*|\s+", text)


def _words(request: ModelRequest) -> int:
    """A guess at the tokens of what was asked; a script has none."""
    return sum(
        len(part.text.split())
        for message in request.history
        for part in message.parts
        if part.type in ("text", "reasoning", "tool_result")
    )

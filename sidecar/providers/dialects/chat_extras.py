"""What a chat completions answer has beyond the format, and must get back with the next question.

OpenRouter's `reasoning_details`, the reasoning that others put beside their text or into it, and
what Gemini puts beside a call as `extra_content`. Collected while the answer streams; what comes
out is laid over the assistant's message when the same model is asked again.
"""

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject
from sidecar.providers.dialects.call_pieces import CallPieces

REASONING = ("reasoning_content", "reasoning")  # DeepSeek, llama.cpp …; Ollama, vLLM, Groq …
MESSAGE_FIELDS = ("reasoning_details", *REASONING)  # beside `content` and `tool_calls`
_GROWING = ("text", "summary", "data")  # fields of a detail that come in pieces


class ChatExtras:
    def __init__(self) -> None:
        self._details: list[JsonObject] = []
        self._reasoning: dict[str, list[str]] = {name: [] for name in REASONING}
        self._thinking: list[str] = []
        self._text: list[str] = []

    def add(self, delta: Mapping[str, JsonValue]) -> None:
        for name, value in delta.items():
            if name == "content" and isinstance(value, str):
                self._text.append(value)
            elif name == "content":
                self._add_parts(jsons.rows(value))
            elif name in self._reasoning:
                self._reasoning[name].append(jsons.text(value))
            elif name == "reasoning_details":
                for detail in jsons.rows(value):
                    self._add_detail(detail)

    def verbatim(self, calls: CallPieces, has_tags: bool) -> JsonObject:
        """Empty for an answer that the format says completely.

        Reasoning in plain text goes back only with calls: it is wanted in the middle of a turn,
        and some refuse it elsewhere. `has_tags` says that it stands in the text.
        """
        extras: JsonObject = {}
        if details := [detail for detail in self._details if not _is_empty(detail)]:
            extras["reasoning_details"] = list[JsonValue](details)
        elif calls.begun:
            extras |= self._plain(has_tags)
        beside_calls = [call.extra for call in calls.begun]
        if any(beside_calls):
            extras["tool_calls"] = list[JsonValue](beside_calls)
        return extras

    def _plain(self, has_tags: bool) -> JsonObject:
        for name, pieces in self._reasoning.items():
            if reasoning := "".join(pieces):
                return {name: reasoning}
        text = "".join(self._text)
        if thinking := "".join(self._thinking):
            thought: JsonObject = {"type": "thinking", "thinking": [_text_part(thinking)]}
            return {"content": [thought, _text_part(text)] if text else [thought]}
        return {"content": text} if has_tags else {}

    def _add_parts(self, parts: Iterable[JsonObject]) -> None:
        for part in parts:
            self._thinking.append(joined(part.get("thinking")))
            self._text.append(joined(part.get("text")))

    def _add_detail(self, piece: JsonObject) -> None:
        """Pieces of one detail follow each other, with the same type and index."""
        last = self._details[-1] if self._details else None
        if last is None or any(last.get(key) != piece.get(key) for key in ("type", "index")):
            self._details.append(dict(piece))
            return
        for key, value in piece.items():
            before = last.get(key)
            if key in _GROWING and isinstance(before, str) and isinstance(value, str):
                last[key] = before + value
            elif value not in (None, ""):
                last[key] = value


def joined(value: JsonValue) -> str:
    """A text; Mistral's thinking is a list of parts that have one each."""
    return jsons.text(value) or "".join(joined(part.get("text")) for part in jsons.rows(value))


def laid_over(message: JsonObject, extras: Mapping[str, JsonValue]) -> JsonObject:
    """The assistant's message with what its vendor wants back; calls are matched by their order."""
    said = message | {key: value for key, value in extras.items() if key != "tool_calls"}
    calls, beside = message.get("tool_calls"), extras.get("tool_calls")
    if isinstance(calls, list) and isinstance(beside, list):
        said["tool_calls"] = [
            {**call, **extra} if isinstance(call, dict) and isinstance(extra, dict) else call
            for call, extra in _paired(calls, beside)
        ]
    return said


def _paired(
    calls: list[JsonValue], beside: list[JsonValue]
) -> Iterable[tuple[JsonValue, JsonValue]]:
    return zip(calls, beside + [{}] * (len(calls) - len(beside)), strict=False)


def _is_empty(detail: Mapping[str, JsonValue]) -> bool:
    return not any(detail.get(key) for key in (*_GROWING, "signature"))


def _text_part(text: str) -> JsonObject:
    return {"type": "text", "text": text}

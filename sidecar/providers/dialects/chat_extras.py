"""What a chat completions answer has beyond the format, and must get back with the next question.

OpenRouter's `reasoning_details`, the `reasoning_content` of DeepSeek and its kin, and what Gemini
puts beside a call as `extra_content`. Collected while the answer streams; what comes out is laid
over the assistant's message when the same model is asked again.
"""

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from sidecar.messages import JsonObject
from sidecar.providers.dialects.call_pieces import CallPieces

_GROWING = ("text", "summary", "data")  # fields of a detail that come in pieces


class ChatExtras:
    def __init__(self) -> None:
        self._details: list[JsonObject] = []
        self._content: list[str] = []

    def add(self, delta: Mapping[str, JsonValue]) -> None:
        details = delta.get("reasoning_details")
        if details and isinstance(details, list):
            for detail in details:
                if isinstance(detail, dict):
                    self._add_detail(detail)
        content = delta.get("reasoning_content")
        if content and isinstance(content, str):
            self._content.append(content)

    def verbatim(self, calls: CallPieces) -> JsonObject:
        """Empty for an answer that the format says completely.

        Reasoning in plain text goes back only with calls: it is wanted in the middle of a turn,
        and some refuse it elsewhere.
        """
        extras: JsonObject = {}
        if details := [detail for detail in self._details if not _is_empty(detail)]:
            extras["reasoning_details"] = list[JsonValue](details)
        elif calls.begun and self._content:
            extras["reasoning_content"] = "".join(self._content)
        beside_calls = [call.extra for call in calls.begun]
        if any(beside_calls):
            extras["tool_calls"] = list[JsonValue](beside_calls)
        return extras

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

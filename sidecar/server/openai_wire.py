"""OpenAI's HTTP format, as its clients read it: answers and errors of ours in its words.

Pure: knows no request and no run. `error_info` stands beside OpenAI's `error`, as it does in every
other refusal of ours. What ran here as a tool is not told: a client would try to run it again.
"""

import json
from collections.abc import Sequence
from math import ceil

from sidecar.errors import BadRequest
from sidecar.messages import (
    ErrorInfo,
    FinishReason,
    JsonObject,
    Part,
    ToolCallPart,
    Usage,
)

_WORDS = {  # where OpenAI has a word of its own, and clients look for it
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "quota_exhausted": "insufficient_quota",
    "context_too_long": "context_length_exceeded",
    "content_filtered": "content_filter",
}


class BadField(BadRequest):
    """`param` is the field of the request that cannot be served."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def error_body(message: str, info: ErrorInfo, status: int, param: str | None = None) -> JsonObject:
    """`param` is the field of the request that the error is about."""
    error: JsonObject = {
        "message": message,
        "type": _type(status),
        "code": _WORDS.get(info.code, info.code),
        "param": param,
    }
    return {"error": error, "error_info": info.model_dump()}


def error_headers(info: ErrorInfo, *, is_repeatable: bool = True) -> dict[str, str]:
    """Says when to ask again, and stops clients that would do so where it does not help.

    A request is not repeatable when it has called tools: they would be called once more.
    """
    may_retry = info.retryable and is_repeatable
    headers = {"X-Should-Retry": "true" if may_retry else "false"}
    if info.retry_after_ms is not None:
        headers["Retry-After"] = str(ceil(info.retry_after_ms / 1000))
    return headers


class Answer:
    """One answer, as the objects that OpenAI makes of it. A stream begins with `opening`.

    Texts between which a tool ran are parted by a blank line, or they would run together.
    """

    def __init__(
        self, completion_id: str, model: str, created: int, *, tells_usage: bool = False
    ) -> None:
        self._head: JsonObject = {"id": completion_id, "created": created, "model": model}
        self._tells_usage = tells_usage
        self._calls = 0
        self._has_text = False
        self._was_parted = False

    def opening(self) -> JsonObject:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> JsonObject:
        return self._chunk({"content": self._spaced(text)})

    def reasoning(self, text: str) -> JsonObject:
        return self._chunk({"reasoning_content": text})

    def call(self, part: ToolCallPart) -> JsonObject:
        """A call that is for the client, whole."""
        call: JsonObject = {"index": self._calls, **_call(part)}
        self._calls += 1
        return self._chunk({"tool_calls": [call]})

    def tool_ran(self) -> None:
        self._was_parted = self._has_text

    def closing(self, reason: FinishReason, usage: Usage) -> Sequence[JsonObject]:
        last = self._chunk({}, _finish_reason(reason, has_calls=self._calls > 0))
        if not self._tells_usage:
            return (last,)
        return last, {**self._chunk({}), "choices": [], "usage": _usage(usage)}

    def whole(self, parts: Sequence[Part], reason: FinishReason, usage: Usage) -> JsonObject:
        """The same as one object; `parts` are those of the run's message."""
        texts: list[str] = []
        thoughts: list[str] = []
        open_calls: dict[str, ToolCallPart] = {}
        for part in parts:
            match part.type:
                case "text":
                    texts.append(self._spaced(part.text))
                case "reasoning":
                    thoughts.append(part.text)
                case "tool_call":
                    open_calls[part.tool_call_id] = part
                case "tool_result":
                    del open_calls[part.tool_call_id]
                    self.tool_ran()
        message: JsonObject = {"role": "assistant", "content": "".join(texts) or None}
        if thought := "".join(thoughts):
            message["reasoning_content"] = thought
        if open_calls:
            message["tool_calls"] = [_call(part) for part in open_calls.values()]
        finish_reason = _finish_reason(reason, has_calls=bool(open_calls))
        choice: JsonObject = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(usage),
        }

    def _chunk(self, delta: JsonObject, finish_reason: str | None = None) -> JsonObject:
        choice: JsonObject = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk: JsonObject = {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [choice],
        }
        return {**chunk, "usage": None} if self._tells_usage else chunk

    def _spaced(self, text: str) -> str:
        spaced = f"\n\n{text}" if self._was_parted else text
        self._has_text, self._was_parted = True, False
        return spaced


def _call(part: ToolCallPart) -> JsonObject:
    raw = part.invalid_arguments
    if raw is None:
        raw = json.dumps(part.arguments, ensure_ascii=False)
    function: JsonObject = {"name": part.offered_as, "arguments": raw}
    return {"id": part.tool_call_id, "type": "function", "function": function}


def _finish_reason(reason: FinishReason, *, has_calls: bool) -> str:
    if has_calls:
        return "tool_calls"
    match reason:
        case "step_limit":
            return "length"
        case "refusal":
            return "content_filter"
        case _:
            return reason


def _usage(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"

"""The same answers in every vendor's format, for tests that hold all of them to one contract.

A Format writes bodies as its vendor does: each method is a list of pieces, in order, which joined
are one stream. `section` is what the settings of such a provider say beside its address.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

Call = tuple[str, str, dict[str, Any]]  # id, name, arguments


class Format(Protocol):
    name: str

    @property
    def section(self) -> Mapping[str, Any]: ...

    def text(self, *pieces: str, stop: str = "stop") -> list[bytes]:
        """`stop` is stop, length or content_filter."""

    def calls(self, *calls: Call, reasoning: str = "") -> list[bytes]:
        """Calls in parallel, after some reasoning with whatever the vendor wants back of it."""

    def error(self, message: str) -> bytes:
        """An error in the middle of a stream that had begun with 200: the vendor is overloaded."""

    def overflow(self) -> tuple[int, Any]:
        """Status and body of the refusal of a conversation that is too long."""

    def sent_back(self, body: dict[str, Any]) -> list[Any]:
        """What of the assistant's last step only its vendor understands, in its second request."""

    def results(self, body: dict[str, Any]) -> list[str]:
        """The results of calls in a request, in order."""


USAGE = {"input": 20, "cached": 8, "output": 7, "reasoning": 3}


def _sse(value: Any, event: str | None = None) -> bytes:
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


class ChatCompletionsFormat:
    name = "chat_completions"
    section: ClassVar[Mapping[str, Any]] = {"kind": "openai_compatible"}

    def text(self, *pieces: str, stop: str = "stop") -> list[bytes]:
        return [*(self._delta(content=piece) for piece in pieces), *self._end(stop)]

    def calls(self, *calls: Call, reasoning: str = "") -> list[bytes]:
        details = [{"type": "reasoning.text", "text": reasoning, "signature": "sig", "index": 0}]
        thought: dict[str, Any] = {"reasoning": reasoning, "reasoning_details": details}
        pieces = [self._delta(**thought)] if reasoning else []
        for index, (call_id, name, arguments) in enumerate(calls):
            head = {"index": index, "id": call_id, "type": "function"}
            pieces.append(self._delta(tool_calls=[{**head, "function": {"name": name}}]))
            for piece in _halves(json.dumps(arguments)):
                rest = {"index": index, "function": {"arguments": piece}}
                pieces.append(self._delta(tool_calls=[rest]))
        return [*pieces, *self._end("tool_calls")]

    def error(self, message: str) -> bytes:
        return _sse({"error": {"message": message, "type": "overloaded_error"}})

    def overflow(self) -> tuple[int, Any]:
        error = {"message": "maximum context length", "code": "context_length_exceeded"}
        return 400, {"error": error}

    def sent_back(self, body: dict[str, Any]) -> list[Any]:
        return [said.get("reasoning_details") for said in body["messages"] if "tool_calls" in said]

    def results(self, body: dict[str, Any]) -> list[str]:
        return [said["content"] for said in body["messages"] if said["role"] == "tool"]

    def _delta(self, finish: str | None = None, **delta: Any) -> bytes:
        return _sse({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _end(self, finish: str) -> list[bytes]:
        usage = {
            "prompt_tokens": 20,
            "completion_tokens": 7,
            "total_tokens": 27,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
        return [
            self._delta(finish),
            _sse({"choices": [], "usage": usage}),
            b"data: [DONE]\n\n",
        ]


class ResponsesFormat:
    name = "responses"
    section: ClassVar[Mapping[str, Any]] = {"kind": "openai"}

    def text(self, *pieces: str, stop: str = "stop") -> list[bytes]:
        item = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
        part = {"type": "output_text", "text": "".join(pieces), "annotations": []}
        done = {**item, "status": "completed", "content": [part]}
        where = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
        deltas = [self._event("output_text.delta", **where, delta=piece) for piece in pieces]
        return [
            self._event("created", response={"id": "resp_1", "status": "in_progress"}),
            self._event("output_item.added", output_index=0, item=item),
            *deltas,
            self._event("output_item.done", output_index=0, item=done),
            self._end([done], stop),
        ]

    def calls(self, *calls: Call, reasoning: str = "") -> list[bytes]:
        events: list[bytes] = []
        output: list[Any] = []
        if reasoning:
            summary = [{"type": "summary_text", "text": reasoning}]
            thought = {"type": "reasoning", "id": "rs_1", "summary": summary}
            output.append({**thought, "encrypted_content": "secret"})
            where = {"output_index": 0, "item_id": "rs_1", "summary_index": 0}
            events += [
                self._event("output_item.added", output_index=0, item={**thought, "summary": []}),
                self._event("reasoning_summary_text.delta", **where, delta=reasoning),
                self._event("output_item.done", output_index=0, item=output[0]),
            ]
        for call_id, name, arguments in calls:
            index, raw = len(output), json.dumps(arguments)
            item = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id}
            whole = {**item, "name": name, "arguments": raw, "status": "completed"}
            output.append(whole)
            events.append(
                self._event(
                    "output_item.added", output_index=index, item={**whole, "arguments": ""}
                )
            )
            where = {"output_index": index, "item_id": f"fc_{call_id}"}
            for piece in _halves(raw):
                events.append(self._event("function_call_arguments.delta", **where, delta=piece))
            events.append(self._event("output_item.done", output_index=index, item=whole))
        return [*events, self._end(output, "stop")]

    def error(self, message: str) -> bytes:
        error = {"type": "server_error", "code": "overloaded_error", "message": message}
        return _sse({"type": "error", "error": error}, "error")

    def overflow(self) -> tuple[int, Any]:
        error = {"message": "maximum context length", "code": "context_length_exceeded"}
        return 400, {"error": error}

    def sent_back(self, body: dict[str, Any]) -> list[Any]:
        kept = [item for item in body["input"] if item.get("type") == "reasoning"]
        return [item["encrypted_content"] for item in kept]

    def results(self, body: dict[str, Any]) -> list[str]:
        answers = [item for item in body["input"] if item.get("type") == "function_call_output"]
        return [item["output"] for item in answers]

    def _end(self, output: Sequence[Any], stop: str) -> bytes:
        usage = {
            "input_tokens": 20,
            "output_tokens": 7,
            "total_tokens": 27,
            "input_tokens_details": {"cached_tokens": 8},
            "output_tokens_details": {"reasoning_tokens": 3},
        }
        response = {"id": "resp_1", "status": "completed", "output": output, "usage": usage}
        if stop == "stop":
            return self._event("completed", response=response)
        reason = {"length": "max_output_tokens"}.get(stop, stop)
        response |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        return self._event("incomplete", response=response)

    def _event(self, kind: str, **fields: Any) -> bytes:
        return _sse({"type": f"response.{kind}", **fields}, f"response.{kind}")


class MessagesFormat:
    name = "messages"
    section: ClassVar[Mapping[str, Any]] = {"kind": "anthropic"}

    def text(self, *pieces: str, stop: str = "stop") -> list[bytes]:
        block = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
        reason = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}[stop]
        return [self._start(), *self._block(0, block, *deltas), *self._end(reason)]

    def calls(self, *calls: Call, reasoning: str = "") -> list[bytes]:
        events, index = [self._start()], 0
        if reasoning:
            block: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": reasoning},
                {"type": "signature_delta", "signature": "sig"},
            ]
            events += self._block(index, block, *deltas)
            index += 1
        for call_id, name, arguments in calls:
            block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
            pieces = _halves(json.dumps(arguments))
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            events += self._block(index, block, *deltas)
            index += 1
        return [*events, *self._end("tool_use")]

    def error(self, message: str) -> bytes:
        error = {"type": "overloaded_error", "message": message}
        return self._event("error", error=error)

    def overflow(self) -> tuple[int, Any]:
        text = "prompt is too long: 210000 tokens > 200000 maximum"
        return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": text}}

    def sent_back(self, body: dict[str, Any]) -> list[Any]:
        blocks = self._blocks(body, "assistant")
        return [block["signature"] for block in blocks if block["type"] == "thinking"]

    def results(self, body: dict[str, Any]) -> list[str]:
        blocks = self._blocks(body, "user")
        return [_plain(block["content"]) for block in blocks if block["type"] == "tool_result"]

    def _blocks(self, body: dict[str, Any], role: str) -> list[Any]:
        said = [message["content"] for message in body["messages"] if message["role"] == role]
        return [block for content in said if isinstance(content, list) for block in content]

    def _start(self) -> bytes:
        usage = {"input_tokens": 12, "cache_read_input_tokens": 8, "output_tokens": 1}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
        return self._event("message_start", message={**message, "usage": usage})

    def _block(self, index: int, block: Any, *deltas: Any) -> list[bytes]:
        return [
            self._event("content_block_start", index=index, content_block=block),
            *(self._event("content_block_delta", index=index, delta=delta) for delta in deltas),
            self._event("content_block_stop", index=index),
        ]

    def _end(self, reason: str) -> list[bytes]:
        usage = {"output_tokens": 7, "output_tokens_details": {"thinking_tokens": 3}}
        delta = {"stop_reason": reason, "stop_sequence": None}
        return [
            self._event("message_delta", delta=delta, usage=usage),
            self._event("message_stop"),
        ]

    def _event(self, kind: str, **fields: Any) -> bytes:
        return _sse({"type": kind, **fields}, kind)


class GenerateContentFormat:
    name = "generate_content"
    section: ClassVar[Mapping[str, Any]] = {"kind": "gemini"}

    def text(self, *pieces: str, stop: str = "stop") -> list[bytes]:
        reason = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}[stop]
        return [*(self._chunk([{"text": piece}]) for piece in pieces), self._chunk([], reason)]

    def calls(self, *calls: Call, reasoning: str = "") -> list[bytes]:
        events = [self._chunk([{"text": reasoning, "thought": True}])] if reasoning else []
        for number, (_, name, arguments) in enumerate(calls):
            part: dict[str, Any] = {"functionCall": {"name": name, "args": arguments}}
            if reasoning and number == 0:
                part["thoughtSignature"] = "c2ln"
            events.append(self._chunk([part]))
        return [*events, self._chunk([], "STOP")]

    def error(self, message: str) -> bytes:
        return _sse({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}})

    def overflow(self) -> tuple[int, Any]:
        text = "The input token count (1100000) exceeds the maximum number of tokens allowed."
        return 400, {"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}

    def sent_back(self, body: dict[str, Any]) -> list[Any]:
        parts = [part for content in body["contents"] for part in content["parts"]]
        return [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]

    def results(self, body: dict[str, Any]) -> list[str]:
        parts = [part for content in body["contents"] for part in content["parts"]]
        answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
        return [next(iter(answer["response"].values())) for answer in answers]

    def _chunk(self, parts: list[Any], finish: str | None = None) -> bytes:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        usage = {
            "promptTokenCount": 20,
            "cachedContentTokenCount": 8,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 3,
            "totalTokenCount": 27,
        }
        return _sse({"candidates": [candidate], "usageMetadata": usage})


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


FORMATS: tuple[Format, ...] = (
    ChatCompletionsFormat(),
    ResponsesFormat(),
    MessagesFormat(),
    GenerateContentFormat(),
)

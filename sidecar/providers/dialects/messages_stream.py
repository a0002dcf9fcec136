"""An answer in Anthropic's Messages format, read event by event.

Promises that a paused answer goes on as one, that nothing of a refused one is done or sent back,
and that a stream without `message_stop` is an error. Goes by each event's `type` and not by its
name, which some proxies leave out. What is unknown is skipped.
"""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from sidecar import jsons
from sidecar.messages import JsonObject, Usage
from sidecar.providers.base import Finished, ModelEvent, StopReason, UsageReport, Verbatim
from sidecar.providers.dialects.base import count, parse_chunk, stopped
from sidecar.providers.dialects.message_blocks import Blocks
from sidecar.providers.failures import Vendor
from sidecar.providers.sse import SseEvent

FORMAT = "messages"
MAX_SEQUELS = 10  # each is a request of its own, and the vendor pauses after ten searches or so
_STOP_REASONS: dict[str, StopReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # after MAX_SEQUELS
    "refusal": "refusal",
}
_PAUSES = ("pause_turn", "compaction")
_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


class MessagesStream:
    def __init__(self, vendor: Vendor, body: JsonObject) -> None:
        self.done = False
        self.sequel: JsonObject | None = None
        self._vendor = vendor
        self._body = body
        self._blocks = Blocks()
        self._begun: set[str] = set()  # ids of messages
        self._stop: str | None = None
        self._why = ""
        self._spent: Usage | None = None  # in the bodies before this one
        self._counts: dict[str, int] | None = None
        self._sequels = 0

    @property
    def is_whole(self) -> bool:
        return self.done

    def feed(self, event: SseEvent) -> Iterator[ModelEvent]:
        if self.done or event.data.startswith("[DONE]"):  # from proxies that think of others
            return
        data = parse_chunk(event, self._vendor, is_whole=False)
        kind = data.get("type")
        if kind == "content_block_delta":
            told = self._blocks.grow(_index(data), jsons.fields(data.get("delta")))
            if told is not None:
                yield told
        elif kind == "content_block_start":
            yield from self._blocks.start(_index(data), jsons.fields(data.get("content_block")))
        elif kind == "content_block_stop":
            yield from self._blocks.stop(_index(data))
        elif kind == "message_start":
            yield from self._message_start(jsons.fields(data.get("message")))
        elif kind == "message_delta":
            self._take_usage(data.get("usage"))
            self._take_stop(jsons.fields(data.get("delta")))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or event.event == "error" or (kind is None and data.get("error")):
            usage = self._usage()
            if usage is not None:
                yield UsageReport(usage)
            raise self._vendor.reported(data.get("error") or data)

    def end(self) -> Iterator[ModelEvent]:
        self.sequel = None
        if not self.done:
            raise self._vendor.cut_short()
        yield from self._blocks.stop_all()
        has_calls = self._blocks.has_calls
        if self._stop in _PAUSES and not has_calls and self._sequels < MAX_SEQUELS:
            self._prepare_sequel()
            return
        reason = _STOP_REASONS.get(self._stop or "", "stop")
        if has_calls and reason != "refusal":  # what a refused answer asks for is not to be done
            for call in self._blocks.calls(was_cut=reason == "length"):
                if not call.name:
                    raise self._vendor.nameless_call()
                yield call
            reason = "tool_calls"
        usage = self._usage()
        if usage is not None:
            yield UsageReport(usage)
        yield from stopped(self._vendor, reason, self._why)
        content = _kept(self._blocks.content(), has_calls)
        if reason != "refusal" and any(map(_says_more, content)):
            yield Verbatim(FORMAT, list[JsonValue](content))
        yield Finished(reason, self._stop)

    def _message_start(self, message: JsonObject) -> Iterator[ModelEvent]:
        """Some servers say it twice, and some have blocks in it that are complete."""
        self._take_usage(message.get("usage"))
        self._take_stop(message)
        name = jsons.text(message.get("id"))
        if name in self._begun:
            return
        self._begun.add(name)
        for block in jsons.rows(message.get("content")):
            yield from self._blocks.start(None, block)
            yield from self._blocks.stop(None)

    def _take_stop(self, delta: JsonObject) -> None:
        self._stop = jsons.text(delta.get("stop_reason")) or self._stop
        details = jsons.fields(delta.get("stop_details"))
        self._why = jsons.text(details.get("explanation") or details.get("category")) or self._why

    def _take_usage(self, usage: JsonValue) -> None:
        """The counts so far: each event may repeat some of them, and leaves out others or has 0."""
        if not isinstance(usage, dict):
            return
        counts = self._counts = self._counts or {}
        for name in _COUNTS:
            if number := count(usage, name):
                counts[name] = number
        if number := count(usage.get("output_tokens_details"), "thinking_tokens"):
            counts["thinking_tokens"] = number

    def _usage(self) -> Usage | None:
        if self._counts is None:
            return self._spent
        cached = self._counts.get("cache_read_input_tokens", 0)
        written = self._counts.get("cache_creation_input_tokens", 0)
        return (self._spent or Usage()) + Usage(
            input=self._counts.get("input_tokens", 0) + cached + written,
            output=self._counts.get("output_tokens", 0),
            cached=cached,
            cache_written=written,
            reasoning=self._counts.get("thinking_tokens", 0),
        )

    def _prepare_sequel(self) -> None:
        """The same question with the answer so far, which the vendor then goes on with."""
        self._spent, self._counts = self._usage(), None
        self._stop = None
        self._sequels += 1
        self.done = False
        asked = self._body["messages"]
        content = trimmed(self._blocks.content())
        said: JsonObject = {"role": "assistant", "content": list[JsonValue](content)}
        messages = [*asked, said] if isinstance(asked, list) and content else asked
        self.sequel = self._body | {"messages": messages}


def _index(event: Mapping[str, JsonValue]) -> int | None:
    index = event.get("index")
    return index if isinstance(index, int) else None


def _says_more(block: JsonObject) -> bool:
    """Whether our own events would not say the block again."""
    return block["type"] not in ("text", "tool_use") or bool(block.get("citations"))


def _kept(content: list[JsonObject], has_calls: bool) -> list[JsonObject]:
    """What the vendor takes back: no reasoning that leads to nothing, no search without result.

    While there are calls, its own tools may be waiting for their results.
    """
    if not has_calls:
        answered = {block.get("tool_use_id") for block in content if _is_id(block, "tool_use_id")}
        content = [
            block
            for block in content
            if block["type"] not in ("server_tool_use", "mcp_tool_use")
            or (_is_id(block, "id") and block["id"] in answered)
        ]
    while content and content[-1]["type"] in ("thinking", "redacted_thinking"):
        content = content[:-1]
    return content


def _is_id(block: JsonObject, name: str) -> bool:
    return isinstance(block.get(name), str)


def trimmed(content: list[JsonObject]) -> list[JsonObject]:
    """The vendor refuses white space at the end of an assistant's turn that it is to go on with."""
    if content and content[-1]["type"] == "text":
        return [*content[:-1], content[-1] | {"text": str(content[-1]["text"]).rstrip()}]
    return content

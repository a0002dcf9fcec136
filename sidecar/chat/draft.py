"""An assistant message while it grows.

Adjacent deltas of one type are one part, so what was shown live, what a snapshot shows and what
is stored are the same. Cheap per delta: text is joined only when somebody looks.
"""

from pydantic import JsonValue

from sidecar.messages import (
    CitationPart,
    ErrorInfo,
    FilePart,
    ImagePart,
    Message,
    MessageStatus,
    Part,
    ProviderItemPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    VendorContent,
    now,
)


class Draft:
    def __init__(self, message_id: str, parent_id: str, model: str) -> None:
        self.message_id = message_id
        self.usage = Usage()
        self._parent_id = parent_id
        self._model = model
        self._created_at = now()
        self._parts: list[Part] = []
        self._open: type[TextPart | ReasoningPart] | None = None
        self._pieces: list[str] = []
        self._calls: set[str] = set()
        self._unanswered: dict[str, ToolCallPart] = {}
        self._vendor_content: list[VendorContent] = []
        self._step_first = 0
        self._told_parts = 0  # by `gained`, and of the last one so many characters
        self._told_chars = 0

    def begin_step(self) -> None:
        """The model is asked; what is added from now on is its answer."""
        self._close_part()
        self._step_first = len(self._parts)

    @property
    def has_step_begun(self) -> bool:
        """Something came since the model was asked last."""
        return bool(self._open or self._pieces or len(self._parts) > self._step_first)

    def add_verbatim(self, format: str, content: JsonValue) -> None:
        """What was said in this step, in the words of its vendor."""
        self._close_part()
        first, last = self._step_first, len(self._parts)
        if first < last:
            provider, _, model = self._model.partition("/")
            said = VendorContent(provider, model, format, first, last, content)
            self._vendor_content.append(said)

    def add_text(self, text: str) -> None:
        if text:
            self._grow(TextPart, text)

    def add_reasoning(self, text: str) -> None:
        """Empty for reasoning that the vendor keeps to itself."""
        self._grow(ReasoningPart, text)

    def add_whole(self, part: ImagePart | FilePart | CitationPart | ProviderItemPart) -> None:
        self._close_part()
        self._parts.append(part)

    def add_call(self, call: ToolCallPart) -> None:
        self._close_part()
        self._parts.append(call)
        self._calls.add(call.tool_call_id)
        self._unanswered[call.tool_call_id] = call

    def add_result(self, result: ToolResultPart) -> None:
        self._close_part()
        self._parts.append(result)
        del self._unanswered[result.tool_call_id]

    def gained(self) -> list[tuple[int, Part]]:
        """What came since this was asked last: parts with their places in the message.

        The first may go on with the last one of before; it has the same place then.
        """
        self._close_part()
        news: list[tuple[int, Part]] = []
        last_told = self._told_parts - 1
        for place, part in enumerate(self._parts[max(last_told, 0) :], max(last_told, 0)):
            if place == last_told:
                if _chars(part) == self._told_chars:
                    continue
                assert isinstance(part, TextPart | ReasoningPart)
                part = type(part)(text=part.text[self._told_chars :])
            news.append((place, part))
        self._told_parts = len(self._parts)
        self._told_chars = _chars(self._parts[-1]) if self._parts else 0
        return news

    def beginning(self) -> Message:
        """The message as it was before its first part."""
        return self.message("streaming").model_copy(update={"parts": (), "usage": None})

    def has_call(self, tool_call_id: str) -> bool:
        return tool_call_id in self._calls

    def unanswered(self) -> tuple[ToolCallPart, ...]:
        return tuple(self._unanswered.values())

    def message(
        self,
        status: MessageStatus,
        error: str | None = None,
        error_info: ErrorInfo | None = None,
    ) -> Message:
        """What there is so far, as a message of its own."""
        self._close_part()
        return Message(
            message_id=self.message_id,
            parent_id=self._parent_id,
            role="assistant",
            parts=tuple(self._parts),
            status=status,
            model=self._model,
            usage=self.usage,
            error=error,
            error_info=error_info,
            created_at=self._created_at,
            vendor_content=tuple(self._vendor_content),
        )

    def _grow(self, part: type[TextPart | ReasoningPart], text: str) -> None:
        if self._open is not part:
            self._close_part()
            self._open = part
        self._pieces.append(text)

    def _close_part(self) -> None:
        """Join the pieces; a part that goes on afterwards is taken up again."""
        if self._open is None:
            return
        text = "".join(self._pieces)
        last = self._parts[-1] if self._parts else None
        if isinstance(last, self._open) and len(self._parts) > self._step_first:
            self._parts[-1] = self._open(text=last.text + text)
        else:
            self._parts.append(self._open(text=text))
        self._open = None
        self._pieces.clear()


def _chars(part: Part) -> int:
    """How long it is, of what may grow."""
    return len(part.text) if isinstance(part, TextPart | ReasoningPart) else 0

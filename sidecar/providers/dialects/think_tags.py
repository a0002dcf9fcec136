"""Reasoning that a server leaves in the text of its answer, between `<think>` and `</think>`.

Promises that only an answer which begins with the tag has any: further down, the tag is what the
answer is about. A tag may be cut anywhere, and reasoning that is never closed is reasoning to the
end. The white space around the tags belongs to them.
"""

from collections.abc import Iterator
from enum import Enum, auto

from sidecar.providers.base import ReasoningDelta, TextDelta

OPEN, CLOSE = "<think>", "</think>"


class _At(Enum):
    START = auto()
    TAG = auto()  # behind the opening one
    REASONING = auto()
    END_TAG = auto()  # behind the closing one
    TEXT = auto()


class ThinkTags:
    def __init__(self) -> None:
        self.were_there = False
        self._at = _At.START
        self._held = ""  # what may be a part of a tag, or the white space around it

    def read(self, text: str) -> Iterator[TextDelta | ReasoningDelta]:
        """What the text says, as far as that is certain."""
        if self._at is _At.TEXT:
            if text:
                yield TextDelta(text)
            return
        self._held += text
        if self._at is _At.START:
            self._open()
        if self._at is _At.TAG and self._strip():
            self._at = _At.REASONING
        if self._at is _At.REASONING:
            yield from self._reason()
        if self._at is _At.END_TAG and self._strip():
            self._at = _At.TEXT
        if self._at is _At.TEXT and self._held:
            yield TextDelta(self._held)
            self._held = ""

    def end(self) -> Iterator[TextDelta | ReasoningDelta]:
        """What was held back, because no tag will come any more."""
        held, self._held = self._held, ""
        if held and self._at is _At.REASONING:
            yield ReasoningDelta(held)
        elif held:
            yield TextDelta(held)
        self._at = _At.TEXT

    def _open(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(OPEN):
            self._at, self._held = _At.TAG, begun[len(OPEN) :]
            self.were_there = True
        elif not OPEN.startswith(begun):
            self._at = _At.TEXT

    def _strip(self) -> bool:
        """Whether anything but white space is there."""
        self._held = self._held.lstrip()
        return bool(self._held)

    def _reason(self) -> Iterator[ReasoningDelta]:
        reasoning, tag, rest = self._held.partition(CLOSE)
        if tag:
            self._at, self._held = _At.END_TAG, rest
        else:
            certain = len(reasoning) - _begun(reasoning, CLOSE)
            reasoning, self._held = reasoning[:certain], reasoning[certain:]
        if reasoning:
            yield ReasoningDelta(reasoning)


def _begun(text: str, tag: str) -> int:
    """How many characters of the tag the text ends with."""
    return next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)

"""What happened, for whoever subscribed. Publishing never waits."""

from collections.abc import Callable
from typing import TypeAlias

from sidecar.protocol.events import Event
from sidecar.protocol.frames import EventFrame, encode

Subscriber: TypeAlias = Callable[[str, str], None]
"""Takes the event's type and its encoded frame; must be cheap and must not raise."""


class Events:
    def __init__(self) -> None:
        self._next_seq = 0
        self._subscribers: list[Subscriber] = []

    def publish(self, event: Event) -> None:
        frame = EventFrame(event_seq=self._next_seq, event=event)
        self._next_seq += 1
        if not self._subscribers:
            return
        text = encode(frame)
        for subscriber in tuple(self._subscribers):
            subscriber(event.type, text)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.remove(subscriber)

"""Questions that wait for a person: all who can answer are asked, and the first answer wins.

None stays open: an answer, the clock, a cancel or the shutdown ends it. What is asked, and what is
made of an answer, is for `approvals` and `elicitations`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from sidecar.errors import NotFound

ANSWERS_KEPT = 256  # so that a late answer reads who was first

A = TypeVar("A")
R = TypeVar("R")


class Questions(Generic[A, R]):
    """Of one kind: `A` is an answer, `R` what everybody is told of it."""

    def __init__(self, what: str, timeout_s: float, tell: Callable[[str, A, str], R]) -> None:
        """`what` is one called; `tell` is called once for each: its id, the answer, and whose."""
        self._what = what
        self._timeout_s = timeout_s
        self._tell = tell
        self._answerers: set[str] = set()
        self._open: dict[str, asyncio.Future[A]] = {}
        self._answered: OrderedDict[str, R] = OrderedDict()
        self._is_closing = False

    @property
    def can_ask(self) -> bool:
        return bool(self._answerers)

    def join(self, connection_id: str) -> None:
        """This connection can ask a person."""
        self._answerers.add(connection_id)

    def leave(self, connection_id: str) -> None:
        """Open questions stay: the window may be reloading."""
        self._answerers.discard(connection_id)

    def close(self) -> None:
        """Whatever is cancelled from now on ends by the shutdown."""
        self._is_closing = True

    def expires_at(self) -> str:
        """Of a question that is asked now, RFC 3339."""
        at = datetime.now(UTC) + timedelta(seconds=self._timeout_s)
        return at.isoformat(timespec="seconds").replace("+00:00", "Z")

    async def ask(self, question_id: str, show: Callable[[], None], unanswered: A) -> A:
        """`show` it to everybody, and wait. Cancelling the caller takes the question back."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._open[question_id] = answer
        show()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            if not answer.cancelled():  # it came with the last tick of the clock
                return answer.result()
            self.settle(question_id, unanswered, "timeout")
            return unanswered
        except asyncio.CancelledError:
            self.settle(question_id, unanswered, "shutdown" if self._is_closing else "cancel")
            raise

    def settle(self, question_id: str, answer: A, by: str) -> None:
        """Close the question, once. Only the first caller's answer counts."""
        asked = self._open.pop(question_id, None)
        if asked is None:
            return
        if not asked.done():
            asked.set_result(answer)
        self._answered[question_id] = self._tell(question_id, answer, by)
        while len(self._answered) > ANSWERS_KEPT:
            self._answered.popitem(last=False)

    def told(self, question_id: str) -> R:
        """What was told of a question that is over. Raises NotFound for one nobody remembers."""
        told = self._answered.get(question_id)
        if told is None:
            raise NotFound(f"There is no such {self._what}; `hello` lists those that are pending.")
        return told

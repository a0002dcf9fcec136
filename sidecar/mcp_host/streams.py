"""The shape that the SDK wants of a transport's streams: a context, and an iterator of messages."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from mcp.shared.message import SessionMessage


class Stream:
    async def aclose(self) -> None:
        """Nothing, where closing is the transport's affair."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class Incoming(Stream, ABC):
    @abstractmethod
    async def receive(self) -> "SessionMessage | Exception":
        """The next message. Raises anyio.EndOfStream after the last one."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "SessionMessage | Exception":
        import anyio

        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

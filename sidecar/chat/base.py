"""The seams of a turn: where its chunks go and where its tools come from."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from sidecar.messages import Attachment, JsonObject, Kept, Tool, ToolResultPart
from sidecar.protocol.chunks import Chunk
from sidecar.providers.base import Provider

Emit: TypeAlias = Callable[[Chunk], None]
"""Takes a chunk and never waits."""

OnProgress: TypeAlias = Callable[[float, float | None, str | None], None]
"""Takes progress and, where the server gives them, the total and a word on it."""


class Models(Protocol):
    """Where a run's model comes from."""

    def open(self, model: str) -> tuple[Provider, str]:
        """`provider/model` → its provider and the vendor's own id. Raises SidecarError."""

    async def window(self, model: str) -> int | None:
        """How many tokens it takes, as far as that is known without asking anybody."""

    async def is_cheap(self, model: str) -> bool:
        """A few words of it cost nothing that anybody would notice."""


class Attachments(Protocol):
    """The bytes of images and files, kept apart from the messages that name them."""

    async def save(self, attachment: Attachment) -> str:
        """Returns its attachment_id. Raises AttachmentTooLarge and StorageError."""

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        name: str | None = None,
        mime: str | None = None,
        *,
        max_bytes: int | None = None,
    ) -> Kept:
        """Keep what comes, once all of it has. Raises AttachmentTooLarge and StorageError."""

    async def find(self, attachment_id: str) -> Kept:
        """What is kept under this id. Raises NotFound and StorageError."""

    async def file(self, attachment_id: str) -> Path:
        """Where it lies, to be read and no more. Raises NotFound and StorageError."""

    async def load(self, attachment_id: str) -> Attachment:
        """Raises NotFound and StorageError."""

    async def delete(self, attachment_ids: Collection[str]) -> None:
        """What is not there is gone already. Raises StorageError."""


class ToolSource(Protocol):
    """The tools there are, and a way to run one."""

    def tools(self) -> Sequence[Tool]:
        """All callable tools now, sorted by name; a turn takes this once and keeps it."""

    def starting(self) -> Sequence[str]:
        """Servers whose tools are not known yet, but may be soon; empty once that took too long."""

    async def settled(self) -> None:
        """Wait until no server is starting any more; the caller bounds it."""

    async def check(self, tool: Tool, arguments: JsonObject) -> None:
        """Raises BadRequest for arguments that the tool's schema does not take."""

    async def call(
        self, tool: Tool, arguments: JsonObject, tool_call_id: str, on_progress: OnProgress
    ) -> ToolResultPart:
        """Run one call on its server.

        A failure of any kind is a result with its status, never an exception; cancelling the
        caller cancels the call on the server.
        """

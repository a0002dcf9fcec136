"""One tool call: its clock, its progress, and a result within limits.

Whatever happens is a result with a status, never an exception. A call is sent again, once, only
where the first one was surely not delivered, or where its server, which the person trusts, says
that a second one does no harm.
Knows no rule and no person: whoever calls here has already been allowed to.
"""

import json
import time
from binascii import a2b_base64
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
from pydantic import JsonValue

from sidecar.chat.base import OnProgress
from sidecar.errors import McpCrashed, McpError, RequestError, StorageError
from sidecar.mcp_host.catalogue import cut, fits
from sidecar.mcp_host.clock import Clock, Overdue, Ticking, ticking
from sidecar.mcp_host.diagnosis import NotDelivered
from sidecar.messages import (
    Attachment,
    JsonObject,
    LinkContent,
    MediaContent,
    TextContent,
    Tool,
    ToolContent,
    ToolResultPart,
    ToolStatus,
)
from sidecar.protocol.base import RESULT_BYTES
from sidecar.threads import run_in_thread

if TYPE_CHECKING:
    from mcp_types import CallToolResult, ContentBlock

log = structlog.get_logger()

BLOCKS = 256  # of a result; each costs a line of the text and an entry of `content`
FIELD_BYTES = 1024  # of a link or a media type

Save = Callable[[Attachment], Awaitable[str]]
"""`chat.base.Attachments.save`."""


class Callee(Protocol):
    """What a call needs of a server."""

    async def call_tool(
        self, tool: Tool, arguments: JsonObject, ticking: Ticking
    ) -> "CallToolResult": ...

    async def until_decided(self, timeout_s: float) -> None:
        """Wait until it is there again, or surely not; at most so long."""


async def run_call(
    server: Callee,
    tool: Tool,
    arguments: JsonObject,
    tool_call_id: str,
    on_progress: OnProgress,
    clock: Clock,
    save: Save,
) -> ToolResultPart:
    """Cancelling it cancels the call on the server; `save` is given the bytes of media."""
    started = time.monotonic()

    def failed(status: ToolStatus, text: str) -> ToolResultPart:
        kept, is_cut = bounded(text)
        return ToolResultPart(
            tool_call_id=tool_call_id,
            status=status,
            text=kept,
            duration_ms=_ms_since(started),
            truncated=is_cut or None,
        )

    async def send() -> "CallToolResult":
        async with ticking(clock, on_progress) as running:
            return await server.call_tool(tool, arguments, running)

    try:
        try:
            result = await send()
        except McpCrashed as error:
            if not _may_be_sent_again(tool, error):
                raise
            log.info("call_sent_again", server=tool.server, tool=tool.server_name)
            await server.until_decided(clock.reconnect_s)
            result = await send()
    except Overdue as error:
        return failed("timeout", _overdue(tool, clock, error))
    except NotDelivered as error:
        return failed("error", f"The call was not made. {error}")
    except McpCrashed as error:
        return failed(
            "unknown",
            f"{error} Whether {tool.server_name} took effect is unknown. "
            "Check before calling it again.",
        )
    except McpError as error:
        return failed("error", str(error))
    part = _part(result, tool_call_id, _ms_since(started))
    return await _with_media(part, result.content, save)


def _may_be_sent_again(tool: Tool, error: McpCrashed) -> bool:
    """The hints are its server's word, so they count where the person trusts it."""
    is_harmless = tool.hints.read_only is True or tool.hints.idempotent is True
    return isinstance(error, NotDelivered) or (tool.trusted and is_harmless)


def _overdue(tool: Tool, clock: Clock, error: Overdue) -> str:
    if error.is_total:
        return f"{tool.server_name} did not finish within {clock.total_s:g} s and was cancelled."
    return (
        f"{tool.server_name} gave no sign of life for {clock.idle_s:g} s and was cancelled. "
        "Whether it took effect is unknown."
    )


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def bounded(text: str) -> tuple[str, bool]:
    """The text within RESULT_BYTES, and whether that cut it; the last line says how much."""
    kept = cut(text, RESULT_BYTES)
    if len(kept) == len(text):
        return text, False
    note = "\n[… {} more characters were left out]"
    kept = cut(text, RESULT_BYTES - len(note.encode()) - len(str(len(text))))
    return kept + note.format(len(text) - len(kept)), True


# ---- the result -----------------------------------------------------------------------------


def _part(result: "CallToolResult", tool_call_id: str, duration_ms: int) -> ToolResultPart:
    blocks = result.content[:BLOCKS]
    structured, is_left_out = _structured(result.structured_content)
    texts = [_as_text(block) for block in blocks]
    if not texts and is_left_out:
        texts = [f"[a structured result of more than {RESULT_BYTES // 1024} KiB was left out]"]
    elif not texts and structured is not None:
        texts = [json.dumps(structured, ensure_ascii=False)]
    text, is_cut = bounded("\n".join(texts))
    content = _content(blocks)
    return ToolResultPart(
        tool_call_id=tool_call_id,
        status="error" if result.is_error else "ok",
        text=text,
        duration_ms=duration_ms,
        content=content if any(block.type != "text" for block in content) else None,
        structured_content=structured,
        truncated=is_cut or is_left_out or len(result.content) > BLOCKS or None,
    )


def _as_text(block: "ContentBlock") -> str:
    """How the model reads it: media by name and size, since their bytes are no text."""
    from mcp_types import TextResourceContents

    match block.type:
        case "text":
            return block.text
        case "resource_link":
            return f"[link: {cut(block.name, FIELD_BYTES)}: {cut(block.uri, FIELD_BYTES)}]"
        case "resource" if isinstance(block.resource, TextResourceContents):
            return block.resource.text
        case _:
            media = _media(block)
            return f"[{media.type}: {media.mime}, {media.bytes} bytes]"


def _content(blocks: Sequence["ContentBlock"]) -> tuple[ToolContent, ...]:
    room = RESULT_BYTES
    content: list[ToolContent] = []
    for block in blocks:
        match block.type:
            case "text":
                text = cut(block.text, room)
                room -= len(text.encode())
                content.append(TextContent(text=text))
            case "resource_link":
                content.append(
                    LinkContent(uri=cut(block.uri, FIELD_BYTES), name=cut(block.name, FIELD_BYTES))
                )
            case _:
                content.append(_media(block))
    return tuple(content)


def _media(block: "ContentBlock") -> MediaContent:
    from mcp_types import TextResourceContents

    match block.type:
        case "image" | "audio":
            return MediaContent(
                type=block.type,
                mime=cut(block.mime_type, FIELD_BYTES),
                bytes=_decoded_bytes(block.data),
            )
        case "resource":
            resource = block.resource
            mime = cut(resource.mime_type or "application/octet-stream", FIELD_BYTES)
            if isinstance(resource, TextResourceContents):
                return MediaContent(type="file", mime=mime, bytes=len(resource.text.encode()))
            return MediaContent(type="file", mime=mime, bytes=_decoded_bytes(resource.blob))
        case _:
            raise AssertionError(block.type)


async def _with_media(
    part: ToolResultPart, blocks: Sequence["ContentBlock"], save: Save
) -> ToolResultPart:
    """The part with the ids under which the bytes of its media are kept."""
    if part.content is None:
        return part
    content = tuple(
        [
            await _saved(shown, block, save) if isinstance(shown, MediaContent) else shown
            for shown, block in zip(part.content, blocks, strict=False)
        ]
    )
    return part.model_copy(update={"content": content})


async def _saved(media: MediaContent, block: "ContentBlock", save: Save) -> MediaContent:
    """Without an id where the bytes cannot be kept: the result is good without them."""
    base64 = _base64(block)
    if base64 is None:
        return media
    try:
        data = await run_in_thread(partial(a2b_base64, base64), "base64")
        attachment_id = await save(Attachment(media.mime, data))
    except (ValueError, RequestError, StorageError) as error:
        log.warning("media_not_kept", reason=type(error).__name__, bytes=media.bytes)
        return media
    return media.model_copy(update={"attachment_id": attachment_id})


def _base64(block: "ContentBlock") -> str | None:
    from mcp_types import BlobResourceContents

    match block.type:
        case "image" | "audio":
            return block.data
        case "resource" if isinstance(block.resource, BlobResourceContents):
            return block.resource.blob
        case _:
            return None


def _decoded_bytes(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


def _structured(value: JsonValue) -> tuple[JsonValue, bool]:
    """The value, or None and True when it is larger than a result may be."""
    return (value, False) if fits(value, RESULT_BYTES) else (None, True)


# ---- arguments ------------------------------------------------------------------------------

"""Files over HTTP: in, however large they may be, and out, so that nothing in them can run.

Bodies are streamed past the limit that all other requests have, to the limit of an attachment.
"""

from collections.abc import AsyncIterator

from aiohttp import hdrs, web

from sidecar.chat.base import Attachments
from sidecar.errors import AttachmentTooLarge, BadRequest
from sidecar.protocol.base import ATTACHMENT_BYTES, IMPORT_BYTES
from sidecar.protocol.chat import AttachmentsCreateResult

PATH = "/api/attachments"
PIECE_BYTES = 64 * 1024
MAX_NAME = 256
SAFE = {  # for whoever opens the address itself: a download, and a page that may do nothing
    hdrs.CONTENT_DISPOSITION: "attachment",
    hdrs.CONTENT_SECURITY_POLICY: "default-src 'none'; sandbox",
}


class AttachmentRoutes:
    """The gate has let these requests pass."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    async def receive(self, request: web.Request) -> web.Response:
        """`POST ?name=…` with the file as the body, whatever its Content-Type says.

        With `for=import` it may be as large as an import.
        """
        limit = IMPORT_BYTES if request.query.get("for") == "import" else ATTACHMENT_BYTES
        if request.content_type.startswith("multipart/"):
            raise BadRequest("Send the file itself as the body, and not a form.")
        if (request.content_length or 0) > limit:
            most = limit // 2**20
            raise AttachmentTooLarge(f"An attachment has at most {most} MiB; send a smaller one.")
        name = request.query.get("name") or None
        if name is not None and len(name) > MAX_NAME:
            raise BadRequest(f"A name has at most {MAX_NAME} characters.")
        kept = await self._attachments.receive(_pieces(request), name, max_bytes=limit)
        result = AttachmentsCreateResult(
            attachment_id=kept.attachment_id, bytes=kept.bytes, mime=kept.mime
        )
        return web.json_response(result.model_dump())

    async def give(self, request: web.Request) -> web.StreamResponse:
        attachment = await self._attachments.load(request.match_info["attachment_id"])
        response = web.StreamResponse(headers=SAFE)
        response.content_type = attachment.mime
        if attachment.mime == "text/plain" and not attachment.data.startswith((b"\xff", b"\xfe")):
            response.charset = "utf-8"
        response.content_length = len(attachment.data)
        await response.prepare(request)
        view = memoryview(attachment.data)
        for start in range(0, len(view), PIECE_BYTES):
            await response.write(view[start : start + PIECE_BYTES])
        await response.write_eof()
        return response


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_any():
        yield piece

"""What a file is, seen from its bytes. A name or a header says only what somebody takes it for."""

import codecs
import re

PNG, JPEG, GIF, WEBP = "image/png", "image/jpeg", "image/gif", "image/webp"
PDF = "application/pdf"
TEXT = "text/plain"
UNKNOWN = "application/octet-stream"

_PDF_WITHIN = 1024  # bytes of anything before its mark, as every reader of PDFs allows
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,62}/[a-z0-9][a-z0-9.+_-]{0,62}")


def sniff(data: bytes, said: str | None = None) -> str:
    """The media type of all these bytes.

    `said` is the word of whoever made them, and stands only where the bytes themselves say nothing
    and it is the word for a kind that nobody reads as text.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WEBP
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return PDF
    if decoded(data) is not None:
        return TEXT
    if said is not None and _MEDIA_TYPE.fullmatch(said) and not said.startswith("text/"):
        return said
    return UNKNOWN


def decoded(data: bytes) -> str | None:
    """The text of UTF-8, or of UTF-16 with its mark; None for what is no text."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text

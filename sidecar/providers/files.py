"""A conversation's files as a format takes them: images scaled down, documents as text.

Everything that decodes runs in a thread and is imported there. What came out is remembered, since
each step of a turn sends it again. A file that cannot be read is a text that says so: what was
attached once must not stop a conversation for ever.
"""

import asyncio
import logging
import warnings
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from sidecar.messages import Attachment, FilePart, ImagePart
from sidecar.providers.base import ModelRequest, Notice
from sidecar.providers.dialects.base import Extracted, Files, Fitted, Native, Takes
from sidecar.threads import load_modules, run_in_thread

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_MODULES = (
    "PIL.Image",
    "PIL.ImageOps",
    *(f"PIL.{kind}ImagePlugin" for kind in ("Png", "Jpeg", "Gif", "WebP")),
)
PDF_MODULES = ("pypdf",)
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
PIXELS = 80_000_000  # a quarter of a gigabyte once decoded; cameras make 50 million
TEXT_CHARS = 400_000  # a hundred thousand tokens, or a book
PDF_PAGES = 500
PDF_S = 20.0  # a page of text takes 50 ms
FILE_S = 45.0  # then nobody waits for it any more
REMEMBERED_BYTES = 64 * 1024 * 1024
SMALLEST_SIDE = 64
SHRINK = 0.75
JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What stands for a file, and what the person should know of that."""

    fitted: Fitted
    notice: Notice | None = None

    @property
    def size(self) -> int:
        return len(self.fitted.data if isinstance(self.fitted, Native) else self.fitted.text)


_Part: TypeAlias = ImagePart | FilePart
_Key: TypeAlias = tuple[str, str]  # attachment_id and name


class Fitting:
    """Fits the files of requests to one format."""

    def __init__(self, takes: Takes) -> None:
        self._takes = takes
        self._known: dict[_Key, _Outcome] = {}  # the one used last comes last

    async def fit(
        self, request: ModelRequest, *, can_see: bool
    ) -> tuple[Files, tuple[Notice, ...]]:
        """Something for every file that the history shows or a tool's result holds.

        With `can_see` False, images are left out, and said to be. So are the oldest files of more
        than a request may have.
        """
        room = self._takes.together_chars
        files: dict[str, Fitted] = {}
        notices: list[Notice] = []
        for part, is_shown in _parts(request):
            if part.attachment_id in files:
                continue
            attachment = request.attachments.get(part.attachment_id)
            if part.type == "image" and not can_see:
                outcome = _left_out(part)
            elif attachment is None:
                outcome = _lost(part)
            else:
                outcome = await self._outcome(part, attachment)
            if room is not None and isinstance(outcome.fitted, Native):
                if outcome.size > room:
                    outcome = _too_much(part)
                else:
                    room -= outcome.size
            files[part.attachment_id] = outcome.fitted
            if outcome.notice is not None and is_shown:
                notices.append(outcome.notice)
        return files, tuple(notices)

    async def _outcome(self, part: _Part, attachment: Attachment) -> _Outcome:
        key = (part.attachment_id, _name(part))
        outcome = self._known.pop(key, None)
        if outcome is None:
            try:
                async with asyncio.timeout(FILE_S):
                    outcome = await _convert(part, attachment, self._takes)
            except TimeoutError:
                outcome = _unreadable(part, f"it could not be read within {FILE_S:g} s")
        self._known[key] = outcome
        while sum(known.size for known in self._known.values()) > REMEMBERED_BYTES:
            del self._known[next(iter(self._known))]
        return outcome


def shows_image(request: ModelRequest) -> bool:
    """Whether the person's newest message has an image: then the question is about it."""
    newest = next((each for each in reversed(request.history) if each.role == "user"), None)
    return newest is not None and any(part.type == "image" for part in newest.parts)


def _parts(request: ModelRequest) -> Iterator[tuple[_Part, bool]]:
    """Newest first, so that a file has its newest name; and whether a person attached it."""
    for message in reversed(request.history):
        for part in message.attached:
            yield part, message.role == "user"


async def _convert(part: _Part, attachment: Attachment, takes: Takes) -> _Outcome:
    if attachment.mime.startswith("image/"):
        await load_modules(*IMAGE_MODULES)
        return await run_in_thread(partial(_image, part, attachment, takes), "image")
    if attachment.mime != "application/pdf":
        return await run_in_thread(partial(_text, part, attachment.data), "text")
    if len(attachment.data) <= takes.pdf_bytes:
        return await run_in_thread(partial(_as_it_is, part, attachment), "base64")
    await load_modules(*PDF_MODULES)
    return await run_in_thread(partial(_pdf, part, attachment.data), "pdf")


def _as_it_is(part: _Part, attachment: Attachment) -> _Outcome:
    return _Outcome(_native(attachment.mime, attachment.data, part))


def _native(mime: str, data: bytes, part: _Part) -> Native:
    return Native(mime, b64encode(data).decode("ascii"), part.name)


# ---- images ---------------------------------------------------------------------------------


def _image(part: _Part, attachment: Attachment, takes: Takes) -> _Outcome:
    """As it is where that is taken; else its first frame, upright, within the limits."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # from PIXELS on, not twice that
    try:
        with Image.open(BytesIO(attachment.data), formats=FORMATS) as image:
            is_small = max(image.size) <= takes.image_side
            if (
                is_small
                and attachment.mime in takes.image_types
                and len(attachment.data) <= takes.image_bytes
            ):
                image.load()  # one that was cut would be refused, in every later turn too
                return _as_it_is(part, attachment)
            made = _scaled(image, takes)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _unreadable(part, f"it has more than {PIXELS // 1_000_000} million pixels")
    except UnidentifiedImageError:
        return _unreadable(part, "it is no image that can be read")
    except Exception as error:  # whatever a decoder makes of a broken file
        return _unreadable(part, f"the image is broken ({type(error).__name__})")
    if made is None:
        return _unreadable(part, "no image of this kind is taken here")
    return _Outcome(_native(*made, part))


def _scaled(image: "Image", takes: Takes) -> tuple[str, bytes] | None:
    """A media type that is taken, and the image in it; None when none is."""
    from PIL import Image, ImageOps

    is_photo = image.format == "JPEG"
    if is_photo:
        image.draft(None, (takes.image_side, takes.image_side))  # decodes an eighth, if that does
    image = _plain(ImageOps.exif_transpose(image))
    side = float(takes.image_side)
    best: tuple[str, bytes] | None = None
    while side >= SMALLEST_SIDE:
        image.thumbnail((int(side), int(side)), Image.Resampling.LANCZOS)
        for mime, format, options in _targets(image, is_photo=is_photo):
            if mime not in takes.image_types:
                continue
            target = BytesIO()
            image.save(target, format, **options)
            best = mime, target.getvalue()
            if len(best[1]) <= takes.image_bytes:
                return best
        if best is None:
            return None
        side = max(image.size) * SHRINK
    return best


def _plain(image: "Image") -> "Image":
    """In a mode that every target can hold; alpha stays where there is one."""
    has_alpha = image.has_transparency_data
    return image.convert("RGBA" if has_alpha else "L" if image.mode in ("1", "L") else "RGB")


def _targets(image: "Image", *, is_photo: bool) -> Iterator[tuple[str, str, dict[str, int]]]:
    """What keeps most of it comes first."""
    png = ("image/png", "PNG", dict[str, int]())
    jpeg = ("image/jpeg", "JPEG", {"quality": JPEG_QUALITY})
    webp = ("image/webp", "WEBP", {"quality": JPEG_QUALITY})
    if image.mode == "RGBA":
        yield from (png, webp)
    elif is_photo:
        yield from (jpeg, webp, png)
    else:
        yield from (png, jpeg, webp)


# ---- text -----------------------------------------------------------------------------------


def _text(part: _Part, data: bytes) -> _Outcome:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return _unreadable(part, f"a model cannot be shown {part.mime}")
    return _as_text(part, f"[File: {_name(part)}]", text, "")


def _pdf(part: _Part, data: bytes) -> _Outcome:
    """The text of its pages, as far as there is time and room for them."""
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells every flaw of every file
    started = monotonic()
    texts: list[str] = []
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return _unreadable(part, "the PDF is encrypted")
        count, room = len(reader.pages), TEXT_CHARS
        for page in reader.pages[:PDF_PAGES]:
            if room < 0 or monotonic() - started > PDF_S:
                break
            texts.append(page.extract_text())
            room -= len(texts[-1])
    except Exception as error:  # a broken PDF makes anything of its reader
        if not texts:
            return _unreadable(part, f"the PDF cannot be read ({type(error).__name__})")
        count = max(count, len(texts) + 1)
    text = "\n\n".join(texts).strip()
    if not text:
        return _unreadable(part, "the PDF has no text; its pages are pictures")
    read = "page" if count == 1 else f"{count} pages"
    if len(texts) < count:
        read = f"pages 1–{len(texts)} of {count}"
    return _as_text(part, f"[File: {_name(part)}, the text of its {read}]", text, "PDF")


def _as_text(part: _Part, header: str, text: str, kind: str) -> _Outcome:
    left_out = len(text) - TEXT_CHARS
    if left_out > 0:
        text = f"{text[:TEXT_CHARS]}\n[… {left_out} more characters were left out]"
    text = text.encode(errors="replace").decode()  # half a surrogate pair is no JSON
    how = "without its pictures and layout" if kind == "PDF" else "as it is"
    cut = "; it was too long and is cut" if left_out > 0 else ""
    notice = f"{_name(part)} was given to the model as text, {how}{cut}."
    return _Outcome(Extracted(f"{header}\n{text}", part.name), Notice("attachment_as_text", notice))


def _unreadable(part: _Part, why: str) -> _Outcome:
    text = f"{_name(part)} could not be given to the model: {why}."
    return _Outcome(Extracted(f"[{text}]", part.name), Notice("attachment_as_text", text))


def _left_out(part: _Part) -> _Outcome:
    text = f"{_name(part)} was left out, since the model cannot see images."
    return _Outcome(Extracted(f"[{text}]", part.name), Notice("image_left_out", text))


def _too_much(part: _Part) -> _Outcome:
    text = (
        f"{_name(part)} was left out, since the vendor takes no request as large as all files of "
        "this conversation together."
    )
    return _Outcome(Extracted(f"[{text}]", part.name), Notice("attachment_left_out", text))


def _lost(part: _Part) -> _Outcome:
    text = f"{_name(part)} is not there any more, and was not given to the model."
    return _Outcome(Extracted(f"[{text}]", part.name), Notice("attachment_lost", text))


def _name(part: _Part) -> str:
    """On one line: it stands in a header that the model reads."""
    words = " ".join((part.name or "").split())
    return words or ("An image" if part.type == "image" else "A file")

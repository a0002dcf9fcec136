"""Files fitted to what a format takes: images, PDFs, text, and what cannot be read."""

from base64 import b64decode
from contextlib import aclosing
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageDraw
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from sidecar.messages import (
    Attachment,
    FilePart,
    ImagePart,
    MediaContent,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from sidecar.providers import files as module
from sidecar.providers.base import ModelRequest, Notice
from sidecar.providers.dialects.base import Extracted, Fitted, Native, Takes
from sidecar.providers.files import Fitting, shows_image
from tests.providers.conftest import Open, message
from tests.support.fake_openai import FakeOpenAI
from tests.support.hosts import loop_watch

TAKES = Takes(image_side=100, image_bytes=50_000)


def picture(mode: str, size: tuple[int, int], format: str, **options: Any) -> bytes:
    target = BytesIO()
    image = Image.effect_noise(size, 64).convert(mode)
    image.save(target, format, **options)
    return target.getvalue()


def pdf(*texts: str) -> bytes:
    writer = PdfWriter()
    for text in texts:
        page = writer.add_blank_page(200, 200)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 10 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = content
    target = BytesIO()
    writer.write(target)
    return target.getvalue()


def asking(*shown: tuple[Part, Attachment | None]) -> ModelRequest:
    attachments = {
        part.attachment_id: attachment
        for part, attachment in shown
        if isinstance(part, ImagePart | FilePart) and attachment is not None
    }
    parts = [part for part, _ in shown]
    return ModelRequest("m", [message("user", *parts)], attachments=attachments)


async def fitted(
    data: bytes, mime: str, name: str | None = "it", takes: Takes = TAKES
) -> tuple[Fitted, tuple[Notice, ...]]:
    kind = ImagePart if mime.startswith("image/") else FilePart
    part = kind(attachment_id="a", mime=mime, name=name)
    request = asking((part, Attachment(mime, data)))
    files, notices = await Fitting(takes).fit(request, can_see=True)
    return files["a"], notices


async def image(data: bytes, mime: str, takes: Takes = TAKES) -> tuple[str, "Image.Image"]:
    file, notices = await fitted(data, mime, takes=takes)
    assert isinstance(file, Native), file
    assert notices == ()
    return file.mime, Image.open(BytesIO(b64decode(file.data)))


async def text(data: bytes, mime: str, name: str | None = "it", takes: Takes = TAKES) -> str:
    file, notices = await fitted(data, mime, name, takes)
    assert isinstance(file, Extracted), file
    assert [notice.code for notice in notices] == ["attachment_as_text"]
    return file.text


async def test_an_image_within_the_limits_is_sent_as_it_is() -> None:
    data = picture("RGB", (80, 60), "JPEG")

    file, notices = await fitted(data, "image/jpeg")

    assert isinstance(file, Native)
    assert (file.mime, b64decode(file.data), notices) == ("image/jpeg", data, ())


async def test_a_large_image_is_scaled_to_the_side_that_is_taken() -> None:
    mime, made = await image(picture("RGB", (400, 200), "JPEG"), "image/jpeg")

    assert (mime, made.format, made.size) == ("image/jpeg", "JPEG", (100, 50))


async def test_an_image_of_too_many_bytes_is_made_to_fit() -> None:
    takes = Takes(image_side=500, image_bytes=20_000)
    file, _ = await fitted(picture("RGBA", (400, 400), "PNG"), "image/png", takes=takes)

    assert isinstance(file, Native)
    assert len(b64decode(file.data)) <= 20_000


async def test_an_image_keeps_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    data = picture("RGB", (400, 200), "JPEG", exif=exif)

    _, made = await image(data, "image/jpeg")

    assert made.size == (50, 100)
    assert 0x0112 not in made.getexif()


async def test_an_image_keeps_its_alpha() -> None:
    seen = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    ImageDraw.Draw(seen).rectangle((0, 0, 200, 400), fill=(255, 0, 0, 255))
    target = BytesIO()
    seen.save(target, "PNG")

    mime, made = await image(target.getvalue(), "image/png")

    assert (mime, made.mode) == ("image/png", "RGBA")
    assert made.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
async def test_a_png_of_any_mode_can_be_scaled(mode: str) -> None:
    _, made = await image(picture(mode, (300, 300), "PNG"), "image/png")

    assert made.size == (100, 100)


async def test_a_cmyk_photo_is_made_rgb() -> None:
    _, made = await image(picture("CMYK", (300, 300), "JPEG"), "image/jpeg")

    assert made.mode == "RGB"


def animation(size: int) -> bytes:
    frames = [Image.new("RGB", (size, size), colour) for colour in ("red", "blue")]
    target = BytesIO()
    frames[0].save(target, "GIF", save_all=True, append_images=frames[1:])
    return target.getvalue()


async def test_an_animation_stays_one_where_it_is_taken() -> None:
    _, made = await image(animation(50), "image/gif")

    assert getattr(made, "n_frames", 1) == 2


async def test_an_animation_that_must_be_made_anew_is_its_first_frame() -> None:
    mime, made = await image(animation(300), "image/gif")

    assert (mime, made.format, made.size) == ("image/png", "PNG", (100, 100))
    assert made.convert("RGB").getpixel((50, 50)) == (255, 0, 0)


async def test_a_type_that_is_not_taken_becomes_one_that_is() -> None:
    takes = Takes(image_types=frozenset(("image/jpeg",)), image_side=100)

    mime, made = await image(picture("RGB", (50, 50), "WEBP"), "image/webp", takes)

    assert (mime, made.format, made.size) == ("image/jpeg", "JPEG", (50, 50))


async def test_a_decompression_bomb_is_refused_unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIXELS", 1000)

    words = await text(picture("L", (200, 200), "PNG"), "image/png")

    assert "million pixels" in words


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        picture("RGB", (300, 300), "PNG")[:5000],
        picture("RGB", (80, 60), "PNG")[:5000],
        picture("RGB", (80, 60), "JPEG")[:1000],
    ],
    ids=["no head", "no jpeg", "cut", "small and cut", "small jpeg, cut"],
)
async def test_an_image_that_is_broken_is_a_text_that_says_so(data: bytes) -> None:
    mime = "image/jpeg" if data.startswith(b"\xff") else "image/png"

    words = await text(data, mime, "cat.png")

    assert "cat.png could not be given to the model" in words


async def test_a_pdf_is_sent_as_it_is_where_it_is_taken() -> None:
    data = pdf("Hello")

    file, notices = await fitted(data, "application/pdf", takes=Takes(pdf_bytes=len(data)))

    assert isinstance(file, Native)
    assert (b64decode(file.data), notices) == (data, ())


async def test_a_pdf_that_is_not_taken_is_its_text() -> None:
    words = await text(pdf("Hello", "World"), "application/pdf", "two.pdf")

    assert words.splitlines() == [
        "[File: two.pdf, the text of its 2 pages]",
        "Hello",
        "",
        "World",
    ]


async def test_a_pdf_larger_than_taken_is_its_text() -> None:
    data = pdf("Hello")

    assert "Hello" in await text(data, "application/pdf", takes=Takes(pdf_bytes=len(data) - 1))


async def test_a_long_pdf_is_read_in_part_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PDF_PAGES", 2)

    words = await text(pdf("One", "Two", "Three"), "application/pdf")

    assert "pages 1–2 of 3" in words
    assert "Three" not in words


async def test_an_encrypted_pdf_says_so() -> None:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdf("Secret"))))
    writer.encrypt("password", algorithm="RC4-128")
    target = BytesIO()
    writer.write(target)

    words = await text(target.getvalue(), "application/pdf", "secret.pdf")

    assert "secret.pdf could not be given to the model: the PDF is encrypted" in words


async def test_a_pdf_without_text_says_so() -> None:
    assert "no text" in await text(pdf(""), "application/pdf")


async def test_a_pdf_that_is_broken_says_so() -> None:
    assert "cannot be read" in await text(b"%PDF-1.7 and nothing more", "application/pdf")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_a_text_is_named_and_given_as_it_is(encoding: str) -> None:
    words = await text("größe,1\n".encode(encoding), "text/plain", "sizes.csv")

    assert words == "[File: sizes.csv]\ngröße,1\n"


async def test_a_long_text_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXT_CHARS", 10)

    words = await text(b"0123456789abc", "text/plain")

    assert words.endswith("0123456789\n[… 3 more characters were left out]")


async def test_a_file_that_is_no_text_says_so() -> None:
    assert "cannot be shown audio/wav" in await text(b"RIFF\xff\xff", "audio/wav")


async def test_a_name_cannot_begin_a_line_of_its_own() -> None:
    words = await text(b"x", "text/plain", "a\n[File: b]")

    assert words.splitlines() == ["[File: a [File: b]]", "x"]


async def test_a_file_that_is_lost_is_a_text_that_says_so() -> None:
    part = ImagePart(attachment_id="gone", mime="image/png", name="cat.png")

    files, [notice] = await Fitting(TAKES).fit(asking((part, None)), can_see=True)

    assert isinstance(files["gone"], Extracted)
    assert "cat.png is not there any more" in files["gone"].text
    assert notice.code == "attachment_lost"


async def test_a_model_that_cannot_see_is_told_of_an_image_and_not_shown_it() -> None:
    part = ImagePart(attachment_id="a", mime="image/png", name="cat.png")
    seen = Attachment("image/png", picture("RGB", (10, 10), "PNG"))

    files, [notice] = await Fitting(TAKES).fit(asking((part, seen)), can_see=False)

    assert isinstance(files["a"], Extracted)
    assert "cat.png was left out" in files["a"].text
    assert notice.code == "image_left_out"


async def test_the_oldest_files_of_more_than_a_request_may_have_are_left_out_and_said_to_be() -> (
    None
):
    data = picture("RGB", (80, 60), "JPEG")
    takes = Takes(image_side=100, together_chars=2 * 4 * len(data) // 3 + 8)
    old, mid, new = (
        ImagePart(attachment_id=name, mime="image/jpeg", name=name)
        for name in ("old", "mid", "new")
    )
    request = ModelRequest(
        "m",
        [message("user", old), message("user", mid), message("user", new)],
        attachments={
            part.attachment_id: Attachment("image/jpeg", data) for part in (old, mid, new)
        },
    )

    files, notices = await Fitting(takes).fit(request, can_see=True)

    assert [isinstance(files[name], Native) for name in ("old", "mid", "new")] == [
        False,
        True,
        True,
    ]
    assert [notice.code for notice in notices] == ["attachment_left_out"]
    assert notices[0].text.startswith("old was left out")


async def test_images_of_tool_results_are_fitted_without_a_notice() -> None:
    media = MediaContent(type="image", mime="image/png", bytes=1, attachment_id="a")
    answered = message(
        "assistant",
        ToolCallPart(tool_call_id="1", server="s", name="n", offered_as="n", arguments={}),
        ToolResultPart(tool_call_id="1", status="ok", text="", duration_ms=1, content=(media,)),
    )
    attachments = {"a": Attachment("image/png", picture("RGB", (300, 300), "PNG"))}
    request = ModelRequest("m", [answered], attachments=attachments)

    files, notices = await Fitting(TAKES).fit(request, can_see=True)
    blind, none = await Fitting(TAKES).fit(request, can_see=False)

    assert isinstance(files["a"], Native)
    assert isinstance(blind["a"], Extracted)
    assert notices == none == ()


async def test_what_was_made_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    part = ImagePart(attachment_id="a", mime="image/png")
    request = asking((part, Attachment("image/png", picture("RGB", (300, 300), "PNG"))))
    fitting = Fitting(TAKES)
    first, _ = await fitting.fit(request, can_see=True)

    again, _ = await fitting.fit(request, can_see=True)

    assert again["a"] is first["a"]


async def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 30)
    fitting = Fitting(TAKES)
    for name in ("a", "b"):
        part = FilePart(attachment_id=name, mime="text/plain", name=name)
        await fitting.fit(asking((part, Attachment("text/plain", b"x" * 10))), can_see=True)

    assert [key[0] for key in fitting._known] == ["b"]


async def test_decoding_never_holds_up_the_loop() -> None:
    takes = Takes(image_side=1500)
    data = picture("RGB", (4000, 3000), "JPEG")
    async with loop_watch() as worst_s:
        file, _ = await fitted(data, "image/jpeg", takes=takes)

    assert isinstance(file, Native)
    assert worst_s() < 0.2  # alone it is 10 ms; it takes half a second to decode


def test_only_the_newest_question_is_about_an_image() -> None:
    shown = message("user", ImagePart(attachment_id="a", mime="image/png"))
    later = message("user", TextPart(text="And now?"))

    assert shows_image(ModelRequest("m", [shown, message("assistant", TextPart(text="A cat"))]))
    assert not shows_image(ModelRequest("m", [shown, later]))


async def test_a_request_with_images_of_some_megabytes_arrives_whole(
    open_it: Open, upstream: FakeOpenAI
) -> None:
    data = picture("RGB", (1500, 1500), "JPEG", quality=98)
    part = ImagePart(attachment_id="a", mime="image/jpeg")

    async with aclosing(open_it().stream(asking((part, Attachment("image/jpeg", data))))) as events:
        assert [event async for event in events]

    [message] = upstream.bodies[0]["messages"]
    url = message["content"][0]["image_url"]["url"]
    assert len(data) > 2**20
    assert b64decode(url.partition(",")[2]) == data
    assert "content-length" in upstream.requests[0].headers

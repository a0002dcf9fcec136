"""Files in a chat: sent, shown to the model as it takes them, made by it, and read again."""

import asyncio
import contextlib
import json
import tempfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from sidecar.app import App
from sidecar.client import Client, ServerError, connect
from sidecar.messages import JsonObject
from sidecar.protocol.approvals import ApprovalsPending, ApprovalsResolve, ApprovalsResolvePayload
from sidecar.protocol.base import ATTACHMENT_BYTES
from sidecar.protocol.chat import (
    AttachmentsCreate,
    AttachmentsCreatePayload,
    AttachmentsCreateResult,
)
from sidecar.protocol.chunks import NoticeChunk, ToolResultChunk
from sidecar.protocol.providers import ModelsList
from tests.behaviour.conftest import PLAIN_SERVER, Join, Start
from tests.providers.test_files import pdf, picture
from tests.support.fake_openai import FakeOpenAI, status, text, tool_calls
from tests.support.hosts import loop_watch
from tests.support.world import running, world

SMALL = picture("RGB", (20, 10), "PNG")
LARGE = picture("L", (4000, 1000), "PNG")
CANNOT_SEE = "Invalid content type. image_url is only supported by certain models."


@pytest.fixture
async def app(start: Start) -> App:
    return await start()


@pytest.fixture
async def client(app: App, join: Join) -> Client:
    return await join(app)


@pytest.fixture
async def web(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {app.token}"}
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(base_url=app.http, headers=headers) as session,
    ):
        yield session


def attached(attachment_id: str, **fields: str) -> JsonObject:
    return {"type": "attachment", "attachment_id": attachment_id, **fields}


def said(words: str) -> JsonObject:
    return {"type": "text", "text": words}


async def created(client: Client, data: bytes, name: str | None = None) -> AttachmentsCreateResult:
    payload = AttachmentsCreatePayload(name=name, data_b64=b64encode(data).decode())
    return await client.request(AttachmentsCreate, payload)


async def notices(client: Client, *parts: JsonObject, **fields: Any) -> list[NoticeChunk]:
    run = await client.chat(parts=list(parts), **fields)
    await run.finished()
    return [chunk async for chunk in run if isinstance(chunk, NoticeChunk)]


async def code_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    refusal = await response.json()
    assert refusal.keys() == {"error", "error_info"}
    return response.status, refusal["error_info"]["code"]


def image_in(content: Any) -> Image.Image:
    """The one image of a message as OpenAI's format has it."""
    [block] = [block for block in content if block["type"] == "image_url"]
    head, _, data = block["image_url"]["url"].partition(",")
    made = Image.open(BytesIO(b64decode(data)))
    assert head == f"data:{Image.MIME[made.format or '']};base64"
    return made


async def test_an_image_sent_over_the_socket_reaches_the_model(
    client: Client, upstream: FakeOpenAI
) -> None:
    image = await created(client, SMALL, "cat.png")

    told = await notices(client, said("What is this?"), attached(image.attachment_id))

    [message] = upstream.bodies[0]["messages"][-1:]
    assert (image.mime, image.bytes, told) == ("image/png", len(SMALL), [])
    assert message["content"][0] == {"type": "text", "text": "What is this?"}
    assert image_in(message["content"]).size == (20, 10)


async def test_an_image_sent_over_http_is_scaled_to_what_the_vendor_takes(
    web: aiohttp.ClientSession, client: Client, upstream: FakeOpenAI
) -> None:
    async with web.post(
        "/api/attachments", params={"name": "x.png"}, data=BytesIO(LARGE)
    ) as response:
        image = await response.json()

    await notices(client, attached(image["attachment_id"]))

    assert image["mime"] == "image/png"
    assert image_in(upstream.bodies[0]["messages"][-1]["content"]).size == (2048, 512)


async def test_an_image_is_sent_again_with_every_later_question(
    client: Client, upstream: FakeOpenAI
) -> None:
    image = await created(client, SMALL)
    run = await client.chat(parts=[attached(image.attachment_id)])
    conversation_id = (await run.finished()).conversation_id

    again = await client.chat("And now?", conversation_id=conversation_id)
    await again.finished()

    assert image_in(upstream.bodies[1]["messages"][1]["content"]).size == (20, 10)


async def test_a_pdf_is_given_as_text_and_the_person_is_told(
    client: Client, upstream: FakeOpenAI
) -> None:
    document = await created(client, pdf("Hello from the page"), "letter.pdf")

    [notice] = await notices(client, said("Sum it up."), attached(document.attachment_id))

    assert document.mime == "application/pdf"
    assert notice.metadata.code == "attachment_as_text"
    assert notice.data is not None
    assert "letter.pdf" in notice.data
    assert upstream.bodies[0]["messages"][-1]["content"] == (
        "Sum it up.\n\n[File: letter.pdf, the text of its page]\nHello from the page"
    )


async def test_a_part_may_give_a_file_another_name(client: Client, upstream: FakeOpenAI) -> None:
    notes = await created(client, b"a,b", "upload-1")

    await notices(client, attached(notes.attachment_id, name="table.csv"))

    assert upstream.bodies[0]["messages"][-1]["content"] == "[File: table.csv]\na,b"


async def test_the_message_that_is_stored_names_its_files(app: App, client: Client) -> None:
    image, notes = await created(client, SMALL, "cat.png"), await created(client, b"a,b", "t.csv")
    run = await client.chat(
        parts=[said("Look"), attached(image.attachment_id), attached(notes.attachment_id)]
    )
    outcome, begun = await run.finished(), await run.started()

    conversations = app.runs._conversations
    message = await conversations.message(outcome.conversation_id, begun.user_message_id)
    assert begun.user_message == "Look"
    assert [part.model_dump(exclude_none=True) for part in message.parts] == [
        {"type": "text", "text": "Look"},
        {
            "type": "image",
            "attachment_id": image.attachment_id,
            "mime": "image/png",
            "name": "cat.png",
        },
        {
            "type": "file",
            "attachment_id": notes.attachment_id,
            "mime": "text/plain",
            "name": "t.csv",
        },
    ]


async def test_an_unknown_attachment_is_refused_before_anything_begins(
    client: Client, upstream: FakeOpenAI
) -> None:
    run = await client.chat(parts=[said("Look"), attached("0" * 64)])

    with pytest.raises(ServerError) as caught:
        await run.finished()

    assert caught.value.code == "not_found"
    assert (run.frames, upstream.requests) == ([], [])


async def test_what_no_model_can_be_shown_is_refused(client: Client, upstream: FakeOpenAI) -> None:
    program = await created(client, b"\x7fELF\x00", "a.out")
    run = await client.chat(parts=[attached(program.attachment_id)])

    with pytest.raises(ServerError, match=r"a\.out") as caught:
        await run.finished()

    assert program.mime == "application/octet-stream"
    assert (caught.value.code, upstream.requests) == ("unsupported_media", [])


@pytest.mark.parametrize("data_b64", ["not base64!", "QUJD=QUJD", "QUI"])
async def test_what_is_not_base64_is_refused(client: Client, data_b64: str) -> None:
    with pytest.raises(ServerError) as caught:
        await client.request(AttachmentsCreate, AttachmentsCreatePayload(data_b64=data_b64))

    assert caught.value.code == "bad_request"


async def test_a_file_comes_back_as_a_download_in_which_nothing_can_run(
    web: aiohttp.ClientSession,
) -> None:
    page = b"<script>alert(document.domain)</script>"
    headers = {"Content-Type": "text/html"}
    async with web.post("/api/attachments", data=page, headers=headers) as response:
        kept = await response.json()

    async with web.get(f"/api/attachments/{kept['attachment_id']}") as response:
        body = await response.read()

    assert (response.status, body) == (200, page)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["Content-Disposition"] == "attachment"
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Length"] == str(len(page))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": "Bearer wrong"}, (401, "unauthorized")),
        ({"Authorization": ""}, (401, "unauthorized")),
        ({"Origin": "https://evil.example"}, (403, "origin_not_allowed")),
        ({"Host": "evil.example"}, (421, "bad_host")),
    ],
)
async def test_who_may_not_connect_may_neither_send_nor_read(
    web: aiohttp.ClientSession, client: Client, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    kept = await created(client, SMALL)

    async with web.post("/api/attachments", data=SMALL, headers=headers) as response:
        assert await code_of(response) == expected
    path = f"/api/attachments/{kept.attachment_id}"
    async with web.get(path, headers=headers) as response:
        assert await code_of(response) == expected


@pytest.mark.parametrize("path", ["0" * 64, "..%2f..%2frules.json", "%00"])
async def test_what_there_is_not_is_not_found(web: aiohttp.ClientSession, path: str) -> None:
    async with web.get(f"/api/attachments/{path}") as response:
        assert await code_of(response) == (404, "not_found")


async def test_a_file_of_the_largest_size_is_taken_and_one_byte_more_is_not(
    web: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def unannounced(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 2**20):
            yield b"x" * min(2**20, size - start)

    largest = unannounced(ATTACHMENT_BYTES)
    async with loop_watch() as worst_s, web.post("/api/attachments", data=largest) as response:
        taken = await response.json()
    async with web.post("/api/attachments", data=unannounced(ATTACHMENT_BYTES + 1)) as response:
        refused = await code_of(response)
    headers = {"Content-Length": str(ATTACHMENT_BYTES + 1)}
    body = unannounced(ATTACHMENT_BYTES + 1)
    with contextlib.suppress(aiohttp.ClientError):  # we are refused while we still write
        async with web.post("/api/attachments", data=body, headers=headers) as response:
            assert await code_of(response) == (413, "attachment_too_large")

    assert taken["bytes"] == ATTACHMENT_BYTES
    assert refused == (413, "attachment_too_large")
    assert len(list((tmp_path / "data" / "attachments").iterdir())) == 1
    assert worst_s() < 0.2


async def test_what_came_to_be_imported_cannot_be_shown_to_a_model_beyond_the_usual_size(
    web: aiohttp.ClientSession, client: Client, upstream: FakeOpenAI
) -> None:
    data = BytesIO(b"x" * (ATTACHMENT_BYTES + 1))
    async with web.post("/api/attachments?for=import&name=all.json", data=data) as response:
        taken = await response.json()
    run = await client.chat(parts=[attached(taken["attachment_id"])])

    with pytest.raises(ServerError, match=r"all\.json is larger than 25 MiB") as caught:
        await run.finished()

    assert (caught.value.code, upstream.requests) == ("attachment_too_large", [])


async def test_a_form_and_an_empty_body_are_refused(web: aiohttp.ClientSession) -> None:
    form = aiohttp.FormData()
    form.add_field("file", SMALL, filename="cat.png")
    for data in (form, b""):
        async with web.post("/api/attachments", data=data) as response:
            assert await code_of(response) == (400, "bad_request")


async def test_attachments_survive_a_restart(tmp_path: Path) -> None:
    async with running(world(tmp_path)) as app, connect(app.url, app.token) as client:
        attachment_id = await client.attach(SMALL, "cat.png")

    async with running(world(tmp_path)) as app, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {app.token}"}
        address = f"{app.http}/api/attachments/{attachment_id}"
        async with session.get(address, headers=headers) as response:
            assert await response.read() == SMALL
            assert response.content_type == "image/png"


@pytest.mark.parametrize(("settings", "demo"), [("", True), ("storage: {enabled: false}", False)])
async def test_where_nothing_is_to_be_kept_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, demo: bool
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    place = world(tmp_path, settings, demo=demo)
    async with running(place) as app, connect(app.url, app.token) as client:
        attachment_id = await client.attach(SMALL, "cat.png")
        assert [len(list(folder.iterdir())) for folder in temporary.iterdir()] == [1]

    assert attachment_id
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "data" / "attachments").exists()


async def test_a_file_that_is_lost_does_not_stop_the_conversation(
    client: Client, upstream: FakeOpenAI, tmp_path: Path
) -> None:
    image = await created(client, SMALL, "cat.png")
    run = await client.chat(parts=[attached(image.attachment_id)])
    conversation_id = (await run.finished()).conversation_id
    for file in (tmp_path / "data" / "attachments").iterdir():
        file.unlink()

    [notice] = await notices(client, said("And now?"), conversation_id=conversation_id)

    assert notice.metadata.code == "attachment_lost"
    assert "cat.png is not there any more" in upstream.bodies[1]["messages"][1]["content"]


async def test_a_model_that_refuses_images_is_a_code_of_its_own(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(status(400, CANNOT_SEE))
    image = await created(client, SMALL)
    run = await client.chat(parts=[attached(image.attachment_id)])

    with pytest.raises(ServerError, match="cannot see images") as caught:
        await run.finished()

    assert caught.value.code == "model_no_vision"


async def test_a_model_that_is_listed_as_blind_is_not_asked(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.models = [{"id": "test", "architecture": {"input_modalities": ["text"]}}]
    await client.request(ModelsList)
    image = await created(client, SMALL)
    run = await client.chat(parts=[attached(image.attachment_id)])

    with pytest.raises(ServerError) as caught:
        await run.finished()

    assert (caught.value.code, upstream.bodies) == ("model_no_vision", [])


async def test_old_images_do_not_stop_a_model_that_cannot_see(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(text("A cat."), status(400, CANNOT_SEE), text("Hello."))
    image = await created(client, SMALL, "cat.png")
    run = await client.chat(parts=[attached(image.attachment_id)])
    conversation_id = (await run.finished()).conversation_id

    [notice] = await notices(client, said("Hi"), conversation_id=conversation_id)
    await notices(client, said("Again"), conversation_id=conversation_id)

    assert notice.metadata.code == "image_left_out"
    assert len(upstream.bodies) == 4
    assert "cat.png was left out" in upstream.bodies[3]["messages"][1]["content"]


async def test_a_notice_does_not_forbid_another_attempt(
    client: Client, upstream: FakeOpenAI
) -> None:
    upstream.will(status(503, "busy", {"retry-after": "0"}), text("Read."))
    notes = await created(client, b"a,b", "t.csv")

    told = await notices(client, attached(notes.attachment_id))

    assert len(upstream.bodies) == 2
    assert [notice.metadata.code for notice in told] == ["attachment_as_text"]


async def test_an_image_that_a_tool_gave_is_shown_to_the_model(
    start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    client = await join(await start(PLAIN_SERVER), events=["*"], answers=["approvals"])
    call = ("plain__paint", {"data": b64encode(SMALL).decode()})
    upstream.will(tool_calls(call), text("A picture."))

    run = await client.chat("Paint")
    await allow(client)
    await run.finished()

    [result] = [chunk async for chunk in run if isinstance(chunk, ToolResultChunk)]
    [block] = result.metadata.content or ()
    messages = upstream.bodies[1]["messages"]
    assert block.type == "image"
    assert block.attachment_id is not None
    assert [message["role"] for message in messages[-3:]] == ["assistant", "tool", "user"]
    assert messages[-2]["content"] == f"[image: image/png, {len(SMALL)} bytes]"
    assert image_in(messages[-1]["content"]).size == (20, 10)


async def allow(client: Client) -> None:
    approval = (await client.event(ApprovalsPending)).data
    answer = ApprovalsResolvePayload(approval_id=approval.approval_id, decision="allow")
    await client.request(ApprovalsResolve, answer)


async def test_a_large_image_never_holds_up_the_loop(
    web: aiohttp.ClientSession, client: Client, upstream: FakeOpenAI
) -> None:
    photo = picture("RGB", (3000, 2200), "JPEG", quality=95)
    async with web.post("/api/attachments", data=BytesIO(photo)) as response:
        image = await response.json()

    async with loop_watch() as worst_s:
        await notices(client, attached(image["attachment_id"]))

    assert len(json.dumps(upstream.bodies[0])) > 2**20
    assert worst_s() < 0.3  # the fake vendor reads it on this loop too

"""Host, then Origin, then token: who is let in, who is not, and what they are told."""

import asyncio
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import aiohttp
import pytest
from aiohttp import WSMsgType

from sidecar import log
from sidecar.app import App
from sidecar.chat.approvals import Approvals
from sidecar.client import CannotConnect, Client, connect
from sidecar.credentials import Keyring
from sidecar.door_key import DoorKey
from sidecar.errors import ConfigInvalid
from sidecar.mcp_host.host import Host
from sidecar.mcp_host.vault import Vault
from sidecar.protocol.base import FRAME_BYTES_IN, Empty
from sidecar.protocol.mcp import McpServersList
from sidecar.protocol.program import Ping
from sidecar.protocol.requests import AnyRequest
from sidecar.server import page
from sidecar.server.attachments import AttachmentRoutes
from sidecar.server.auth import Gate
from sidecar.server.connection import Connection
from sidecar.server.events import Events
from sidecar.server.http import SOCKETS, WAITING, Server, bind
from sidecar.server.sessions import Sessions
from sidecar.store.attachments import Attachments
from sidecar.store.rules import Rules
from tests.support.hosts import DIRECT, no_secrets, nobody_answers
from tests.support.keyrings import MemoryKeyring
from tests.support.world import TOKEN, running, world

WRONG = "wr0ng-" + "y" * 40
BEARER = ("Authorization", f"Bearer {TOKEN}")
PAGE = {
    path: {"html": "text/html", "css": "text/css", "js": "text/javascript", "txt": "text/plain"}[
        file.suffix[1:]
    ]
    for path, file in page.files(page.folder()).items()
}
ROUTES = [
    *(*PAGE, "/healthz", "/readyz", "/nowhere"),
    *("/api/session", "/api/code", "/api/door-key", "/ws/chat", "/v1/models"),
]
UPGRADE = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)

Header = tuple[str, str]
Start = Callable[[str], Awaitable[App]]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Of a refusal, whose shape is checked on the way."""
        refusal = json.loads(self.body)
        assert refusal.keys() == {"error", "error_info"}
        assert refusal["error"]
        code: str = refusal["error_info"]["code"]
        return code


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with asyncio.timeout(30), AsyncExitStack() as stack:

        async def start(settings: str = "") -> App:
            return await stack.enter_async_context(running(world(tmp_path, settings)))

        yield start


@pytest.fixture
async def app(start: Start) -> App:
    return await start("")


async def ask(
    app: App,
    path: str = "/readyz",
    *more: Header,
    method: str = "GET",
    hosts: Iterable[str] | None = None,
) -> Reply:
    """One request over a connection of its own; `hosts` are the Host headers to send."""
    own = (f"127.0.0.1:{app.address[1]}",) if hosts is None else hosts
    headers = [*(("Host", host) for host in own), *more, ("Connection", "close")]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return await send(app, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())


async def send(app: App, request: bytes) -> Reply:
    reader, writer = await asyncio.open_connection(*app.address)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.splitlines()
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    finally:
        writer.close()
    return Reply(int(lines[0].split()[1]), headers, body)


def with_origin(origin: str) -> Header:
    return ("Origin", origin)


@asynccontextmanager
async def socket_of(app: App) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A bare WebSocket, for what the client would never do."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(app.url, headers=headers) as opened,
    ):
        yield opened


# ---- Host -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.com:{port}",
        "127.0.0.1.evil.com:{port}",
        "127.0.0.1:evil.com",
        "127.0.0.1:{port}.evil.com",
        "127.0.0.1:{other}",
        "127.0.0.1:",
        "127.0.0.1",
        "127.0.0.1.:{port}",
        "localhost.:{port}",
        "user@127.0.0.1:{port}",
        "127.0.0.2:{port}",
        "0.0.0.0:{port}",
        "[::1]evil.com:{port}",
        "[::1:{port}",
        "::1:{port}",
        "[::ffff:127.0.0.1]:{port}",
        "127.0.0.1:{port} ,evil.com",
        "127.0.0.1:+{port}",
        "127.0.0.1:0{port}0",
    ],
)
async def test_a_host_that_is_not_ours_is_refused_on_every_route(app: App, host: str) -> None:
    port = app.address[1]

    for path in ROUTES:
        reply = await ask(app, path, BEARER, hosts=[host.format(port=port, other=port ^ 1)])

        assert (reply.status, reply.code) == (421, "bad_host"), path


async def test_a_host_that_is_missing_empty_or_doubled_is_refused(app: App) -> None:
    ours = f"127.0.0.1:{app.address[1]}"

    missing, doubled = await ask(app, hosts=[]), await ask(app, hosts=[ours, ours])
    old_and_missing = await send(app, b"GET /readyz HTTP/1.0\r\n\r\n")
    empty = await ask(app, hosts=[""])

    for malformed in (missing, doubled):  # as HTTP/1.1 wants it
        assert (malformed.status, malformed.code) == (400, "bad_request")
    for reply in (old_and_missing, empty):
        assert (reply.status, reply.code) == (421, "bad_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "LOCALHOST"])
async def test_the_loopback_names_with_our_port_are_ours(app: App, host: str) -> None:
    assert (await ask(app, hosts=[f"{host}:{app.address[1]}"])).status == 200


async def test_a_host_that_the_settings_list_is_ours_in_any_case(start: Start) -> None:
    app = await start("server: {allowed_hosts: [My-Machine.local]}")

    assert (await ask(app, hosts=[f"my-machine.LOCAL:{app.address[1]}"])).status == 200
    assert (await ask(app, hosts=["my-machine.local:1"])).code == "bad_host"


# ---- Origin ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.com",
        "http://localhost:{port}",
        "http://[::1]:{port}",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:{other}",
        "http://127.0.0.1",
        "http://127.0.0.1:{port}.evil.com",
        "HTTP://127.0.0.1:{port}",
        "http://127.0.0.1:{port}/",
        "tauri://localhost.evil.com",
        "null",
        "file://",
        "*",
        "",
    ],
)
async def test_an_origin_that_is_not_listed_is_refused_on_every_route(
    app: App, origin: str
) -> None:
    port = app.address[1]

    for path in ROUTES:
        header = with_origin(origin.format(port=port, other=port ^ 1))
        reply = await ask(app, path, BEARER, header)

        assert (reply.status, reply.code) == (403, "origin_not_allowed"), path
        assert "access-control-allow-origin" not in reply.headers


async def test_our_own_address_and_tauris_are_allowed_and_told_so(app: App) -> None:
    for origin in (
        app.http,
        "tauri://localhost",
        "http://tauri.localhost",
        "https://tauri.localhost",
    ):
        reply = await ask(app, "/healthz", with_origin(origin))

        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == origin
        assert reply.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in reply.headers


async def test_origins_in_the_settings_are_allowed_to_the_letter(start: Start) -> None:
    app = await start("server: {allowed_origins: ['null', 'file://', 'http://localhost:5173']}")

    for origin in ("null", "file://", "http://localhost:5173"):
        assert (await ask(app, "/healthz", with_origin(origin))).status == 200
    assert (await ask(app, "/healthz", with_origin("http://localhost:5174"))).status == 403


async def test_an_origin_equal_to_a_rebound_host_is_refused_for_either(start: Start) -> None:
    app = await start("server: {allowed_hosts: [rebound.example]}")
    port = app.address[1]
    listed, other = f"rebound.example:{port}", f"evil.com:{port}"

    of_listed = await ask(app, "/", with_origin(f"http://{listed}"), hosts=[listed])
    of_other = await ask(app, "/", with_origin(f"http://{other}"), hosts=[other])

    assert of_listed.code == "origin_not_allowed"
    assert of_other.code == "bad_host"


async def test_two_origins_are_none_that_is_listed(app: App) -> None:
    reply = await ask(app, "/healthz", with_origin(app.http), with_origin("https://evil.com"))

    assert reply.code == "origin_not_allowed"


async def test_a_preflight_from_an_allowed_origin_is_answered_without_a_token(app: App) -> None:
    asked_for = ("Access-Control-Request-Headers", "authorization")
    for path in ROUTES:
        reply = await ask(app, path, with_origin("tauri://localhost"), asked_for, method="OPTIONS")

        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == "tauri://localhost"
        assert reply.headers["access-control-allow-headers"] == "authorization, content-type"
        assert reply.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in reply.headers


async def test_a_preflight_from_another_origin_is_refused(app: App) -> None:
    reply = await ask(app, "/readyz", with_origin("https://evil.com"), method="OPTIONS")

    assert (reply.status, reply.code) == (403, "origin_not_allowed")


# ---- Token ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/ws/chat"),
        ("GET", "/nowhere"),
        ("POST", "/"),
        ("POST", "/api/code"),
        ("GET", "/api/session"),
    ],
)
async def test_without_the_token_only_what_is_listed_is_open(
    app: App, method: str, path: str
) -> None:
    wrong = [f"Bearer {WRONG}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN]
    strange = ["Bearer", "Bearer \u00e9", "", f"Bearer {TOKEN},Bearer {TOKEN}"]
    headers = [[], *([("Authorization", value)] for value in wrong + strange)]

    replies = await asyncio.gather(*(ask(app, path, *more, method=method) for more in headers))

    for reply in replies:
        assert (reply.status, reply.code) == (401, "unauthorized")
        assert TOKEN.encode() not in reply.body


async def test_the_token_is_taken_from_no_query_and_no_cookie(app: App) -> None:
    cookie = ("Cookie", f"token={TOKEN}; Authorization=Bearer {TOKEN}")

    assert (await ask(app, f"/ws/chat?token={TOKEN}", cookie, *UPGRADE)).status == 401


@pytest.mark.parametrize("path", [*PAGE, "/healthz", "/readyz"])
async def test_page_and_health_need_no_token(app: App, path: str) -> None:
    assert (await ask(app, path)).status == 200


async def test_with_the_token_an_unknown_path_is_not_found(app: App) -> None:
    reply = await ask(app, "/nowhere", BEARER)

    assert (reply.status, reply.code) == (404, "not_found")


async def test_readyz_judges_a_token_so_that_a_webview_can_ask_why(app: App) -> None:
    right = await ask(app, "/readyz", BEARER, with_origin("tauri://localhost"))
    wrong = await ask(
        app, "/readyz", ("Authorization", f"Bearer {WRONG}"), with_origin("tauri://localhost")
    )

    assert (right.status, json.loads(right.body)) == (200, {"status": "ready"})
    assert (wrong.status, wrong.code) == (401, "unauthorized")
    assert wrong.headers["access-control-allow-origin"] == "tauri://localhost"  # else unreadable


async def test_host_is_judged_before_origin_and_origin_before_the_token(app: App) -> None:
    evil = with_origin("https://evil.com")

    assert (await ask(app, "/ws/chat", evil, *UPGRADE, hosts=["evil.com"])).code == "bad_host"
    assert (await ask(app, "/ws/chat", evil, *UPGRADE)).code == "origin_not_allowed"
    assert (await ask(app, "/ws/chat", *UPGRADE)).code == "unauthorized"
    assert (await ask(app, "/ws/chat", BEARER)).status == 426


async def test_a_right_token_is_not_delayed_by_wrong_ones(app: App) -> None:
    """Each wrong one waits; the right one is asked last and answered first."""
    answered: list[int] = []

    async def read(token: str) -> None:
        answered.append((await ask(app, "/readyz", ("Authorization", f"Bearer {token}"))).status)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(read(WRONG))
        await asyncio.sleep(0)  # they are on their way
        group.create_task(read(TOKEN))

    assert answered == [200, *[401] * 20]


async def test_a_browser_gives_the_token_as_a_subprotocol_and_is_answered_without_it(
    app: App,
) -> None:
    offered = ("sidecar", f"sidecar.token.{TOKEN}")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(app.url, protocols=offered) as opened,
    ):
        await opened.send_str('{"action": "ping", "request_id": "1"}')
        answer = await opened.receive_json()

    assert opened.protocol == "sidecar"
    assert answer["status"] == "complete"


async def test_a_token_offered_as_the_only_subprotocol_is_refused_and_in_no_log(
    app: App, tmp_path: Path
) -> None:
    file = log.configure("DEBUG", None, tmp_path)
    assert file is not None
    try:
        for token in (TOKEN, WRONG):
            only = ("Sec-WebSocket-Protocol", f"sidecar.token.{token}")
            assert (await ask(app, "/ws/chat", only, *UPGRADE)).status == 401
            malformed = ("Sec-WebSocket-Protocol", f"sidecar.token.{token}\x00")
            assert (await ask(app, "/ws/chat", malformed, *UPGRADE)).status == 400
    finally:
        log.close()

    written = file.read_text()
    assert "connections_refused" in written
    assert TOKEN not in written
    assert WRONG not in written


# ---- what every answer carries --------------------------------------------------------------


async def test_every_answer_carries_the_content_policy_and_nosniff(app: App) -> None:
    replies = [
        await ask(app, "/"),
        await ask(app, "/", hosts=[f"localhost:{app.address[1]}"]),
        await ask(app, "/", hosts=["evil.com"]),
        await ask(app, "/healthz", with_origin("https://evil.com")),
        await ask(app, "/ws/chat"),
        await ask(app, "/ws/chat", BEARER),
        await ask(app, "/ws/chat", BEARER, *UPGRADE),
        await ask(app, "/nowhere", BEARER),
        await ask(app, "/", BEARER, method="POST"),
        await ask(app, "/", with_origin("tauri://localhost"), method="OPTIONS"),
        await send(app, b"nonsense\r\n\r\n"),
    ]

    statuses = [reply.status for reply in replies]
    assert statuses == [200, 302, 421, 403, 401, 426, 101, 404, 405, 204, 400]
    for reply in replies:
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "aiohttp" not in reply.headers["server"].lower()


async def test_the_page_is_shown_under_the_literal_address_only(app: App) -> None:
    for host in ("localhost", "[::1]"):
        reply = await ask(app, "/", hosts=[f"{host}:{app.address[1]}"])

        assert (reply.status, reply.headers["location"]) == (302, f"{app.http}/")


async def test_the_page_s_files_have_their_types_and_no_secret(app: App) -> None:
    for path, content_type in PAGE.items():
        reply = await ask(app, path)

        assert reply.headers["content-type"] == f"{content_type}; charset=utf-8"
        assert TOKEN.encode() not in reply.body


async def test_the_page_may_run_its_own_script_and_talk_to_us_alone(app: App) -> None:
    policy = (await ask(app, "/")).headers["content-security-policy"].split("; ")

    assert policy == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src data: blob:",
        f"connect-src 'self' {app.http.replace('http', 'ws')}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    ]


# ---- how many, how large --------------------------------------------------------------------


async def test_the_seventeenth_socket_is_turned_away_until_one_leaves(app: App) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(socket_of(app))
        for _ in range(SOCKETS - 1):
            await stack.enter_async_context(socket_of(app))

        with pytest.raises(CannotConnect) as refusal:
            async with connect(app.url, TOKEN):
                pass
        await first.close()

        assert refusal.value.status == 503
        await stack.enter_async_context(socket_of(app))


async def test_of_too_many_connections_without_a_token_the_oldest_goes(app: App) -> None:
    async with connect(app.url, TOKEN) as client, AsyncExitStack() as stack:
        waiting = []
        for _ in range(WAITING + 1):
            reader, writer = await asyncio.open_connection(*app.address)
            stack.callback(writer.close)
            waiting.append(reader)

        assert await waiting[0].read() == b""  # closed
        assert (await ask(app, "/readyz", BEARER)).status == 200  # at the cost of the next one
        assert await waiting[1].read() == b""
        assert not waiting[2].at_eof()
        await asks_for_servers(client)  # who has shown a token is not among them


async def test_a_connection_that_shows_no_token_in_time_is_closed() -> None:
    async def answer(request: AnyRequest, connection: Connection) -> Empty:
        return Empty()

    bound = bind("127.0.0.1", 0)
    address = bound.getsockname()
    sessions = Sessions(monotonic, redact=lambda secret: None)
    door_key = DoorKey(Keyring("sidecar", MemoryKeyring), on_key=lambda secret: None)
    gate = Gate(
        scheme="http",
        host="127.0.0.1",
        port=address[1],
        token=TOKEN,
        sessions=sessions,
        allowed_hosts=(),
        allowed_origins=(),
        opens_door=door_key.is_right,
        now=monotonic,
    )
    attachments = Attachments(None)
    nothing = Host(
        {},
        log_dir=None,
        notes_dir=None,
        memory_dir=None,
        network=DIRECT,
        vault=Vault(None, Keyring("sidecar", MemoryKeyring), lambda secret: None),
        reveal=no_secrets,
        ask=nobody_answers,
        save=attachments.save,
        emit=lambda event: None,
    )
    approvals = Approvals(rules=Rules(None), tools=nothing, timeout_s=1, publish=lambda event: None)
    files = AttachmentRoutes(attachments)
    server = Server(
        bound,
        None,
        gate,
        sessions,
        door_key,
        (),
        answer,
        Events(),
        {"approvals": approvals.questions},
        files,
        waiting_s=0.3,
    )
    await server.start()
    try:
        async with (
            asyncio.timeout(10),
            connect(f"ws://{address[0]}:{address[1]}/ws/chat", TOKEN, basic=True) as client,
        ):
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            writer.close()

            await client.request(Ping)  # has been there for longer
    finally:
        await server.close()


async def asks_for_servers(client: Client) -> None:
    assert (await client.request(McpServersList)).items == ()


def frame_of(size: int) -> str:
    """A ping of that many bytes, almost all of them in what it must not have."""
    head, tail = '{"action": "ping", "request_id": "1", "payload": {"x": "', '"}}'
    return head + "x" * (size - len(head) - len(tail)) + tail


async def test_a_frame_of_four_mib_is_read_and_one_byte_more_is_not(app: App) -> None:
    async with socket_of(app) as opened:
        await opened.send_str(frame_of(FRAME_BYTES_IN))
        answer = await opened.receive_json()
        await opened.send_str(frame_of(FRAME_BYTES_IN + 1))
        end = await opened.receive()

    assert answer["error_info"]["code"] == "bad_request"
    assert (end.type, opened.close_code) == (WSMsgType.CLOSE, 1009)


async def test_a_binary_frame_closes_the_socket_as_unsupported(app: App) -> None:
    async with socket_of(app) as opened:
        await opened.send_bytes(b'{"action": "ping", "request_id": "1"}')
        await opened.receive()

    assert opened.close_code == 1003


async def test_text_that_is_not_utf8_closes_the_socket_and_no_other(app: App) -> None:
    async with connect(app.url, TOKEN) as client, socket_of(app) as opened:
        await opened.send_frame(b'{"action": "\xff"}', WSMsgType.TEXT)
        await opened.receive()

        await asks_for_servers(client)

    assert opened.close_code == 1007


# ---- addresses ------------------------------------------------------------------------------


async def test_an_address_open_to_other_machines_needs_tls(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"server\.tls"):
        world(tmp_path, "server: {host: 0.0.0.0}")


async def test_localhost_is_served_and_printed_as_the_literal_address(start: Start) -> None:
    app = await start("server: {host: localhost}")

    assert app.http == f"http://127.0.0.1:{app.address[1]}"
    assert (await ask(app, "/", with_origin(app.http))).status == 200


async def test_the_ipv6_loopback_is_served_when_the_machine_has_it(start: Start) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    app = await start("server: {host: '::1'}")

    assert app.http == f"http://[::1]:{app.address[1]}"
    assert (await ask(app, "/", hosts=[f"[::1]:{app.address[1]}"])).status == 200
    async with connect(app.url, TOKEN) as client:
        await asks_for_servers(client)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=sidecar", "-addext", "subjectAltName=IP:127.0.0.1,DNS:my-machine.local"]
    try:
        files = ["-keyout", str(key), "-out", str(cert)]
        subprocess.run([*command, *names, *files], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl cannot make a certificate here: {error}")
    return cert, key


async def test_with_a_certificate_the_socket_is_wss(
    start: Start, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    app = await start(f"server: {{host: 0.0.0.0, tls: {{cert: {cert}, key: {key}}}}}")
    trusting = ssl.create_default_context(cafile=str(cert))

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
        connect(app.url, TOKEN, session=session) as client,
    ):
        await asks_for_servers(client)

    assert app.url == f"wss://127.0.0.1:{app.address[1]}/ws/chat"


async def test_a_certificate_that_cannot_be_used_is_said_at_the_start(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "cert.pem").write_text("not a certificate")
    files = f"cert: {tmp_path}/cert.pem, key: {tmp_path}/missing.pem"

    with pytest.raises(ConfigInvalid, match=r"server\.tls: the certificate .* cannot be used"):
        await start(f"server: {{tls: {{{files}}}}}")

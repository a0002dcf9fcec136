"""Servers of the older kind, with one stream of events, and how a bare URL is found to be one."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.config import McpServerConfig
from sidecar.mcp_host.server import Network
from tests.support.bridge import TRANSPORTS, Bridge, bridge, served
from tests.support.certificates import write_certificate
from tests.support.hosts import DIRECT, running

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
URL_TRANSPORTS = TRANSPORTS[1:]


def at(server: Bridge, **settings: object) -> McpServerConfig:
    return McpServerConfig.model_validate({"url": server.url, **settings})


@contextlib.asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[McpServerConfig]:
    """The entry of whatever answers so to a GET, taken for an SSE server."""
    app = web.Application()
    app.router.add_get("/sse", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        yield McpServerConfig(url=f"http://127.0.0.1:{port}/sse", transport="sse")
    finally:
        await runner.cleanup()


async def test_a_server_that_speaks_sse_lists_and_runs_its_tools() -> None:
    async with bridge("sse") as server, running(s=at(server, transport="sse")) as host:
        status = await host.state("ready")

        result = await host.call("echo", text="hi")

        assert (status.transport, status.era, status.pid) == ("sse", "2025-11-25", None)
        assert result.text == "hi"
        assert server.requests[0] == "GET /sse"


async def test_a_bare_url_that_refuses_posts_is_tried_as_sse_and_remembered_so() -> None:
    async with bridge("sse") as server, running(s=at(server)) as host:
        status = await host.state("ready")
        refused = server.requests.count("POST /sse")
        await host.call("die")
        await host.state("backoff")
        await host.state("ready")

        assert status.transport == "sse"
        assert refused > 0
        assert server.requests.count("POST /sse") == refused


async def test_a_bare_url_that_takes_posts_is_never_tried_as_sse() -> None:
    async with bridge("http") as server, running(s=at(server)) as host:
        assert (await host.state("ready")).transport == "http"


async def test_no_other_transport_is_tried_than_the_settings_name() -> None:
    async with bridge("sse") as server, running(s=at(server, transport="http")) as host:
        status = await host.state("backoff")

        assert "GET /sse" not in server.requests
        assert "HTTP 405" in (status.error or "")


async def test_where_nothing_is_found_the_answer_to_the_first_try_is_told() -> None:
    async with bridge("http") as server:
        config = McpServerConfig(url=server.url.replace("/http", "/nothing"))
        async with running(s=config) as host:
            status = await host.state("backoff")

    assert "HTTP 404" in (status.error or "")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_message_of_2_mb_is_a_result(transport: str) -> None:
    async with served(transport) as config, running(s=config) as host:
        await host.state("ready")

        result = await host.call("big", bytes=2_000_000)

        assert (result.status, result.truncated) == ("ok", True)
        assert (await host.call("echo", text="still here")).text == "still here"


# ---- the way there --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", URL_TRANSPORTS)
async def test_a_certificate_that_is_trusted_is_enough_and_another_is_not(
    kind: str, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(certificate, key)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(certificate, key)

    async def trusting() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(certificate))

    async def strict() -> ssl.SSLContext:
        return ssl.create_default_context()

    async with bridge(kind, tls=own) as server:
        config = at(server, transport=kind)
        async with running(s=config, network=Network(trusting, DIRECT.proxy)) as host:
            await host.state("ready")
        async with running(s=config, network=Network(strict, DIRECT.proxy)) as host:
            status = await host.state("backoff")

    assert "certificate" in (status.error or "").lower()


@pytest.mark.parametrize("kind", URL_TRANSPORTS)
async def test_headers_go_with_every_request_and_through_the_proxy(kind: str) -> None:
    async with bridge(kind) as server:

        async def proxy(url: str) -> str | None:
            return server.url.removesuffix(f"/{kind}")

        config = McpServerConfig.model_validate(
            {"url": f"http://mcp.invalid/{kind}", "transport": kind, "headers": {"X-Key": "mine"}}
        )
        async with running(s=config, network=Network(DIRECT.tls, proxy)) as host:
            await host.state("ready")

            assert (await host.call("echo", text="hi")).text == "hi"
            assert (server.headers["Host"], server.headers["X-Key"]) == ("mcp.invalid", "mine")


# ---- what goes wrong ------------------------------------------------------------------------


async def test_our_headers_are_not_posted_to_another_address() -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"event: endpoint\ndata: http://127.0.0.2:1/messages\n\n")
        return response

    async with answering(elsewhere) as config, running(s=config) as host:
        status = await host.state("backoff")

    assert "another address" in (status.error or "")


@pytest.mark.parametrize(
    ("body", "told"), [("<html>", "no event stream"), ("data: x\n\n", "before it said where")]
)
async def test_what_is_no_server_of_this_kind_is_told_apart(body: str, told: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        kind = "text/html" if body.startswith("<") else "text/event-stream"
        return web.Response(text=body, content_type=kind)

    async with answering(answer) as config, running(s=config) as host:
        status = await host.state("backoff")

    assert told in (status.error or "")


async def test_a_401_to_the_stream_needs_a_person() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})

    async with answering(refuse) as config, running(s=config) as host:
        status = await host.state("needs_auth")

    assert status.error_info is not None
    assert status.error_info.detail == "Bearer"


async def test_a_stream_that_never_says_where_to_post_is_given_up() -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    async with answering(hang) as config:
        config = config.model_copy(update={"connect_timeout_s": 0.3})
        async with running(s=config) as host:
            status = await host.state("backoff")

    assert status.error_info is not None
    assert status.error_info.code == "mcp_timeout"


async def test_a_post_to_a_forgotten_session_opens_another_and_is_sent_there() -> None:
    async with bridge("sse") as server, running(s=at(server, transport="sse")) as host:
        await host.state("ready")
        [forgotten] = [server.sessions.pop(key) for key in list(server.sessions)]

        result = await host.call("echo", text="hi")
        await host.until(lambda: server.spawned == 2)
        await host.state("ready")

        assert (result.status, result.text) == ("ok", "hi")
        assert (await host.call("echo", text="again")).text == "again"
        await forgotten.child.wait()

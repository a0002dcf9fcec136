"""Servers behind a URL: what is told when they refuse, and that they are found again."""

import asyncio
import gzip
import ssl
import time

import pytest
from aiohttp import web

from sidecar.config import McpServerConfig
from sidecar.errors import TlsUntrusted
from sidecar.mcp_host.server import Network
from tests.support.hosts import DIRECT, running
from tests.support.mcp_http import HttpServer, Json, failure, hang, http_server


def at(server: HttpServer, **settings: object) -> McpServerConfig:
    return McpServerConfig.model_validate({"url": server.url, **settings})


async def test_a_server_behind_a_url_lists_and_runs_its_tools() -> None:
    async with http_server() as server:
        config = at(server, headers={"X-Person": "me"})
        async with running(s=config) as host:
            status = await host.state("ready")

            result = await host.call("echo", text="hi")

            assert (status.transport, status.era) == ("http", "2025-11-25")
            assert result.text == "hi"
            assert all(headers["X-Person"] == "me" for headers in server.headers)
        assert not server.sessions  # it said goodbye


async def test_a_malformed_tool_costs_only_itself_over_http_too() -> None:
    async with http_server() as server, running(s=at(server)) as host:
        await host.state("ready")

        assert [tool.server_name for tool in host.host.tools()] == ["big", "echo", "read"]
        assert "malformed" in "\n".join(host.host.logs("s", 10))


async def test_an_event_of_several_mib_is_a_result() -> None:
    async with http_server() as server, running(s=at(server)) as host:
        await host.state("ready")

        result = await host.call("big", bytes=4 * 1024 * 1024)

        assert (result.status, result.truncated) == ("ok", True)


async def test_a_401_needs_a_person_and_says_what_to_do() -> None:
    async def refuse(request: web.Request, message: Json) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="x"'})

    async with http_server() as server:
        server.before = refuse
        async with running(s=at(server)) as host:
            status = await host.state("needs_auth")

    assert status.error_info is not None
    assert status.error_info.code == "mcp_auth_required"
    assert status.error_info.http_status == 401
    assert status.error_info.detail == 'Bearer realm="x"'
    assert "`headers`" in (status.error or "")


@pytest.mark.parametrize("code", [403, 404, 500])
async def test_another_refusal_is_told_with_its_status(code: int) -> None:
    async def refuse(request: web.Request, message: Json) -> web.Response:
        return web.Response(status=code, text="<html>no</html>", content_type="text/html")

    async with http_server() as server:
        server.before = refuse
        async with running(s=at(server)) as host:
            status = await host.state("backoff")

    assert f"HTTP {code}" in (status.error or "")


async def test_a_web_page_is_not_taken_for_a_server() -> None:
    async def page(request: web.Request, message: Json) -> web.Response:
        return web.Response(text="<html>hello</html>", content_type="text/html")

    async with http_server() as server:
        server.before = page
        async with running(s=at(server)) as host:
            status = await host.state("backoff")

    assert "text/html" in (status.error or "")


async def test_a_server_that_is_not_running_is_found_when_it_is() -> None:
    async with http_server() as server:
        await server.stop()
        async with running(s=at(server)) as host:
            status = await host.state("backoff")

            await server.start()
            await host.state("ready")

    assert "Is it running" in (status.error or "")


async def test_a_mute_server_is_given_up_at_its_own_deadline() -> None:
    async with http_server() as server:
        server.before = hang
        async with running(s=at(server, connect_timeout_s=0.3)) as host:
            status = await host.state("backoff")

    assert status.error_info is not None
    assert status.error_info.code == "mcp_timeout"


@pytest.mark.parametrize("says", ["404", "400"])
async def test_a_session_lost_in_a_restart_is_opened_again(says: str) -> None:
    async def no_session(request: web.Request, message: Json) -> web.Response | None:
        session = request.headers.get("Mcp-Session-Id")
        if says == "404" or session is None or session in server.sessions:
            return None
        error = {"code": -32000, "message": "Bad Request: No valid session ID provided"}
        return web.json_response({"jsonrpc": "2.0", "id": None, "error": error}, status=400)

    async with http_server() as server, running(s=at(server)) as host:
        server.before = no_session
        await host.state("ready")
        await server.stop()
        await server.start()

        result = await host.call("echo", text="one")

        assert (result.status, result.text) == ("ok", "one")
        assert len(server.calls) == 2  # the one that was refused for its session, and this


async def test_a_refused_connection_in_mid_session_was_surely_not_delivered() -> None:
    async with http_server() as server, running(s=at(server, call_timeout_s=0.5)) as host:
        await host.state("ready")
        await server.stop()

        result = await host.call("echo", text="hi")
        await host.state("backoff")
        await server.start()
        await host.state("ready")

        assert result.status == "error"
        assert result.text.startswith("The call was not made.")


async def break_off(request: web.Request, message: Json) -> web.StreamResponse | None:
    """A `before` that begins to answer a call, and then hangs up."""
    if message["method"] != "tools/call":
        return None
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": "1000"}
    )
    await response.prepare(request)
    await response.write(b'{"jsonrpc": ')
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize(
    ("tool", "trusted", "calls"), [("read", True, 2), ("read", False, 1), ("echo", True, 1)]
)
async def test_only_a_harmless_call_of_a_trusted_server_is_sent_again_once(
    tool: str, trusted: bool, calls: int
) -> None:
    async with http_server() as server, running(s=at(server, trusted=trusted)) as host:
        await host.state("ready")
        server.before = break_off

        result = await host.call(tool)

        assert result.status == "unknown"
        assert len(server.calls) == calls


async def test_a_harmless_call_that_is_sent_again_succeeds() -> None:
    async def break_off_once(request: web.Request, message: Json) -> web.StreamResponse | None:
        return await break_off(request, message) if len(server.calls) == 1 else None

    async with http_server() as server, running(s=at(server, trusted=True)) as host:
        await host.state("ready")
        server.before = break_off_once

        result = await host.call("read", text="page")

        assert (result.status, result.text) == ("ok", "page")


async def test_an_answer_that_breaks_off_leaves_the_outcome_unknown() -> None:
    async with http_server() as server, running(s=at(server)) as host:
        await host.state("ready")
        server.before = break_off

        result = await host.call("echo", text="hi")
        server.before = None
        await host.state("backoff")
        await host.state("ready")

        assert result.status == "unknown"
        assert len(server.calls) == 1
        assert (await host.call("echo", text="again")).text == "again"


async def test_cancelling_a_call_tells_the_server() -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def listen(request: web.Request, message: Json) -> web.StreamResponse | None:
        if message["method"] == "notifications/cancelled":
            cancelled.set()
        if message["method"] != "tools/call":
            return None
        called.set()
        return await hang(request, message)

    async with http_server() as server, running(s=at(server)) as host:
        await host.state("ready")
        server.before = listen
        async with asyncio.timeout(5):
            call = asyncio.create_task(host.call("echo"))
            await called.wait()

            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

            await cancelled.wait()


async def test_a_server_that_ignores_our_goodbye_does_not_hold_up_the_end() -> None:
    async with http_server() as server:
        async with running(s=at(server)) as host:
            await host.state("ready")
            server.ignores_goodbye = True
            began = time.monotonic()
        took_s = time.monotonic() - began

    assert took_s < 4


async def test_a_servers_own_error_is_told_in_its_words_whatever_its_code() -> None:
    async def limit(request: web.Request, message: Json) -> web.Response | None:
        is_call = message["method"] == "tools/call"
        return failure(message, -32000, "Rate limit: try in 5 s") if is_call else None

    async with http_server() as server, running(s=at(server)) as host:
        await host.state("ready")
        server.before = limit

        result = await host.call("echo")

    assert result.status == "error"
    assert result.text.endswith("answered with an error: Rate limit: try in 5 s")


async def test_a_stream_that_ends_without_an_answer_leaves_the_outcome_unknown() -> None:
    async def end(request: web.Request, message: Json) -> web.StreamResponse | None:
        is_call = message["method"] == "tools/call"
        return (
            web.Response(text=": soon\n\n", content_type="text/event-stream") if is_call else None
        )

    async with http_server() as server, running(s=at(server)) as host:
        await host.state("ready")
        server.before = end

        result = await host.call("echo")

    assert result.status == "unknown"
    assert "restarted" not in result.text


# ---- what is said, and what is read ---------------------------------------------------------


async def test_an_address_is_told_without_what_may_be_secret_in_it() -> None:
    async with http_server() as server:
        await server.stop()
        url = f"http://me:hunter22@127.0.0.1:{server.port}/k-5678/mcp?key=sesame77"
        async with running(s=McpServerConfig(url=url)) as host:
            status = await host.state("backoff")

    assert f"http://127.0.0.1:{server.port}" in (status.error or "")
    for secret in ("hunter22", "k-5678", "sesame77"):
        assert secret not in status.model_dump_json()


@pytest.mark.parametrize(
    ("status", "media_type"), [(200, "application/json"), (400, "text/plain"), (500, "text/plain")]
)
async def test_no_more_of_a_body_is_read_than_a_result_may_have(
    status: int, media_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def flood(request: web.Request, message: Json) -> web.StreamResponse | None:
        if message["method"] != "tools/call":
            return None
        response = web.StreamResponse(status=status, headers={"Content-Type": media_type})
        await response.prepare(request)
        while True:
            await response.write(b" " * 2**16)

    async with http_server() as server, running(s=at(server)) as host:
        await host.state("ready")
        monkeypatch.setattr("sidecar.mcp_host.http.BODY_BYTES", 2**20)
        server.before = flood

        result = await host.call("echo")

        assert result.status in ("error", "unknown")


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async def bomb(request: web.Request, message: Json) -> web.Response | None:
        assert request.headers["Accept-Encoding"] == "identity"
        if message["method"] != "tools/call":
            return None
        body, encoding = gzip.compress(b" " * 2**20), {"Content-Encoding": "gzip"}
        return web.Response(body=body, headers=encoding, content_type="application/json")

    async with http_server() as server, running(s=at(server)) as host:
        server.before = bomb
        await host.state("ready")

        result = await host.call("echo")

    assert result.status == "error"
    assert "compresses" in result.text


# ---- the way there --------------------------------------------------------------------------


async def test_a_server_is_asked_through_the_proxy_of_the_settings() -> None:
    async with http_server() as server:

        async def proxy(url: str) -> str | None:
            assert url == "http://mcp.invalid/mcp"
            return f"http://127.0.0.1:{server.port}"

        config = McpServerConfig(url="http://mcp.invalid/mcp")
        async with running(s=config, network=Network(DIRECT.tls, proxy)) as host:
            await host.state("ready")

            assert (await host.call("echo", text="hi")).text == "hi"
            assert all(headers["Host"] == "mcp.invalid" for headers in server.headers)


async def test_certificates_that_cannot_be_read_are_told() -> None:
    async def no_certificates() -> ssl.SSLContext:
        raise TlsUntrusted("`network.ca_bundle` /none cannot be used: no such file.")

    config = McpServerConfig(url="https://127.0.0.1:1/mcp")
    async with running(s=config, network=Network(no_certificates, DIRECT.proxy)) as host:
        status = await host.state("failed")

    assert "`network.ca_bundle` /none" in (status.error or "")

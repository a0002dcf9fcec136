"""The way to a vendor: proxies, certificates, and how long to wait before asking again."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from sidecar.config import NetworkConfig, ProviderConfig, ProviderKind
from sidecar.errors import (
    DnsFailed,
    NetworkUnreachable,
    ProviderError,
    ProviderFailed,
    ProxyAuthRequired,
    TlsUntrusted,
)
from sidecar.providers import open_provider
from sidecar.providers.base import ModelEvent, Provider, Retrying, TextDelta
from sidecar.providers.http import Http, retrying
from tests.providers.conftest import CHAT, PATIENT, asking, nothing
from tests.support.certificates import write_certificate
from tests.support.fake_openai import Answer, FakeOpenAI

ELSEWHERE = "http://vendor.example/v1"  # reached through a proxy or not at all


@pytest.fixture(autouse=True)
def no_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def network(
    proxy: str | None = None, ca_bundle: Path | None = None, trust_os_store: bool = True
) -> NetworkConfig:
    bundle = str(ca_bundle) if ca_bundle else None
    return NetworkConfig(proxy=proxy, ca_bundle=bundle, trust_os_store=trust_os_store)


async def say_something(kind: ProviderKind, base_url: str, settings: NetworkConfig) -> str:
    """The text that a provider at this address answers over this network."""

    async def key() -> str:
        return "sk-test"

    http = Http(settings)
    section = ProviderConfig(kind=kind, base_url=base_url, api=CHAT[kind])
    provider: Provider = open_provider(
        "acme", section, http=http, key=key, timeouts=PATIENT, max_retries=0, find_local=nothing
    )
    try:
        async with asyncio.timeout(10), aclosing(provider.stream(asking())) as events:
            return "".join([event.text async for event in events if isinstance(event, TextDelta)])
    finally:
        await http.close()


def origin(upstream: FakeOpenAI) -> str:
    return upstream.url.removesuffix("/v1")


async def test_requests_go_through_the_proxy_of_the_settings(
    upstream: FakeOpenAI, kind: ProviderKind
) -> None:
    proxy = origin(upstream).replace("//", "//kim:secret@")

    assert await say_something(kind, ELSEWHERE, network(proxy=proxy)) == "Hello."

    (request,) = upstream.requests
    assert request.headers["host"] == "vendor.example"
    assert request.headers["proxy-authorization"] == "Basic a2ltOnNlY3JldA=="


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("http_proxy", "http://127.0.0.1:{port}"),
        ("HTTP_PROXY", "127.0.0.1:{port}"),
        ("ALL_PROXY", "http://127.0.0.1:{port}"),
    ],
)
async def test_requests_go_through_the_proxy_of_the_environment(
    variable: str,
    value: str,
    upstream: FakeOpenAI,
    kind: ProviderKind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value.format(port=urlsplit(upstream.url).port))

    assert await say_something(kind, ELSEWHERE, network()) == "Hello."


async def test_a_server_on_this_machine_is_never_asked_through_a_proxy(
    upstream: FakeOpenAI, kind: ProviderKind, unused_tcp_port: int
) -> None:
    nowhere = f"http://127.0.0.1:{unused_tcp_port}"

    assert await say_something(kind, upstream.url, network(proxy=nowhere)) == "Hello."


async def test_a_proxy_that_wants_a_login_says_where_to_write_it(
    upstream: FakeOpenAI, kind: ProviderKind
) -> None:
    upstream.will(Answer([b"who are you?"], 407))

    with pytest.raises(ProxyAuthRequired, match=r"`network\.proxy`"):
        await say_something(kind, ELSEWHERE, network(proxy=origin(upstream)))


async def test_a_proxy_that_is_not_there_is_named_as_the_cause(
    kind: ProviderKind, unused_tcp_port: int
) -> None:
    proxy = f"http://kim:secret@127.0.0.1:{unused_tcp_port}"

    with pytest.raises(NetworkUnreachable, match="proxy") as caught:
        await say_something(kind, ELSEWHERE, network(proxy=proxy))

    assert "secret" not in f"{caught.value} {caught.value.detail}"


@pytest.mark.parametrize("proxy", ["socks5://kim:secret@h:1", "http://[::1", "http://h:port"])
async def test_a_proxy_of_the_environment_that_cannot_be_used_is_told(
    proxy: str, kind: ProviderKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)

    with pytest.raises(ProviderError, match="only http and https proxies") as caught:
        await say_something(kind, ELSEWHERE, network())

    assert "secret" not in str(caught.value)


async def test_what_no_proxy_names_is_asked_past_the_proxy_of_the_settings_too(
    upstream: FakeOpenAI, kind: ProviderKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "elsewhere.example,.example")
    monkeypatch.setattr(socket, "getaddrinfo", nobody)

    with pytest.raises(DnsFailed):
        await say_something(kind, ELSEWHERE, network(proxy=origin(upstream)))

    assert upstream.requests == []


def nobody(*args: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_a_server_without_tls_is_not_taken_for_an_untrusted_one(
    upstream: FakeOpenAI, kind: ProviderKind
) -> None:
    with pytest.raises(NetworkUnreachable, match="does not speak TLS"):
        await say_something(kind, upstream.url.replace("http:", "https:"), network())


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """A server whose certificate only its own file vouches for: its base_url, and that file."""
    pytest.importorskip("cryptography", reason="a certificate has to be made")
    certificate, private_key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    write_certificate(certificate, private_key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, private_key)

    async def chat(request: web.Request) -> web.Response:
        body = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
        return web.Response(body=body, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}/v1", certificate
    await runner.cleanup()


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls_server: tuple[str, Path], kind: ProviderKind
) -> None:
    base_url, _ = tls_server

    with pytest.raises(TlsUntrusted, match=r"`network\.ca_bundle`"):
        await say_something(kind, base_url, network())


@pytest.mark.parametrize("trust_os_store", [True, False])
async def test_a_certificate_in_the_bundle_of_the_settings_is_trusted(
    trust_os_store: bool, tls_server: tuple[str, Path], kind: ProviderKind
) -> None:
    base_url, certificate = tls_server

    settings = network(ca_bundle=certificate, trust_os_store=trust_os_store)

    assert await say_something(kind, base_url, settings) == "Hi"


async def test_a_bundle_that_cannot_be_read_is_named(kind: ProviderKind, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"

    with pytest.raises(TlsUntrusted, match=r"missing\.pem"):
        await say_something(kind, "https://127.0.0.1:1/v1", network(ca_bundle=missing))


async def test_pauses_grow_and_stay_below_their_limit() -> None:
    async def failing(end: float) -> AsyncGenerator[ModelEvent, None]:
        raise ProviderFailed("oops")
        yield  # makes it a generator

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    told = []
    with pytest.raises(ProviderFailed):
        async for event in retrying(failing, 7, None, sleep):
            told.append(event)

    assert [event.delay_s for event in told if isinstance(event, Retrying)] == slept
    for seconds, longest in zip(slept, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
        assert 0.75 * longest <= seconds <= longest

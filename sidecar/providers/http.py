"""The way to a vendor over HTTP: sessions, proxy, certificates, deadlines and retries.

Promises that every wait has a limit and names itself when it is reached, that the network's
failures arrive as our errors, and that a request is repeated only while nothing of its answer was
seen. Knows no vendor's format. Addresses on this machine are never asked through a proxy.
"""

import asyncio
import random
import socket
import ssl
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from sidecar.config import NetworkConfig, TimeoutsConfig, is_loopback, proxy_url
from sidecar.errors import (
    DnsFailed,
    LocalServerDown,
    NetworkError,
    NetworkUnreachable,
    ProviderBadResponse,
    ProviderError,
    ProviderTimeout,
    ProxyAuthRequired,
    TlsUntrusted,
)
from sidecar.providers.base import ModelEvent, Retrying
from sidecar.providers.failures import Vendor
from sidecar.threads import load_modules, run_in_thread

T = TypeVar("T")

MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_S = 3.0  # the status says most of it, and a person waits
MAX_RETRY_AFTER_S = 30.0  # longer than that, a person wants to know and decide
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 8.0
_LOCAL_SERVERS = {11434: "Ollama", 1234: "LM Studio"}  # by their usual ports


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose body is still coming; `read` gives its next bytes, none at its end."""

    status: int
    headers: Mapping[str, str]
    read: Callable[[], Awaitable[bytes]]


class Http:
    """The sessions that all providers share: one for each way out, opened when it is first used."""

    def __init__(self, network: NetworkConfig) -> None:
        self._network = network
        self._sessions: dict[tuple[bool, str | None], aiohttp.ClientSession] = {}
        self._tls: ssl.SSLContext | None = None

    async def session(self, url: str) -> aiohttp.ClientSession:
        """The session for this address. Raises ProviderError for an unusable proxy or CA."""
        proxy = await self.proxy(url)
        is_tls = any(address and URL(address).scheme == "https" for address in (url, proxy))
        tls = await self.tls() if is_tls else True
        session = self._sessions.get((is_tls, proxy))  # after the await: two may ask at once
        if session is None:
            # No limit on connections: a turn that waits for another's socket would look like a slow
            # vendor. No cookies: nothing of one conversation goes along with the next.
            session = self._sessions[is_tls, proxy] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=0, resolver=_Resolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return session

    async def tls(self) -> ssl.SSLContext:
        """The certificates to trust, read once and off the loop."""
        if self._tls is None:
            if self._network.trust_os_store:
                await load_modules("truststore")
            self._tls = await run_in_thread(self._load_certificates, "certificates")
        return self._tls

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def proxy(self, address: str) -> str | None:
        """The proxy on the way to this address. Raises ProviderError for an unusable one."""
        url = URL(address)
        if is_loopback(url.host):
            return None
        if self._network.proxy:
            return None if _is_direct(url) else self._network.proxy
        # Asked each time: laptops travel. In a thread: Windows and macOS may look the host up.
        return await run_in_thread(lambda: _environment_proxy(url), "proxy settings")

    def _load_certificates(self) -> ssl.SSLContext:
        if self._network.trust_os_store:
            import truststore

            context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        else:
            context = ssl.create_default_context()
        bundle = self._network.ca_bundle
        if bundle is not None:
            try:
                context.load_verify_locations(bundle)
            except OSError as error:  # ssl.SSLError too
                raise TlsUntrusted(
                    f"`network.ca_bundle` {bundle} cannot be used: {error.strerror or error}."
                ) from error
        return context


class Clocks:
    """The limits of one exchange: the first byte, then the silence between reads, and the whole.

    `end` is the loop's time at which the whole must be over, which other exchanges may share.
    """

    def __init__(self, vendor: Vendor, timeouts: TimeoutsConfig, end: float) -> None:
        self._vendor = vendor
        self._timeouts = timeouts
        self._now = asyncio.get_running_loop().time
        self._due = self._now() + timeouts.first_byte_s
        self._end = end
        self._waits_for = f"did not begin to answer within {timeouts.first_byte_s:g} s"

    async def wait(self, step: Awaitable[T]) -> T:
        """The step's result within what is left. Raises NetworkError, `from` what happened."""
        try:
            async with asyncio.timeout_at(min(self._due, self._end)) as clock:
                return await step
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if clock.expired():
                raise self._expired() from None
            raise _broken(self._vendor, self._timeouts, error) from error

    def heard(self) -> None:
        """Bytes came, be it only a comment: from now on the limit is the one for silence."""
        self._due = self._now() + self._timeouts.silence_s
        self._waits_for = f"said nothing for {self._timeouts.silence_s:g} s"

    def _expired(self) -> ProviderTimeout:
        what = self._waits_for
        if self._end <= self._due:
            what = f"did not end its answer within {self._timeouts.total_s or 0:g} s"
        return ProviderTimeout(f"{self._vendor.name} {what}.", provider=self._vendor.name)


async def retrying(
    attempt: Callable[[float], AsyncGenerator[ModelEvent, None]],
    limit: int,
    total_s: float | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[ModelEvent, None]:
    """The events of the first attempt that begins well, with a Retrying before each repetition.

    At most `limit` repetitions, and none after the first event, for then the person has read it.
    A longer pause than MAX_RETRY_AFTER_S, if the vendor asks for one, is left to the person.
    All attempts and pauses have `total_s` together; an attempt is told when, by the loop's time.
    """
    end = end_of(total_s)
    for number in count(1):
        has_begun = False
        try:
            async with aclosing(attempt(end)) as events:
                async for event in events:
                    has_begun = True
                    yield event
            return
        except ProviderError as error:
            if has_begun or number > limit or not _is_worth_repeating(error):
                raise
            asked_s = error.retry_after_s
            delay_s = _delay_s(number) if asked_s is None else asked_s
            if asyncio.get_running_loop().time() + delay_s >= end:
                raise
            retry = Retrying(number, limit, delay_s, error)
        yield retry
        await sleep(retry.delay_s)


def end_of(total_s: float | None) -> float:
    """The loop's time at which what begins now must be over."""
    return asyncio.get_running_loop().time() + total_s if total_s else float("inf")


def briefly(reply: Reply, within_s: float) -> Reply:
    """The reply for whoever can do without its rest: what breaks or comes too late is its end."""
    end = end_of(within_s)

    async def read() -> bytes:
        try:
            async with asyncio.timeout_at(end):
                return await reply.read()
        except (TimeoutError, NetworkError):
            return b""

    return replace(reply, read=read)


async def read_refusal(reply: Reply) -> bytes:
    """What a server says beside a status that is no success, as far as it says it soon."""
    return await read_body(briefly(reply, ERROR_BODY_S), MAX_ERROR_BYTES)


async def read_body(reply: Reply, max_bytes: int) -> bytes:
    """The body's first `max_bytes`; a longer one is cut there."""
    body = bytearray()
    while len(body) < max_bytes and (data := await reply.read()):
        body += data
    return bytes(body[:max_bytes])


def _is_worth_repeating(error: ProviderError) -> bool:
    # The person has waited long enough; nobody is there; the answer was made, and is paid for.
    if isinstance(error, ProviderTimeout | LocalServerDown | ProviderBadResponse):
        return False
    return error.can_retry and (error.retry_after_s or 0) <= MAX_RETRY_AFTER_S


def _delay_s(number: int) -> float:
    longest: float = min(FIRST_DELAY_S * 2 ** (number - 1), MAX_DELAY_S)
    return longest * (0.75 + random.random() / 4)  # so that many clients do not come back at once


def _is_direct(url: URL) -> bool:
    """Whether NO_PROXY names this address, which counts for the proxy of the settings too."""
    return bool(urllib.request.proxy_bypass_environment(url.authority))  # type: ignore[attr-defined]


def _environment_proxy(url: URL) -> str | None:
    """What the environment says, or the system on macOS and Windows; never a .netrc."""
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return None
    try:
        return proxy_url(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError as error:
        raise ProviderError(
            f"The proxy of the environment cannot be used: {error}. Set `network.proxy` instead."
        ) from None  # the error holds the address, which may have a login


def _broken(vendor: Vendor, timeouts: TimeoutsConfig, error: Exception) -> ProviderError:
    """What the HTTP library says, as an error that a person can act on."""
    url, name = URL(vendor.base_url), vendor.name
    match error:
        case aiohttp.ConnectionTimeoutError():
            within = f"within {timeouts.connect_s:g} s"
            return ProviderTimeout(f"{name} could not be reached {within}.", provider=name)
        case aiohttp.ClientConnectorDNSError():
            text = f"The address of {name}, {url.host}, was not found; is there a network?"
            return DnsFailed(text, provider=name)
        case aiohttp.ClientHttpProxyError() if error.status == 407:
            text = "The proxy wants a login; write it into `network.proxy`."
            return ProxyAuthRequired(text, provider=name, http_status=407)
        case aiohttp.ClientHttpProxyError() | aiohttp.ClientProxyConnectionError():
            text = f"The proxy on the way to {name} cannot be used; see `network.proxy`."
            return NetworkUnreachable(text, provider=name, detail=type(error).__name__)
        case aiohttp.ClientConnectorCertificateError():
            text = (
                f"The certificate of {url.host} is not trusted. Behind a company's proxy, set "
                "`network.ca_bundle` to its certificate."
            )
            return TlsUntrusted(text, provider=name, detail=str(error))
        case aiohttp.ClientSSLError():
            text = f"{url.origin()} does not speak TLS as it should; is the address right?"
            return NetworkUnreachable(text, provider=name, detail=str(error))
        case aiohttp.ClientConnectorError() if is_loopback(url.host):
            server = _LOCAL_SERVERS.get(url.port or 0, name)
            text = f"Nothing answers at {url.origin()} — is {server} running?"
            return LocalServerDown(text, provider=name)
        case aiohttp.ClientConnectorError():
            text = f"{name} cannot be reached at {url.origin()}; is there a network?"
            return NetworkUnreachable(text, provider=name, detail=error.strerror)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return ProviderError(f"The `base_url` of {name} is no valid address.", provider=name)
        case _:
            text = f"The connection to {name} broke off."
            return NetworkUnreachable(text, provider=name, detail=type(error).__name__)


class _Resolver(AbstractResolver):
    """Names to addresses in a thread of our own: aiohttp's would hold up the end of the program."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            found = await run_in_thread(
                lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM), "dns"
            )
        except UnicodeError as error:  # a label that is empty or too long
            raise OSError(f"{host} is no name of a host") from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is kept open."""

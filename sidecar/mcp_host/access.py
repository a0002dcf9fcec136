"""The token that goes with each request to one MCP server, and its renewal.

Whoever finds it stale renews it for all who ask at that time; the renewal is a task of its own,
since a call that is cancelled in the middle of it would lose a refresh token that is good once.
What an authorization server takes back is forgotten; what it cannot say now is asked again later.
Importing this imports the SDK, so it is loaded off the loop.
"""

import asyncio
import base64
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from urllib.parse import quote, urlsplit

import httpx2
import structlog
from mcp.shared.auth import OAuthToken
from pydantic import ValidationError

from sidecar.config import is_loopback
from sidecar.errors import SidecarError
from sidecar.mcp_host.http import Capped, way_options
from sidecar.mcp_host.vault import Account, Tokens, Vault

EXCHANGE_S = 15.0
BODY_BYTES = 1024 * 1024
TEMPORARY = frozenset((408, 425, 429))

Way = Callable[[str], Awaitable[tuple[ssl.SSLContext | None, str | None]]]
"""Whom to trust, and the proxy, for an address."""

log = structlog.get_logger()


class UnsafeAddress(Exception):
    """`str(error)` is a sentence about an address to which no secret may go."""


class Exchange:
    """Requests to authorization servers, for one MCP server."""

    def __init__(self, server_url: str, way: Way) -> None:
        self._is_local = is_loopback(urlsplit(server_url).hostname)
        self._way = way

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """The whole answer. Raises UnsafeAddress, TimeoutError, httpx2.HTTPError, SidecarError."""
        self.check(str(request.url))
        way = way_options(*await self._way(str(request.url)))
        request.headers["accept-encoding"] = "identity"  # so that the limit is one
        async with asyncio.timeout(EXCHANGE_S), httpx2.AsyncClient(**way) as client:
            response = await client.send(request, stream=True)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise httpx2.DecodingError("it compresses its answers, unasked")
            response.stream = Capped(response.stream, BODY_BYTES)
            try:
                await response.aread()
            except httpx2.StreamError as error:
                raise httpx2.ReadError(str(error)) from error
            return response

    def check(self, url: str) -> None:
        """Raises UnsafeAddress unless it is https, or on this machine as the MCP server is."""
        parts = urlsplit(url)
        is_own = self._is_local and parts.scheme == "http" and is_loopback(parts.hostname)
        if "@" in parts.netloc or not (is_own or (parts.scheme == "https" and parts.hostname)):
            raise UnsafeAddress(
                f"{parts.scheme}://{parts.hostname} is no address to sign in at: it must be https."
            )


class Access:
    """The tokens of one MCP server. `tasks` is the group that renewals run in."""

    def __init__(
        self,
        server: str,
        server_url: str,
        vault: Vault,
        exchange: Exchange,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._server = server
        self._server_url = server_url
        self._vault = vault
        self._exchange = exchange
        self._tasks = tasks
        self._renewal: asyncio.Task[httpx2.TransportError | None] | None = None

    async def token(self) -> str | None:
        """One to use now, if there is any. Raises httpx2.TransportError: none can be had now."""
        account = await self._vault.find(self._server_url)
        if account is None or account.tokens is None:
            return None
        if account.tokens.refresh_token is None or not account.tokens.is_stale():
            return account.tokens.access_token
        failure = await self._renewed()
        if failure is not None and account.tokens.has_expired():
            raise failure
        return self._current()

    async def token_after(self, refused: str) -> str | None:
        """One in place of one that the server did not take. Raises as `token` does."""
        account = self._vault.known(self._server_url)
        if account is None or account.tokens is None:
            return None
        if account.tokens.access_token == refused:
            if account.tokens.refresh_token is None:
                return None
            failure = await self._renewed()
            if failure is not None:
                raise failure
        current = self._current()
        return None if current == refused else current

    def _current(self) -> str | None:
        account = self._vault.known(self._server_url)
        return None if account is None or account.tokens is None else account.tokens.access_token

    async def _renewed(self) -> httpx2.TransportError | None:
        if self._renewal is None:
            self._renewal = self._tasks.create_task(self._renew(), name=f"renew {self._server}")
        return await asyncio.shield(self._renewal)

    async def _renew(self) -> httpx2.TransportError | None:
        """Returns what may be over later; whatever else happens is in the vault."""
        try:
            account = self._vault.known(self._server_url)
            assert account is not None and account.tokens is not None
            response = await self._exchange.send(_refresh(account, account.tokens))
            tokens = _renewed_tokens(account.tokens, response)
            status = response.status_code
            if tokens is None and (status >= 500 or status in TEMPORARY):
                return httpx2.ConnectError(f"its authorization server answered HTTP {status}")
            log.info("mcp_tokens_renewed" if tokens else "mcp_tokens_refused", server=self._server)
            await self._vault.change(account.model_copy(update={"tokens": tokens}))
        except (httpx2.HTTPError, TimeoutError, UnsafeAddress, SidecarError) as error:
            reason = str(error) or type(error).__name__
            return httpx2.ConnectError(f"its authorization server does not answer: {reason}")
        finally:
            self._renewal = None
        return None


class Bearer(httpx2.Auth):
    """Sends the token along; one that is refused is renewed once, and then it is as it is."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        token = await self._access.token()
        if token is None:
            yield request
            return
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            other = await self._access.token_after(token)
            if other is not None:
                request.headers["Authorization"] = f"Bearer {other}"
                yield request


async def revoke(account: Account, exchange: Exchange) -> bool:
    """Tell the authorization server that its tokens are of no more use; False if it was not told.

    RFC 7009: with the refresh token go the access tokens that came of it.
    """
    tokens = account.tokens
    if tokens is None or account.revocation_endpoint is None:
        return False
    data = {"token": tokens.refresh_token or tokens.access_token}
    data["token_type_hint"] = "refresh_token" if tokens.refresh_token else "access_token"
    try:
        response = await exchange.send(_authenticated(account, account.revocation_endpoint, data))
    except (httpx2.HTTPError, TimeoutError, UnsafeAddress, SidecarError):
        return False
    return response.status_code == 200


def _refresh(account: Account, tokens: Tokens) -> httpx2.Request:
    assert tokens.refresh_token is not None
    data = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
    if account.resource is not None:
        data["resource"] = account.resource
    return _authenticated(account, account.token_endpoint, data)


def _authenticated(account: Account, url: str, data: dict[str, str]) -> httpx2.Request:
    """As RFC 6749 §2.3.1 has it."""
    headers = {"Accept": "application/json"}
    data = {**data, "client_id": account.client_id}
    secret = account.client_secret
    if secret is not None and account.auth_method == "client_secret_post":
        data["client_secret"] = secret
    elif secret is not None and account.auth_method == "client_secret_basic":
        pair = f"{quote(account.client_id, safe='')}:{quote(secret, safe='')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return httpx2.Request("POST", url, data=data, headers=headers)


def _renewed_tokens(before: Tokens, response: httpx2.Response) -> Tokens | None:
    """None for a refusal; some servers say it with a 200."""
    if response.status_code != 200:
        return None
    with contextlib.suppress(ValidationError):
        given = OAuthToken.model_validate_json(response.content)
        return tokens_of(given, before.scope, before.refresh_token)
    return None


def tokens_of(given: OAuthToken, scope: str | None, refresh_token: str | None) -> Tokens:
    """What an authorization server has just given; it leaves out what is as it was."""
    obtained_at = time.time()
    return Tokens(
        access_token=given.access_token,
        refresh_token=given.refresh_token or refresh_token,
        obtained_at=obtained_at,
        expires_at=None if given.expires_in is None else obtained_at + given.expires_in,
        scope=given.scope or scope,
    )

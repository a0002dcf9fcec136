"""One sign-in: from a server's challenge to an account with tokens, with a person in between.

The flow is the SDK's: discovery, who we are (a client metadata document, a client registered by
hand or on the spot), PKCE, the resource, the issuer's checks, more scopes on top of those that
were granted. It is driven here with the answer that the server has already given, so that nothing
of it happens by itself, and calls to the server go on meanwhile.
Importing this imports the SDK, so it is loaded off the loop.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
)
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import LATEST_PROTOCOL_VERSION
from pydantic import AnyUrl

from sidecar import __version__
from sidecar.config import OAuthConfig
from sidecar.mcp_host.access import Exchange, UnsafeAddress, tokens_of
from sidecar.mcp_host.challenge import Challenge
from sidecar.mcp_host.loopback import PortTaken, Redirect, listening
from sidecar.mcp_host.vault import Account, Tokens

URL_BYTES = 2048

OnUrl = Callable[[str], None]
OnSecret = Callable[[str], None]


class SignInRefused(Exception):
    """`str(error)` is what the authorization server, or the person there, said instead of yes."""


class SignInExpired(Exception):
    """Nobody came back from the browser in time."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a sign-in needs. `known` is the account that there is already, `limit_s` a person's."""

    server_url: str
    config: OAuthConfig
    challenge: Challenge
    known: Account | None
    exchange: Exchange
    limit_s: float
    on_secret: OnSecret

    async def run(self, on_url: OnUrl) -> Account:
        """`on_url` is given the address for the person's browser; then their answer is awaited.

        Raises SignInRefused, SignInExpired, UnsafeAddress, PortTaken, SidecarError, and whatever
        the SDK and its HTTP client raise.
        """
        known = self._reusable()
        if known is not None and self.config.redirect_uri is None:
            try:
                return await self._run(known, known.redirect_uri, on_url)
            except PortTaken:
                known = None  # registered for an address that is another's now
        return await self._run(known, self.config.redirect_uri, on_url)

    def _reusable(self) -> Account | None:
        """The account whose registration may be used again."""
        known, config = self.known, self.config
        if known is None or config.client_id is not None:
            return None
        is_document = known.client_id == config.client_metadata_url
        if config.client_metadata_url is not None and not is_document:
            return None
        is_there = config.redirect_uri in (None, known.redirect_uri)
        return known if is_there else None

    async def _run(self, known: Account | None, uri: str | None, on_url: OnUrl) -> Account:
        async with listening(uri) as redirect:
            provider = _Provider(self, known, redirect, on_url)
            await self._drive(provider)
        return provider.account()

    async def _drive(self, provider: "_Provider") -> None:
        """Answer the SDK's flow: first with the challenge, then with what others answer to it."""
        version = {MCP_PROTOCOL_VERSION_HEADER: LATEST_PROTOCOL_VERSION}
        request = httpx2.Request("POST", self.server_url, headers=version)
        challenge = self._wanted()
        headers = {"WWW-Authenticate": challenge.header}
        response = httpx2.Response(challenge.status, headers=headers, request=request)
        async with aclosing(provider.async_auth_flow(request)) as flow:
            await anext(flow)
            while (outgoing := await flow.asend(response)) is not request:
                response = await self.exchange.send(outgoing)

    def _wanted(self) -> Challenge:
        """The person's own scopes count for more than the server's."""
        scopes = self.config.scopes
        if scopes is None:
            return self.challenge
        more = self.challenge.scopes if self.challenge.wants_more else ()
        return self.challenge.asking_for((*scopes, *more))


class _Provider(OAuthClientProvider):
    def __init__(
        self, sign_in: SignIn, known: Account | None, redirect: Redirect, on_url: OnUrl
    ) -> None:
        self._sign_in = sign_in
        self._redirect = redirect
        self._on_url = on_url
        self._state = ""
        self._storage = _Storage(sign_in, known)
        super().__init__(
            sign_in.server_url,
            OAuthClientMetadata(
                redirect_uris=[AnyUrl(redirect.uri)],
                client_name="sidecar",
                software_id="sidecar",
                software_version=__version__,
            ),
            self._storage,
            self._show,
            self._wait,
            sign_in.config.client_metadata_url,
        )

    def account(self) -> Account:
        context = self.context
        client, metadata, tokens = context.client_info, context.oauth_metadata, self._storage.given
        assert client is not None and tokens is not None
        revocation = None if metadata is None else metadata.revocation_endpoint
        has_resource = context.should_include_resource_param(LATEST_PROTOCOL_VERSION)
        return Account(
            server_url=self._sign_in.server_url,
            issuer=self._expected_issuer() if metadata is None else str(metadata.issuer),
            client_id=client.client_id,
            client_secret=client.client_secret,
            auth_method=client.token_endpoint_auth_method,
            redirect_uri=self._redirect.uri,
            token_endpoint=self._get_token_endpoint(),
            revocation_endpoint=None if revocation is None else str(revocation),
            resource=context.get_resource_url() if has_resource else None,
            tokens=tokens,
        )

    async def _perform_authorization(self) -> httpx2.Request:
        client = self.context.client_info
        if client is not None and client.token_endpoint_auth_method is None:
            client.token_endpoint_auth_method = _auth_method(client, self.context.oauth_metadata)
        return await super()._perform_authorization()

    async def _show(self, url: str) -> None:
        self._sign_in.exchange.check(url)
        if len(url.encode()) > URL_BYTES:
            raise UnsafeAddress(f"The address to sign in at has more than {URL_BYTES} bytes.")
        [self._state] = parse_qs(urlsplit(url).query)["state"][-1:]
        self._sign_in.on_secret(self._state)
        self._on_url(url)

    async def _wait(self) -> AuthorizationCodeResult:
        try:
            async with asyncio.timeout(self._sign_in.limit_s):
                answer = await self._redirect.answer(self._state)
        except TimeoutError as error:
            raise SignInExpired from error
        if answer.error is not None:
            raise SignInRefused(answer.error)
        self._sign_in.on_secret(answer.code)
        return AuthorizationCodeResult(code=answer.code, state=self._state, iss=answer.iss)


class _Storage:
    """What the SDK's flow begins with, and what it was given."""

    def __init__(self, sign_in: SignIn, known: Account | None) -> None:
        self._sign_in = sign_in
        self._known = known
        self.given: Tokens | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The scopes that were granted, for more of them; a token that was refused is none."""
        account = self._sign_in.known
        if account is None or account.tokens is None or not self._sign_in.challenge.wants_more:
            return None
        return OAuthToken(access_token=account.tokens.access_token, scope=account.tokens.scope)

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.given = tokens_of(tokens, None, None)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        config, known = self._sign_in.config, self._known
        if config.client_id is not None:
            return OAuthClientInformationFull(
                client_id=config.client_id, client_secret=config.client_secret
            )
        if known is None:
            return None
        return OAuthClientInformationFull(
            client_id=known.client_id,
            client_secret=known.client_secret,
            token_endpoint_auth_method=known.auth_method,
            issuer=known.issuer,
        )

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        if client_info.client_secret is not None:
            self._sign_in.on_secret(client_info.client_secret)


def _auth_method(client: OAuthClientInformationFull, metadata: OAuthMetadata | None) -> str:
    """How a client that nobody told it shows its secret, if it has one; RFC 8414's default."""
    if client.client_secret is None:
        return "none"
    supported = metadata and metadata.token_endpoint_auth_methods_supported
    for method in ("client_secret_basic", "client_secret_post"):
        if method in (supported or ["client_secret_basic"]):
            return method
    return "none"

"""Signing in to one MCP server: begun and ended by a person, never by itself.

At most one sign-in waits at a time; another takes its place. What it brings is kept by the vault,
and goes with each request from then on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from sidecar.config import McpServerConfig
from sidecar.errors import Conflict, McpAuthRequired, SidecarError
from sidecar.mcp_host.catalogue import cut
from sidecar.mcp_host.challenge import Challenge
from sidecar.mcp_host.diagnosis import reason
from sidecar.mcp_host.secrets import Reveal, revealed
from sidecar.mcp_host.vault import Account, Vault
from sidecar.protocol.mcp import McpAuthorization
from sidecar.threads import load_modules
from sidecar.visible import visible

if TYPE_CHECKING:
    import ssl

    from sidecar.mcp_host.access import Access, Bearer, Exchange

SIGN_IN_S = 300.0  # for a person in a browser
SCOPES = 64  # shown, and of each so many bytes
SCOPE_BYTES = 256

Way = Callable[[str], Awaitable[tuple["ssl.SSLContext | None", str | None]]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where a person signs in, and until when (RFC 3339)."""

    url: str
    expires_at: str


class Authorizing:
    """`challenge` is the last that the server said. Used inside `McpServer.run`."""

    def __init__(
        self,
        server: str,
        config: McpServerConfig,
        vault: Vault,
        way: Way,
        reveal: Reveal,
        on_end: Callable[[McpAuthRequired | None], Awaitable[None]] | None = None,
    ) -> None:
        """`on_end` is told how a sign-in ended: with nothing when the person is signed in."""
        self.challenge: Challenge | None = None
        self._asked_for: frozenset[str] = frozenset()  # scopes, since this program started
        self._server = server
        self._config = config
        self._vault = vault
        self._way = way
        self._reveal = reveal
        self._on_end = on_end
        self._tasks: asyncio.TaskGroup | None = None
        self._access: Access | None = None
        self._pending: asyncio.Task[None] | None = None

    @property
    def is_possible(self) -> bool:
        """A token that the person wrote down counts for more than one that we could get."""
        names = {name.lower() for name in self._config.headers}
        return self._config.url is not None and "authorization" not in names

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """Sign-ins and renewals run in `tasks`, and end with it."""
        self._tasks = tasks

    async def auth(self, url: str) -> "Bearer | None":
        """What goes with each request."""
        if not self.is_possible or self._tasks is None:
            return None
        await load_modules("sidecar.mcp_host.access")
        from sidecar.mcp_host.access import Access, Bearer, Exchange

        if self._access is None:
            exchange = Exchange(url, self._way)
            self._access = Access(self._server, url, self._vault, exchange, self._tasks)
        return Bearer(self._access)

    def advice(self) -> str:
        """What a person does about a challenge."""
        if not self.is_possible:
            return "Check the `Authorization` in its `headers`, and restart it."
        how = f"Sign in to it in your chat program or with `sidecar mcp authorize {self._server}`"
        token = "or put a token into its `headers`, as `Authorization: Bearer …`, and restart it."
        problem = self._vault.problem
        return f"{how}, {token}" + ("" if problem is None else f" {problem}")

    def is_worth_asking(self, challenge: Challenge) -> bool:
        """False for a server that was given what it wants now, and wants it still.

        To sign in once more would bring the same again, and so on for ever.
        """
        is_given = bool(self._asked_for) and self._asked_for.issuperset(challenge.scopes)
        return not (challenge.wants_more and is_given)

    def status(self) -> McpAuthorization | None:
        account = None if self._config.url is None else self._vault.known(self._config.url)
        if not self.is_possible or account is None or account.tokens is None:
            return None
        scopes = (account.tokens.scope or "").split()[:SCOPES]
        return McpAuthorization(
            issuer=visible(account.issuer),
            scopes=tuple(cut(visible(scope), SCOPE_BYTES) for scope in scopes),
            kept=self._vault.is_kept,
        )

    async def begin(self) -> Invitation:
        """Raises Conflict where there is nothing to sign in to, and McpAuthRequired."""
        url, tasks = self._url(), self._tasks
        if tasks is None:
            raise Conflict(f"The MCP server {self._server} is disabled, or not started yet.")
        await load_modules("sidecar.mcp_host.oauth")
        while self._pending is not None:
            await self.cancel()
        shown: asyncio.Future[str | McpAuthRequired] = asyncio.get_running_loop().create_future()
        self._pending = tasks.create_task(
            self._sign_in(url, shown), name=f"sign in to {self._server}"
        )
        answer = await asyncio.shield(shown)
        if isinstance(answer, McpAuthRequired):
            raise answer
        until = datetime.fromtimestamp(time.time() + SIGN_IN_S, UTC)
        return Invitation(answer, until.isoformat(timespec="seconds").replace("+00:00", "Z"))

    async def cancel(self) -> None:
        """Returns when the one that waits, if any, is over."""
        pending = self._pending
        if pending is not None:
            pending.cancel()
            await asyncio.wait([pending])

    async def revoke(self) -> bool:
        """Forget the account, and tell the authorization server if it can be; False for none."""
        url = self._url()
        await self.cancel()
        account = await self._vault.find(url)
        if account is None:
            return False
        await load_modules("sidecar.mcp_host.access")
        from sidecar.mcp_host.access import Exchange, revoke

        self._asked_for = frozenset()
        await self._vault.remove(account)
        is_told = await revoke(account, Exchange(url, self._way))
        log.info("mcp_signed_out", server=self._server, told=is_told)
        return True

    def _url(self) -> str:
        """Raises Conflict where there is nothing to sign in to."""
        url = self._config.url
        if url is None or not self.is_possible:
            raise Conflict(
                f"There is nothing to sign in to for the MCP server {self._server}: it is a "
                "program on this machine, or its `headers` have an `Authorization`."
            )
        return url

    async def _sign_in(self, url: str, shown: asyncio.Future[str | McpAuthRequired]) -> None:
        from sidecar.mcp_host.access import Exchange

        failure: McpAuthRequired | None = None
        try:
            await self._vault.add(await self._account(url, Exchange(url, self._way), shown))
        except Exception as error:  # the SDK raises what it likes, of what a server has said
            failure = self._told(error)
        finally:
            self._pending = None
            if not shown.done():
                over = f"The sign-in to the MCP server {self._server} was cancelled."
                shown.set_result(failure or McpAuthRequired(over, server=self._server))
        log.info("mcp_sign_in_ended", server=self._server, ok=failure is None)
        if self._on_end is not None:
            await self._on_end(failure)

    async def _account(
        self, url: str, exchange: "Exchange", shown: asyncio.Future[str | McpAuthRequired]
    ) -> Account:
        from sidecar.mcp_host.oauth import SignIn

        known = await self._vault.find(url)
        if known is not None and known.tokens is None:
            # a registration that leads nowhere this time may be one that they have forgotten
            await self._vault.remove(known)
        config = await revealed(self._server, self._config, self._reveal)
        sign_in = SignIn(
            server_url=url,
            config=config.oauth,
            challenge=self.challenge or Challenge(401, ""),
            known=known,
            exchange=exchange,
            limit_s=SIGN_IN_S,
            on_secret=self._vault.on_secret,
        )
        account = await sign_in.run(shown.set_result)
        if sign_in.challenge.wants_more:
            self._asked_for |= frozenset(sign_in.challenge.scopes)
        return account

    def _told(self, error: Exception) -> McpAuthRequired:
        text = f"Signing in to the MCP server {self._server} failed: {self._cause(error)}"
        return McpAuthRequired(visible(text), server=self._server)

    def _cause(self, error: Exception) -> str:
        from mcp.client.auth import OAuthRegistrationError

        from sidecar.mcp_host.access import UnsafeAddress
        from sidecar.mcp_host.loopback import PortTaken
        from sidecar.mcp_host.oauth import SignInExpired, SignInRefused

        match error:
            case SignInRefused():
                return f"nothing was allowed there ({reason(error)}). Begin again if you want to."
            case SignInExpired():
                return f"nobody came back within {SIGN_IN_S / 60:g} minutes. Begin again."
            case OAuthRegistrationError():
                return (
                    f"{reason(error)}. If it wants programs to be registered by hand, do that, and "
                    f"write what you get into the settings: mcp.servers.{self._server}.oauth: "
                    "{client_id: …}."
                )
            case PortTaken():
                return f"{reason(error)}. End that program, or choose another oauth.redirect_uri."
            case SidecarError() | UnsafeAddress():
                return str(error)
            case _:
                return f"{reason(error)}. Begin again, or ask whoever runs the server."

"""An authorization server and a protected MCP server in the test's own loop, and a browser."""

import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from tests.support.mcp_http import HttpServer, Json


@dataclass
class Protected:
    """`mcp` takes the tokens of `authority`; what is written here changes how both behave."""

    mcp: HttpServer
    port: int = 0
    # what the authorization server does
    registers: bool = True
    denies: bool = False
    is_down: bool = False
    refuses_refresh: bool = False
    lives_s: int = 3600
    client: tuple[str, str] | None = None  # registered by hand
    metadata: Json = field(default_factory=dict)  # in place of its own
    # what the MCP server wants
    scope: str = "read"
    call_scope: str | None = None
    list_scope: str | None = None
    is_never_enough: bool = False
    # what they have seen
    registered: dict[str, Json] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    exchanges: list[dict[str, str]] = field(default_factory=list)
    revoked: list[dict[str, str]] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)  # tokens of both kinds
    tokens: dict[str, str] = field(default_factory=dict)  # that are good, with their scopes
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grants(self) -> list[str]:
        return [exchange["grant_type"] for exchange in self.exchanges]

    # ---- the MCP server -----------------------------------------------------------------

    async def guard(self, request: web.Request, message: Json) -> web.StreamResponse | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        metadata = f"http://{request.host}/.well-known/oauth-protected-resource/mcp"
        if token not in self.tokens:
            said = f'Bearer scope="{self.scope}", resource_metadata="{metadata}"'
            return web.Response(status=401, headers={"WWW-Authenticate": said})
        scopes = {"tools/call": self.call_scope, "tools/list": self.list_scope}
        wanted = scopes.get(str(message.get("method")))
        is_enough = wanted in self.tokens[token].split() and not self.is_never_enough
        if wanted is not None and not is_enough:
            said = f'Bearer error="insufficient_scope", scope="{wanted}"'
            return web.Response(status=403, headers={"WWW-Authenticate": said})
        return None

    async def resource(self, request: web.Request) -> web.Response:
        return web.json_response({"resource": self.mcp.url, "authorization_servers": [self.url]})

    # ---- the authorization server ---------------------------------------------------------

    async def describe(self, request: web.Request) -> web.Response:
        own: Json = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "revocation_endpoint": f"{self.url}/revoke",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        if self.registers:
            own["registration_endpoint"] = f"{self.url}/register"
        return web.json_response({**own, **self.metadata})

    async def register(self, request: web.Request) -> web.Response:
        if not self.registers:
            return web.Response(status=404)
        client_id = f"client-{len(self.registered) + 1}"
        self.registered[client_id] = asked = await request.json()
        given = {"client_id": client_id, "token_endpoint_auth_method": "none"}
        return web.json_response({**asked, **given}, status=201)

    async def authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append(query)
        client = self.registered.get(query["client_id"])
        if client is not None and query["redirect_uri"] not in client["redirect_uris"]:
            return web.Response(status=400, text="not the registered redirect_uri")
        answer = {"state": query["state"], "iss": self.url}
        if self.denies:
            answer["error"] = "access_denied"
        else:
            answer["code"] = code = secrets.token_urlsafe(8)
            self._codes[code] = query
        raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode(answer)}")

    async def token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.exchanges.append(form)
        if self.is_down:
            return web.Response(status=503)
        if not self._knows(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["grant_type"] == "refresh_token":
            scope = self.refresh_tokens.pop(form["refresh_token"], None)
            scope = None if self.refuses_refresh else scope
        else:
            asked = self._codes.pop(form["code"])
            proof = base64.urlsafe_b64encode(
                hashlib.sha256(form["code_verifier"].encode()).digest()
            )
            is_proven = proof.decode().rstrip("=") == asked["code_challenge"]
            is_same = form["redirect_uri"] == asked["redirect_uri"]
            scope = asked.get("scope", "") if is_proven and is_same else None
        if scope is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(self._new(scope))

    def _knows(self, request: web.Request, form: dict[str, str]) -> bool:
        if self.client is None:
            return form["client_id"] in self.registered
        pair = base64.b64encode(":".join(self.client).encode()).decode()
        return request.headers.get("Authorization") == f"Basic {pair}"

    def _new(self, scope: str) -> Json:
        access, refresh = f"at-{secrets.token_hex(8)}", f"rt-{secrets.token_hex(8)}"
        self.tokens[access], self.refresh_tokens[refresh] = scope, scope
        self.issued += (access, refresh)
        return {
            "access_token": access,
            "refresh_token": refresh,
            "token_type": "bearer",
            "expires_in": self.lives_s,
        }

    async def revoke(self, request: web.Request) -> web.Response:
        self.revoked.append({name: str(value) for name, value in (await request.post()).items()})
        return web.Response()


@contextlib.asynccontextmanager
async def protected() -> AsyncIterator[Protected]:
    place = Protected(HttpServer())
    place.mcp.before = place.guard
    place.mcp.routes = [web.get("/.well-known/oauth-protected-resource/mcp", place.resource)]
    app = web.Application()
    app.router.add_get("/.well-known/oauth-authorization-server", place.describe)
    app.router.add_post("/register", place.register)
    app.router.add_get("/authorize", place.authorize)
    app.router.add_post("/token", place.token)
    app.router.add_post("/revoke", place.revoke)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    place.port = runner.addresses[0][1]
    await place.mcp.start()
    try:
        yield place
    finally:
        await place.mcp.stop()
        await runner.cleanup()


@dataclass(frozen=True)
class Page:
    """What a person sees at the end, and the headers of it."""

    status: int
    text: str
    headers: dict[str, str]


async def browse(url: str, **more: Any) -> Page:
    """Follow an address as a browser does."""
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as session,
        session.get(url, **more) as response,
    ):
        return Page(response.status, await response.text(), dict(response.headers))

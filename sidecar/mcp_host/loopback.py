"""Where the browser comes back to after a person signed in: a listener for one answer.

It listens on this machine only, as long as a sign-in waits, on the port that a registration pins.
Whoever calls it without the unguessable `state` of that sign-in changes nothing.
"""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web

HOST = "127.0.0.1"
PATH = "/callback"
CLOSE_S = 1.0  # for the page to reach the browser
FIELD_CHARS = 300  # of what an authorization server says went wrong
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>sidecar</title>
<h1>{title}</h1>
<p>{text}</p>
</html>
"""
DONE = ("You can close this tab", "The rest happens in your chat program.")
REFUSED = ("Nothing was allowed", "You can close this tab, and begin again in your chat program.")
STRANGE = ("Nobody waits for this", "The sign-in is over, or another was begun since.")


class PortTaken(Exception):
    """Another program listens where the browser would come back to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `iss` is RFC 9207's, and `error` stands in place of a code."""

    code: str = field(repr=False)
    iss: str | None
    error: str | None


class Redirect:
    """Listening at `uri`. Made by `listening`, for one answer."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._state: bytes | None = None
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def answer(self, state: str) -> Answer:
        """Wait for the answer to the request that had this `state`."""
        self._state = state.encode()
        return await self._answer

    async def serve(self, request: web.Request) -> web.Response:
        given = request.query.get("state", "").encode(errors="replace")
        is_right = self._state is not None and hmac.compare_digest(given, self._state)
        if not is_right or self._answer.done():
            return _page(STRANGE, 400)
        code, error = request.query.get("code", ""), _error(request)
        self._answer.set_result(Answer(code, request.query.get("iss"), error))
        return _page(DONE if error is None else REFUSED, 200)


@contextlib.asynccontextmanager
async def listening(uri: str | None) -> AsyncIterator[Redirect]:
    """At this address, or at any free port. Raises PortTaken."""
    parts = urlsplit(uri or f"http://{HOST}:0{PATH}")
    application = web.Application()
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=CLOSE_S)
    host = HOST if parts.hostname in (None, "localhost") else parts.hostname
    redirect = Redirect(uri or "")
    application.router.add_get(parts.path or "/", redirect.serve)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, parts.port or 0).start()
        except OSError as error:
            raise PortTaken(f"port {parts.port} cannot be listened on: {error.strerror}") from error
        redirect.uri = uri or f"http://{HOST}:{runner.addresses[0][1]}{PATH}"
        yield redirect
    finally:
        await runner.cleanup()


def _error(request: web.Request) -> str | None:
    code = request.query.get("error")
    if code is None:
        return None if request.query.get("code") else "no code was given"
    description = request.query.get("error_description")
    said = code if description is None else f"{code}: {description}"
    return said[:FIELD_CHARS]


def _page(words: tuple[str, str], status: int) -> web.Response:
    title, text = words
    return web.Response(
        text=PAGE.format(title=title, text=text),
        content_type="text/html",
        charset="utf-8",
        status=status,
        headers=HEADERS,
    )

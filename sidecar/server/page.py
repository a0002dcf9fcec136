"""What `GET /` shows: what this is and how to connect. It has no script and no secret."""

import base64
import hashlib
from html import escape

from sidecar import __version__
from sidecar.protocol import PROTOCOL_VERSION

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1rem; }
code { background: #8882; padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
:root { color-scheme: light dark; }
"""

_style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_style_hash}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(http: str, socket: str) -> str:
    """`http` and `socket` are our own addresses."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>sidecar</title>
<style>{STYLE}</style>
<h1>sidecar {escape(__version__)}</h1>
<p>A chat backend is running here, for programs on this computer: it talks to language models with
your own keys and to your own MCP servers. It sends nothing anywhere else.</p>
<h2>To connect</h2>
<p>Open a WebSocket to <code>{escape(socket)}</code> (protocol {PROTOCOL_VERSION}) with the token
that the sidecar printed when it started: as the header <code>Authorization: Bearer TOKEN</code>, or
from a page as the subprotocols <code>sidecar, sidecar.token.TOKEN</code>. Then send</p>
<p><code>{{"action": "chat", "payload": {{"text": "Hi"}}, "request_id": "1"}}</code></p>
<p>A page's origin must be listed in <code>server.allowed_origins</code>. Every action is described
by <code>sidecar schema --format markdown</code>. From a terminal, try
<code>sidecar chat "Hi"</code>.</p>
<p>Health: <code>{escape(http)}/healthz</code>, <code>{escape(http)}/readyz</code>.</p>
"""

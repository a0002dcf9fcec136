"""The page in the person's browser: whether one can be opened, and opening it.

The address has a code in it and stands in the browser's command line, which others may read: that
is why a code is good once, and for a minute. It goes nowhere else from here, least of all into a
log. Knows no settings and no server.
"""

import json
import os
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

from sidecar.environment import before_bundle
from sidecar.redaction import is_secret_name
from sidecar.threads import run_in_thread

ASK_S = 3.0  # of another sidecar on this machine, which may be busy starting
ANSWER_BYTES = 4096


async def open_page(url: str) -> bool:
    """False where no browser can be opened. It may take as long as a browser in a terminal runs."""
    if not can_open(os.environ):
        return False
    _leave_out_secrets()

    def browse() -> bool:
        import webbrowser  # looks for browsers when it is used, with programs of the desktop

        try:
            return webbrowser.open(url)
        except (webbrowser.Error, OSError, ValueError, LookupError):  # also for a strange BROWSER
            return False

    return await run_in_thread(browse, "browser")


def can_open(environ: Mapping[str, str]) -> bool:
    """BROWSER says how; else it takes a display, and a session that is not somebody else's."""
    if environ.get("BROWSER"):
        return True
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in environ  # it would open on a screen in another room
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


async def ask_for_code(address: str, token: str) -> str | None:
    """A code for the page of the sidecar at `address`; None from one that gives none."""
    return await run_in_thread(lambda: _fetch_code(address, token), "code")


def _fetch_code(address: str, token: str) -> str | None:
    import http.client  # only a second start asks

    at = urlsplit(address)
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.hostname or "", at.port, timeout=ASK_S)  # no proxy, no redirect
    try:
        connection.request("POST", "/api/code", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        code = json.loads(answer.read(ANSWER_BYTES))["code"] if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return None  # it is ending, or of another version
    finally:
        connection.close()
    return code if isinstance(code, str) else None


def _leave_out_secrets() -> None:
    """Out of os.environ, from where `webbrowser` gives it to its children; nobody reads it there.

    A desktop's start-up token is no secret, and without it the window stays behind the others.
    """
    outer = before_bundle(os.environ)
    for name in tuple(os.environ):
        is_ours = name.startswith("SIDECAR_") or is_secret_name(name)
        if name not in outer or (is_ours and not name.startswith("XDG_")):
            del os.environ[name]
        else:
            os.environ[name] = outer[name]

"""What of our own variables a server sees.

A child gets a short list of ours and its entry's `env`, nothing else: keys and tokens of this
program never reach a server that was not given them.
"""

import os
import sys
from collections.abc import Mapping

from sidecar.environment import LIBRARIES, before_bundle

# What the MCP SDK lets through, and what its short list is known to break without.
# fmt: off
_POSIX = (
    "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR",
    "COLORTERM", "NO_COLOR", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
)
_WINDOWS = (
    "APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT",
    "PROCESSOR_ARCHITECTURE", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME",
    "USERPROFILE", "COMSPEC", "WINDIR", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)",
    "PROGRAMW6432", "COMMONPROGRAMFILES", "ALLUSERSPROFILE", "PUBLIC",
)
_NETWORK = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)
# fmt: on
_INHERITED = frozenset((_WINDOWS if sys.platform == "win32" else _POSIX) + _NETWORK)
_INHERITED_PREFIXES = ("LC_", "XDG_")


def child_environment(
    own: Mapping[str, str], inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`own` is the entry's `env` and wins over what is inherited from this process."""
    ours = before_bundle(os.environ if inherited is None else inherited)
    env = {name: value for name, value in ours.items() if is_inherited(name, value)}
    if getattr(sys, "frozen", False) and LIBRARIES in ours:
        env[LIBRARIES] = ours[LIBRARIES]
    if sys.platform == "win32":  # names differ in case only there, and os.environ has them in upper
        own = {name.upper(): value for name, value in own.items()}
    return {**env, **own}


def is_inherited(name: str, value: str) -> bool:
    """Whether a variable of ours goes to a child."""
    if value.startswith("()"):
        return False  # a function exported by an old bash
    # proxy variables are written in both cases
    return name.upper() in _INHERITED or name.startswith(_INHERITED_PREFIXES)

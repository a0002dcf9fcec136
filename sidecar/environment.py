"""Our environment as it was before the built program's launcher changed it, for children."""

import sys
from collections.abc import Mapping

LIBRARIES = "LD_LIBRARY_PATH"
_OF_LAUNCHER = ("_PYI_", "_MEIPASS")


def before_bundle(ours: Mapping[str, str]) -> dict[str, str]:
    """Without what only the launcher's own processes may see.

    The launcher points the library path at the bundle's libraries and keeps the one from before
    under another name; a program of the system breaks with ours.
    """
    env = {name: value for name, value in ours.items() if not name.startswith(_OF_LAUNCHER)}
    if getattr(sys, "frozen", False):
        env.pop(LIBRARIES, None)
        if (original := ours.get(f"{LIBRARIES}_ORIG")) is not None:
            env[LIBRARIES] = original
    return env

"""The plain chat page: its files, and the policy that every answer carries.

It is written by hand and needs no build. It has no secret: what it may do comes from the code in
its address, which `sessions` exchanges.
"""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "web" / "plain"
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
FILES = {"/": "index.html", "/plain.css": "plain.css", "/plain.js": "plain.js"}


def content_security_policy(origin: str) -> str:
    """`origin` is our own; 'self' is not enough for the socket in every browser."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        f"connect-src 'self' {origin.replace('http', 'ws', 1)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


@cache
def load(path: str) -> tuple[str, str]:
    """The text behind one of FILES, and its content type; read once, when it is asked for."""
    name = FILES[path]
    text = Path(FOLDER, name).read_text("utf-8")
    return text, _TYPES[name.rpartition(".")[2]]

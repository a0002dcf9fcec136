"""The chat page: its files, and the policy that every answer carries.

It has no secret: what it may do comes from the code in its address, which `sessions` exchanges.
Where the page was not built, as in a checkout without a network, a plain one stands in for it,
which is written by hand.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

WEB = Path(__file__).parent.parent / "web"
BUILT, PLAIN = WEB / "dist", WEB / "plain"
INDEX = "index.html"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".txt": "text/plain"}


def folder() -> Path:
    return BUILT if (BUILT / INDEX).exists() else PLAIN


def files(folder: Path) -> Mapping[str, Path]:
    """The page's files, by the path under which each is served."""
    served = (file for file in folder.iterdir() if file.suffix in _TYPES)
    return {"/" if file.name == INDEX else f"/{file.name}": file for file in served}


def content_security_policy(origin: str) -> str:
    """`origin` is our own; 'self' is not enough for the socket in every browser.

    `dompurify` is the only policy that may make markup: the one of the library that cleans it.
    """
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; "
        f"connect-src 'self' {origin.replace('http', 'ws', 1)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    )


@cache
def load(file: Path) -> tuple[bytes, str]:
    """Its bytes and its content type; read once, when it is asked for."""
    return file.read_bytes(), _TYPES[file.suffix]

"""What Python and its libraries do on the way to the ready line, and nobody needs there.

A start has no garbage, and looking for some takes a tenth of its time. aiohttp reads the
system's certificate authorities when it is imported, twice and each time all of them, which is
the longest single step of a start, for contexts that are not ours. Starts nothing; knows nothing
about sidecars.
"""

import contextlib
import gc
import ssl
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Nothing is collected inside; what is there at the end is never looked through again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def without_certificates() -> Iterator[None]:
    """For imports only: a TLS context that is made inside reads none, and so trusts nobody.

    They are aiohttp's defaults. All of our ways out have a context of their own, which `network`
    describes; what forgets that is refused, instead of trusting something else.
    """

    def read_none(context: ssl.SSLContext, *purpose: ssl.Purpose) -> None:
        """In the place of what reads them."""

    with (
        _replaced("load_default_certs", read_none),
        _replaced("set_default_verify_paths", read_none),
    ):
        yield


@contextlib.contextmanager
def _replaced(name: str, function: Callable[..., None]) -> Iterator[None]:
    before = getattr(ssl.SSLContext, name)
    setattr(ssl.SSLContext, name, function)
    try:
        yield
    finally:
        setattr(ssl.SSLContext, name, before)

"""What Python and its libraries do on the way to the ready line, though it can wait.

A start has no garbage, and looking for some takes a tenth of its time. aiohttp reads the
system's certificate authorities when it is imported, twice and each time all of them, which is
the longest single step of a start; nobody needs them before the first request to a vendor.
Starts nothing; knows nothing about sidecars.
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


class Certificates:
    """Reading them, put off while aiohttp is imported. `read` them before they are needed."""

    def __init__(self) -> None:
        self._put_off: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """For imports only: a context that is made inside trusts nobody until `read`."""
        load, set_paths = ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths

        def load_later(
            context: ssl.SSLContext, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH
        ) -> None:
            self._put_off.append(lambda: load(context, purpose))

        def set_paths_later(context: ssl.SSLContext) -> None:
            self._put_off.append(lambda: set_paths(context))

        with (
            _replaced("load_default_certs", load_later),
            _replaced("set_default_verify_paths", set_paths_later),
        ):
            yield

    def read(self) -> None:
        """Blocks for as long as the import would have; once, and then nothing."""
        while self._put_off:
            self._put_off.pop()()


@contextlib.contextmanager
def _replaced(name: str, function: Callable[..., None]) -> Iterator[None]:
    before = getattr(ssl.SSLContext, name)
    setattr(ssl.SSLContext, name, function)
    try:
        yield
    finally:
        setattr(ssl.SSLContext, name, before)

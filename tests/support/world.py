"""A whole sidecar in the test's own process, in a home of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from sidecar.app import App, World, open_app
from sidecar.config import Flags, load
from sidecar.credentials import Keyring
from sidecar.lifetime import Lifetime
from sidecar.paths import Folders
from sidecar.redaction import redact_value
from tests.support.keyrings import MemoryKeyring

TOKEN = "t0ken-" + "x" * 40


def world(
    home: Path, settings: str = "", *, demo: bool = False, environ: Mapping[str, str] | None = None
) -> World:
    """`settings` is the person's file; the port is any free one."""
    folders = Folders(home / "config", home / "data", home / "log")
    folders.make()
    folders.settings_file.write_text(settings)
    environ = {"SIDECAR_CHAT__TITLES": "words", **(environ or {})}  # a title is one more request
    loaded = load(folders, environ=environ, flags=Flags(demo=demo), managed=True)
    return World(
        settings=loaded,
        folders=folders,
        environ=environ,
        keyring=Keyring("sidecar", MemoryKeyring),
        token=TOKEN,
        redact=redact_value,
        demo=demo,
    )


@contextlib.asynccontextmanager
async def running(place: World) -> AsyncIterator[App]:
    """Listening, its servers starting; ended when the context is left.

    It lives in a task of its own, since a fixture is entered and left in different ones.
    """
    started: asyncio.Future[App] = asyncio.get_running_loop().create_future()
    lifetime = Lifetime()

    async def live() -> None:
        try:
            async with open_app(place, lifetime) as app:
                app.begin()
                started.set_result(app)
                await lifetime.stopping.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    task = asyncio.create_task(live(), name="sidecar")
    try:
        yield await started
    finally:
        lifetime.stop("test")
        await task

"""Blocking work in daemon threads of our own, so that it can neither stall the loop nor an exit.

Never the default executor: `asyncio.run` waits for that one at the end, deadline or not.
"""

import asyncio
import contextlib
import contextvars
import importlib
import threading
from collections.abc import Callable
from typing import TypeVar

from sidecar.starting import without_collections

T = TypeVar("T")

_importing = threading.Lock()  # two threads inside one package's import can see half of it
_imported: set[str] = set()  # sys.modules has a module before it is complete


async def run_in_thread(function: Callable[[], T], name: str) -> T:
    """Run `function` off the loop. Cancelling the caller abandons the thread; it ends by itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where T has it

    def run() -> None:
        result, problem = None, None
        try:
            result = function()
        except BaseException as error:  # whatever it is, it belongs to the caller
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, result, problem)

    context = contextvars.copy_context()  # so that a log line keeps its run and connection
    threading.Thread(target=context.run, args=(run,), name=name, daemon=True).start()
    return await future


async def load_modules(*names: str) -> None:
    """Import heavy modules off the loop; returns at once when they are there."""
    if _imported.issuperset(names):
        return

    def load() -> None:
        with _importing, without_collections():  # or all threads stop for 0.1 s
            for name in names:
                importlib.import_module(name)
                _imported.add(name)

    await run_in_thread(load, f"import {names[0]}")

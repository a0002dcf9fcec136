import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

from sidecar.threads import load_modules, run_in_thread


async def test_a_result_comes_back_from_a_daemon_thread() -> None:
    def work() -> tuple[str, bool]:
        thread = threading.current_thread()
        return thread.name, thread.daemon

    assert await run_in_thread(work, "worker") == ("worker", True)


async def test_an_error_is_raised_to_the_caller() -> None:
    def work() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await run_in_thread(work, "worker")


async def test_the_thread_sees_the_context_of_its_caller() -> None:
    run = contextvars.ContextVar("run", default="none")
    run.set("r1")

    assert await run_in_thread(run.get, "worker") == "r1"


async def test_a_deadline_leaves_a_hanging_thread_behind() -> None:
    release = threading.Event()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_in_thread(lambda: release.wait(10), "worker")

    release.set()


def test_a_hanging_thread_does_not_keep_the_program_from_ending() -> None:
    program = """
import asyncio, contextlib, threading
from sidecar.threads import run_in_thread

async def main():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_in_thread(threading.Event().wait, "hangs")

asyncio.run(main())
"""

    ended = subprocess.run([sys.executable, "-c", program], timeout=10, capture_output=True)

    assert (ended.returncode, ended.stderr) == (0, b"")


async def test_a_thread_that_outlives_its_loop_is_quiet() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(10)

    def live_shortly() -> None:
        async def main() -> None:
            async with asyncio.timeout(0.05):
                await run_in_thread(work, "outlives")

        with pytest.raises(TimeoutError):
            asyncio.run(main())
        ended.set()

    await run_in_thread(live_shortly, "short loop")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "outlives"]
    release.set()
    thread.join(10)

    assert started.is_set() and ended.is_set() and not thread.is_alive()


async def test_modules_are_loaded_once_and_in_full() -> None:
    await asyncio.gather(*(load_modules("wave", "colorsys") for _ in range(4)))

    assert "colorsys" in sys.modules and sys.modules["wave"].open is not None


async def test_a_module_that_is_missing_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        await load_modules("sidecar_has_no_such_module")

"""How fast the built program starts, and how much memory it holds: `start.py PATH [--rounds N]`.

Times depend on the machine, so the one that counts is a ratio: from the spawn to the answer to
the first hello, over a hello-world in a one-file bundle of the same options, taken in turns. The
settings are the shipped ones, so that what the program loads behind its ready line is counted.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import psutil
from build import build, executable, folder_bytes

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))  # for the fake vendor

from sidecar.client import Client, connect  # noqa: E402
from tests.support.fake_openai import Answer, FakeOpenAI  # noqa: E402
from tests.support.wire_formats import ResponsesFormat  # noqa: E402

GOAL = 5.0
STEP_S = 60.0  # a hang must not hold whoever measures
CALM_S = 1.0  # without work for so long, it has loaded what it loads
CALM_SHARE = 0.05  # of one core
TOKEN = "m" * 43


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the start and the memory of a build.")
    parser.add_argument("path", metavar="PATH", type=Path, help="the built program")
    parser.add_argument("--hello", metavar="PATH", type=Path, help="an earlier build of hello")
    parser.add_argument("--rounds", metavar="N", type=int, default=11)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-start-") as folder:
        hello = (given.hello or _build_hello(Path(folder))).resolve()
        program = given.path.resolve()
        _print_size(program)
        asyncio.run(_measure(program, hello, Path(folder), given.rounds))


async def _measure(program: Path, hello: Path, home: Path, rounds: int) -> None:
    await _print_ratio(program, hello, home, rounds)
    if sys.platform == "linux":
        await _print_memory(program, home)
    else:
        print("memory    only Linux tells what is shared by two processes")


def _build_hello(folder: Path) -> Path:
    build(folder / "dist", folder / "work", "--hello")
    return executable(folder / "dist", "hello")


def _print_size(program: Path) -> None:
    size = program.stat().st_size
    inside = program.parent / "_internal"
    with_folder = f", {(size + folder_bytes(inside)) / 1e6:.1f} MB with its folder"
    print(f"size      {size / 1e6:.1f} MB{with_folder if inside.is_dir() else ''}")


async def _print_ratio(program: Path, hello: Path, home: Path, rounds: int) -> None:
    ours, least = [], []
    for _ in range(rounds + 1):
        least.append(await _time_hello(hello, home))
        ours.append(await _time_program(program, home))
    del least[0], ours[0]  # the first read of a file is the disk's
    print(f"hello     {_summary(least)}, to its line")
    print(f"sidecar   {_summary(ours)}, to the answer to hello")
    ratio = statistics.median(ours) / statistics.median(least)
    verdict = "within" if ratio <= GOAL else "beyond"
    print(f"ratio     {ratio:.2f}, {verdict} the goal of {GOAL:g}; {rounds} rounds in turns")


def _summary(times_s: list[float]) -> str:
    low, middle, high = min(times_s), statistics.median(times_s), max(times_s)
    return f"{middle * 1000:.0f} ms ({low * 1000:.0f} to {high * 1000:.0f})"


async def _time_hello(hello: Path, home: Path) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        str(hello), stdout=asyncio.subprocess.PIPE, env=_environment(home)
    )
    assert process.stdout is not None
    async with asyncio.timeout(STEP_S):
        line = await process.stdout.readline()
        took = time.perf_counter() - began
        await process.wait()
    return took if line else _stop(f"{hello} said nothing.")


async def _time_program(program: Path, home: Path) -> float:
    began = time.perf_counter()
    async with _running(program, home):
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def _running(
    program: Path, home: Path, *arguments: str
) -> AsyncIterator[tuple[Client, psutil.Process]]:
    """A client that has said hello; on leaving, the program has ended."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(str(program), "--managed", *arguments), stdin=pipe, stdout=pipe, env=_environment(home)
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(STEP_S):
            ready = json.loads(await process.stdout.readline() or b"{}")
        if ready.get("event") != "ready":
            _stop(f"{program} did not start: {ready.get('message', 'it said nothing')}")
        async with connect(ready["url"], TOKEN) as client:
            yield client, psutil.Process(process.pid)
    finally:
        process.stdin.close()
        async with asyncio.timeout(STEP_S):
            await process.wait()


async def _print_memory(program: Path, home: Path) -> None:
    """Of the launcher and the program; what two processes share counts half for each."""
    async with FakeOpenAI() as vendor:
        vendor.will(Answer(ResponsesFormat().text("Hello.")))
        openai = {"providers": {"openai": {"base_url": vendor.url, "api_key": "sk-none"}}}
        demo = {"chat": {"model": "demo/scripted"}, "providers": {"demo": {"kind": "demo"}}}
        for name, settings in (("openai", openai), ("demo", demo)):
            file = home / "settings.yaml"
            file.write_text(json.dumps(settings))
            async with _running(program, home, "--config", str(file)) as (client, process):
                await _until_calm(process)
                idle = _proportional(process)
                async with asyncio.timeout(STEP_S):
                    await (await client.chat("hello")).finished()
                await _until_calm(process)
                used = _proportional(process)
            print(f"memory    {_sum(idle)} idle, {_sum(used)} after a first chat; model of {name}")


async def _until_calm(process: psutil.Process) -> None:
    async with asyncio.timeout(STEP_S):
        worked = None
        while worked is None or _worked(process) - worked > CALM_SHARE * CALM_S:
            worked = _worked(process)
            await asyncio.sleep(CALM_S)


def _worked(process: psutil.Process) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in _family(process))


def _proportional(process: psutil.Process) -> list[int]:
    return [one.memory_full_info().pss for one in _family(process)]


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _sum(parts: list[int]) -> str:
    shares = [f"{part / 1e6:.1f}" for part in parts]
    return f"{sum(map(float, shares)):.0f} MB ({' + '.join(shares)})"


def _environment(home: Path) -> dict[str, str]:
    """A home of its own, and the token, which is then not in the ready line."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "SIDECAR_TOKEN": TOKEN}


def _stop(sentence: str) -> NoReturn:
    sys.exit(f"start.py: {sentence}")


if __name__ == "__main__":
    main()

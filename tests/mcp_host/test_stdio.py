"""Pipes of a child process: lines in, lines kept of what it says, nothing left behind."""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sidecar.config import McpServerConfig
from sidecar.mcp_host.environment import Launch
from sidecar.mcp_host.guardian import Guardian
from sidecar.mcp_host.hiding import hiding
from sidecar.mcp_host.stderr import FILE_BYTES, LINES, TAIL_BYTES, ServerLog
from sidecar.mcp_host.stdio import LineBuffer, ServerProcess, open_process
from sidecar.mcp_host.variables import child_environment
from tests.support.hosts import is_alive


def lines_of(*chunks: bytes) -> list[bytes]:
    buffer = LineBuffer()
    return [bytes(line) for chunk in chunks for line in buffer.feed(chunk)]


def test_lines_are_the_same_however_their_bytes_arrive() -> None:
    data = b'{"a": 1}\n\nb\r\n' + "é\n".encode()
    expected = [b'{"a": 1}', b"", b"b\r", "é".encode()]

    for first, second in itertools.combinations(range(len(data) + 1), 2):
        assert lines_of(data[:first], data[first:second], data[second:]) == expected


def test_a_line_without_its_end_is_the_rest() -> None:
    buffer = LineBuffer()
    buffer.feed(b"one\ntwo")

    assert len(buffer) == 3
    assert buffer.rest() == b"two"
    assert len(buffer) == 0


def test_a_large_message_costs_time_in_proportion_to_its_size() -> None:
    buffer, chunk = LineBuffer(), b"x" * 2**16
    began = time.perf_counter()

    for _ in range(32 * 16):
        buffer.feed(chunk)
    lines = buffer.feed(b"\n")

    assert [len(line) for line in lines] == [32 * 2**20]
    assert time.perf_counter() - began < 2  # 0.05 on an idle machine; searched anew each time, 18


# ---- stderr ---------------------------------------------------------------------------------


def test_only_the_last_lines_are_kept_and_counted_all() -> None:
    log = ServerLog(None, str)
    for number in range(LINES + 50):
        log.feed(f"line {number}\n".encode())

    assert log.tail(1000)[0] == "line 50"
    assert log.tail(2) == (f"line {LINES + 48}", f"line {LINES + 49}")
    assert log.tail(0) == ()
    assert log.since(LINES + 49, 20) == (f"line {LINES + 49}",)
    assert log.since(log.count, 20) == ()


def test_a_flood_of_lines_is_counted_and_not_read() -> None:
    log, took_s = ServerLog(None, str), []

    for _ in range(3):
        began = time.perf_counter()
        log.feed(b"\n" * 2**18)
        took_s.append(time.perf_counter() - began)
    log.feed(b"last\n")

    assert log.count == 3 * 2**18 + 1
    assert log.tail(1) == ("last",)
    assert min(took_s) < 0.05  # 0.002 on an idle machine; each line by itself, 0.25


def test_secrets_are_hidden_in_what_is_shown() -> None:
    config = McpServerConfig(
        command="x", env={"KEY": "open sesame", "MODE": "on", "PATH": "/usr/bin"}
    )
    log = ServerLog(None, hiding(config))

    log.feed(b"opening with open sesame, Bearer abcdefgh, on /usr/bin\n")

    assert log.tail(1) == ("opening with [redacted], Bearer [redacted], on /usr/bin",)


def test_no_more_is_shown_than_is_quickly_made_fit_to_be() -> None:
    log = ServerLog(None, str)

    for _ in range(LINES):
        log.feed(b"x" * 4096 + b"\n")

    assert sum(map(len, log.tail(LINES))) == TAIL_BYTES


def test_a_line_is_kept_whole_when_it_comes_in_pieces() -> None:
    log = ServerLog(None, str)

    log.feed(b"caf\xc3")
    log.feed(b"\xa9 au lait\r\nnext")
    log.end_of_stream()

    assert log.tail(5) == ("café au lait", "next")


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    log = ServerLog(None, str)

    for _ in range(1000):
        log.feed(b"x" * 10_000)

    assert sum(map(len, log.tail(LINES))) <= LINES * 4096


def test_a_server_cannot_draw_on_the_terminal_of_whoever_reads_its_log() -> None:
    log = ServerLog(None, str)

    log.feed(b"\x1b[2Jgone \xe2\x80\xaetxt.exe\n")

    assert log.tail(1) == (r"\u001b[2Jgone \u202etxt.exe",)


def test_the_log_file_is_private_and_becomes_one_older_file(tmp_path: Path) -> None:
    file = tmp_path / "mcp-s.log"
    log = ServerLog(file, str)

    for _ in range(5):
        log.feed(b"x" * (FILE_BYTES // 2) + b"\n")
    log.close()

    sizes = [path.stat().st_size for path in (file, tmp_path / "mcp-s.log.1")]
    assert all(FILE_BYTES // 2 < size < 2 * FILE_BYTES for size in sizes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mcp-s.log", "mcp-s.log.1"]
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o077 == 0


def test_a_log_file_that_cannot_be_written_costs_nobody_the_lines(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "missing" / "mcp-s.log", str)

    log.feed(b"still here\n")

    assert log.tail(1) == ("still here",)


# ---- the process ----------------------------------------------------------------------------


Start = Callable[[str], Awaitable[ServerProcess]]


@pytest.fixture
async def a_process() -> AsyncIterator[Start]:
    """Start a process that runs a script."""
    guardian = Guardian(None)

    async def start(script: str) -> ServerProcess:
        launch = Launch(sys.executable, ("-c", script), None, child_environment({}))
        return await open_process("s", launch, guardian, ServerLog(None, str), lambda: None)

    yield start
    guardian.close()


async def test_closing_lets_a_process_end_by_itself(a_process: Start) -> None:
    process = await a_process("import sys; sys.stdin.read(); sys.exit(5)")

    async with asyncio.timeout(5):
        await process.close()

    assert (process.exit_code, process.was_killed) == (5, False)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_closing_is_as_patient_as_promised_with_one_that_only_takes_a_signal(
    a_process: Start,
) -> None:
    process = await a_process("import time; print('up', flush=True); time.sleep(60)")
    async with asyncio.timeout(5):
        await process.next_line()
    began = time.monotonic()

    async with asyncio.timeout(6):
        await process.close()

    assert 1.9 < time.monotonic() - began < 3.5
    assert (process.exit_code, process.was_killed) == (-15, True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_a_cancelled_close_still_ends_the_process(a_process: Start) -> None:
    process = await a_process("import time; time.sleep(60)")

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await process.close()

    assert time.monotonic() - began < 1.5
    assert not is_alive(process.pid)


async def test_a_process_that_does_not_read_is_written_to_without_waiting(a_process: Start) -> None:
    process = await a_process("import time; time.sleep(60)")

    for _ in range(65):
        process.write(b"x" * 2**20)
    async with asyncio.timeout(5):
        await process.gone.wait()

    assert process.fault == "It does not read its input."
    with pytest.raises(BrokenPipeError):
        process.write(b"more")


async def test_a_process_that_floods_waits_until_its_lines_are_taken(a_process: Start) -> None:
    process = await a_process(
        "import sys\n"
        "for i in range(100_000): print('x' * 99)\n"
        "print('done', flush=True, file=sys.stderr)\n"
        "print('last', flush=True)\n"
    )

    async with asyncio.timeout(5):
        await process.next_line()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await process.gone.wait()
    assert process.log.tail(1) == ()

    async with asyncio.timeout(10):
        while bytes(await process.next_line() or b"") != b"last":
            pass
        await process.gone.wait()
    assert process.log.tail(1) == ("done",)

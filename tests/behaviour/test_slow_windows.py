"""A window that does not read slows nobody, and is let go of in the end."""

import asyncio
import base64
import itertools
import json
import os
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import structlog

from sidecar.app import App
from sidecar.protocol.chat import RunsStarted
from sidecar.threads import run_in_thread
from tests.behaviour.conftest import Join, Start
from tests.support.fake_openai import FakeOpenAI, text

PIECES = [f"{number:06d}" + "x" * 30_000 for number in range(300)]  # 9 MB: no buffer holds it
PATIENCE_S = 30


class StuckWindow:
    """A WebSocket by hand, with a small receive buffer, that asks for things and reads nothing."""

    def __init__(self, app: App) -> None:
        address = urlsplit(app.http)
        self._numbers = itertools.count()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((address.hostname, address.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws/chat HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Authorization: Bearer {app.token}\r\n\r\n".encode()
        )

    def send(self, action: str, **payload: object) -> None:
        frame = {"action": action, "request_id": str(next(self._numbers)), "payload": payload}
        data = json.dumps(frame).encode()
        assert len(data) < 65536
        self._socket.sendall(struct.pack("!BBH4x", 0x81, 0xFE, len(data)) + data)  # mask of zeros

    def read_to_the_end(self) -> bytes:
        self._socket.settimeout(PATIENCE_S)
        pieces = []
        while piece := self._socket.recv(1024 * 1024):
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def too_slow() -> Iterator[asyncio.Event]:
    """Set when the sidecar logs that it gives a window up; nothing on a socket shows that."""
    happened = asyncio.Event()

    def watch(logger: object, method: str, event: structlog.typing.EventDict) -> str:
        if event["event"] == "connection_too_slow":
            happened.set()
        raise structlog.DropEvent

    structlog.configure(processors=[watch])
    yield happened
    structlog.reset_defaults()


async def test_a_window_that_does_not_read_is_dropped_and_its_run_goes_on(
    too_slow: asyncio.Event, start: Start, join: Join, upstream: FakeOpenAI
) -> None:
    app = await start()
    client = await join(app, events=["runs"])
    upstream.will(text(*PIECES))
    window = await run_in_thread(lambda: StuckWindow(app), "window")
    try:
        window.send("hello", protocol=1)
        for _ in range(4):
            window.send("chat", text="write a lot")
        started = await client.event(RunsStarted)
        run = await client.resume(started.data.run_id)
        async with asyncio.timeout(10):
            outcome = await run.finished()  # while the other window stands still
        assert outcome.finish_reason == "stop"

        async with asyncio.timeout(PATIENCE_S):
            await too_slow.wait()
        seen = await run_in_thread(window.read_to_the_end, "window")
    finally:
        window.close()
    code = (4008).to_bytes(2, "big")
    assert b"\x88" + bytes([2 + len("slow consumer")]) + code + b"slow consumer" in seen

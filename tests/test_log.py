import asyncio
import io
import json
import logging
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from sidecar import log
from sidecar.errors import ConfigInvalid
from sidecar.redaction import REDACTED, redact, redact_value

TOKEN = "Zk3vQx9LmN2pR7tYw1aBcD4eFgH5jK6sUiOoP8qX0_-"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    log.close()


class Lines:
    """Logs to a folder of its own; reads back what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.level: log.LogLevel = "INFO"

    def of(self, write: Callable[[], object]) -> list[dict[str, Any]]:
        path = log.configure(self.level, None, self.folder)
        write()
        log.close()
        assert path is not None
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(tmp_path)


ours = structlog.get_logger()


# What is written.


def test_an_event_is_one_json_line(lines: Lines) -> None:
    (line,) = lines.of(lambda: ours.info("tool_finished", tool="time", elapsed_ms=12, ok=True))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "event": "tool_finished",
        "tool": "time",
        "elapsed_ms": 12,
        "ok": True,
    }


def test_context_is_written_with_our_events_and_with_the_libraries(lines: Lines) -> None:
    def write() -> None:
        with structlog.contextvars.bound_contextvars(connection="c1", run="r1"):
            ours.info("chat_started")
            logging.getLogger("aiohttp.server").error("broken")
        ours.info("idle")

    first, second, third = lines.of(write)

    assert (
        (first["connection"], first["run"]) == (second["connection"], second["run"]) == ("c1", "r1")
    )
    assert second["logger"] == "aiohttp.server" and "run" not in third


def test_libraries_are_heard_from_warning_on(lines: Lines) -> None:
    def write() -> None:
        for name in ("aiohttp.access", "openai", "httpx2", "asyncio"):
            logging.getLogger(name).info("chatter")
            logging.getLogger(name).warning("from %s", name)

    written = lines.of(write)

    assert len(written) == 4 and {line["level"] for line in written} == {"warning"}
    assert written[0]["event"] == "from aiohttp.access"


def test_at_debug_everything_is_heard(lines: Lines) -> None:
    lines.level = "DEBUG"

    def write() -> None:
        ours.debug("ours")
        logging.getLogger("aiohttp.client").debug("theirs")

    written = lines.of(write)

    assert [line["event"] for line in written] == ["ours", "theirs"]


@pytest.mark.parametrize("name", ["openai", "httpx2", "mcp.client.stdio", "client"])
def test_what_libraries_log_of_whole_messages_is_not_heard_even_at_debug(
    lines: Lines, name: str
) -> None:
    lines.level = "DEBUG"

    assert lines.of(lambda: logging.getLogger(name).debug("what somebody said")) == []


def test_a_library_cannot_lower_its_own_floor(lines: Lines) -> None:
    logger = logging.getLogger("openai")

    def write() -> None:
        logger.setLevel(logging.DEBUG)  # as OPENAI_LOG=debug does when the SDK is imported
        logger.getChild("_base_client").debug("what somebody said")
        logger.setLevel(logging.NOTSET)

    assert lines.of(write) == []


@pytest.mark.parametrize(
    ("level", "heard"), [("INFO", 3), ("WARNING", 2), ("ERROR", 1)], ids=["info", "warn", "error"]
)
def test_the_level_is_the_least_that_is_written(
    lines: Lines, level: log.LogLevel, heard: int
) -> None:
    lines.level = level

    written = lines.of(
        lambda: (ours.debug("a"), ours.info("b"), ours.warning("c"), ours.error("d"))
    )

    assert len(written) == heard


def test_warnings_of_python_are_logged_and_not_printed(tmp_path: Path) -> None:
    program = f"""
import warnings
from pathlib import Path
from sidecar import log
log.configure("INFO", None, Path({str(tmp_path)!r}))
warnings.warn("old way")
"""
    command = [sys.executable, "-W", "always", "-c", program]
    ended = subprocess.run(command, timeout=20, capture_output=True)

    assert "old way" in json.loads((tmp_path / "sidecar.log").read_text("utf-8"))["event"]
    assert (ended.stdout, ended.stderr) == (b"", b"")


def test_a_traceback_is_written_without_local_values(lines: Lines) -> None:
    def fail() -> None:
        local = "-".join(("a", "local", "value"))
        raise LookupError(f"nothing at {len(local)}")

    def write() -> None:
        try:
            fail()
        except LookupError:
            ours.exception("crashed")
            logging.getLogger("asyncio").exception("crashed too")

    for line in lines.of(write):
        assert "LookupError: nothing at 13" in line["exception"]
        assert "a-local-value" not in line["exception"]


def test_a_library_that_logs_wrong_arguments_is_still_heard(tmp_path: Path) -> None:
    program = f"""
import logging
from pathlib import Path
from sidecar import log
log.configure("INFO", None, Path({str(tmp_path)!r}))
logging.getLogger("aiohttp").error("%d of %d", "secret")
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=20, capture_output=True)

    assert json.loads((tmp_path / "sidecar.log").read_text("utf-8"))["event"] == "%d of %d"
    assert ended.stderr == b""


def test_an_object_that_cannot_be_described_does_not_fail_the_one_who_logs(lines: Lines) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    (line,) = lines.of(lambda: ours.info("seen", thing=Broken()))

    assert line["thing"] == "<Broken that raises RuntimeError>"


def test_a_long_text_is_cut_and_a_deep_value_is_flattened(lines: Lines) -> None:
    deep: dict[str, Any] = {}
    deep["self"] = deep

    (line,) = lines.of(lambda: ours.info("seen", text="x" * 100_000, deep=deep))

    assert line["text"].endswith("… (100000 characters)") and len(line["text"]) < 17_000
    assert len(json.dumps(line["deep"])) < 1000


# Secrets.

SECRETS = {
    "openai": "sk-Ab3dEf6hIj9kLm2nOp5qRs8t",
    "openai project": "sk-proj-Ab3d_f6hIj9kLm2nOp5q-Rs8tUv1wXy4z",
    "openai, as its errors quote it": "sk-proj-********************Xy4z",
    "our door": "sk-sidecar-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb3dEf6hIj9",
    "anthropic": "sk-ant-api03-Ab3dEf6hIj9kLm2nOp5qRs8t-AA",
    "openrouter": "sk-or-v1-0123456789abcdef0123456789abcdef",
    "google": "AIzaSyA1b2C3d4E5f6G7h8I9j0KlMnOpQrStUvW",
    "groq": "gsk_Ab3dEf6hIj9kLm2nOp5qRs8t",
    "xai": "xai-Ab3dEf6hIj9kLm2nOp5qRs8t",
    "perplexity": "pplx-Ab3dEf6hIj9kLm2nOp5qRs8t",
    "hugging face": "hf_Ab3dEf6hIj9kLm2nOp5qRs8t",
    "github": "ghp_Ab3dEf6hIj9kLm2nOp5qRs8tUv1w",
    "github, new": "github_pat_11AB3dEf6hIj9k_Lm2nOp5qRs8tUv1w",
    "slack": "xoxb-1234567890-Ab3dEf6hIj9k",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
}
PLACES = {
    "bearer": ("Authorization: Bearer {}", "0a1b2c3d4e5f60718293"),
    "mistral bearer": ("{{'Authorization': 'Bearer {}'}}", "Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"),
    "bearer in bytes": ("(b'authorization', b'Bearer {}')", "0a1b2c3d4e5f60718293"),
    "bearer in JSON in JSON": ('{{\\"authorization\\": \\"Bearer {}\\"}}', "0a1b2c3d4e5f60718293"),
    "basic": ("authorization: Basic {}", "dXNlcjpwYXNzd29yZA=="),
    "bare authorization": ("Authorization={}", "0a1b2c3d4e5f60718293"),
    "x-api-key": ("{{'x-api-key': '{}', 'a': 'b'}}", "0a1b2c3d4e5f60718293"),
    "x-goog-api-key": ("x-goog-api-key: {}", "0a1b2c3d4e5f60718293"),
    "cookie": ("Set-Cookie: session={}; Path=/", "0a1b2c3d4e5f60718293"),
    "subprotocol": ("Sec-WebSocket-Protocol: sidecar, sidecar.token.{}", TOKEN),
    "userinfo": ("http://someone:{}@proxy.example:3128/", "pass-word"),
    "token as user": ("https://{}@git.example/x.git", "0a1b2c3d4e5f60718293"),
    "query key": ("GET /v1beta/models?key={}&alt=sse", "0a1b2c3d4e5f60718293"),
    "query token": ("ws://127.0.0.1:1/ws?a=b&access_token={}", "0a1b2c3d4e5f60718293"),
    "one-time code": ("http://127.0.0.1:8000/#code={}", "0a1b2c3d4e5f60718293"),
    "assignment": ("OPENAI_API_KEY={} was read", "0a1b2c3d4e5f60718293"),
    "keyword": ("Client(api_key='{}', base_url='http://a')", "0a1b2c3d4e5f60718293"),
    "oauth": ('{{"refresh_token": "{}", "expires_in": 3}}', "0a1b2c3d4e5f60718293"),
    "password": ("password: {}", "correct-horse"),
}  # fmt: skip
SHAPES = {
    **{name: ("before {} after", secret) for name, secret in SECRETS.items()},
    **PLACES,
}


@pytest.mark.parametrize(("text", "secret"), SHAPES.values(), ids=SHAPES)
def test_every_known_shape_of_a_key_is_hidden_wherever_it_stands(
    lines: Lines, text: str, secret: str
) -> None:
    shown = text.format(secret)

    def write() -> None:
        ours.info(shown, field=shown, nested={"a": [shown, {"b": (shown,)}]}, raw=shown.encode())
        ours.warning("failed", error=ValueError(shown))
        logging.getLogger("aiohttp.server").warning("got %s", shown)
        try:
            raise ConnectionError(shown) from KeyError(shown)
        except ConnectionError:
            ours.exception("crashed")
            logging.getLogger("openai").exception("crashed too")

    written = json.dumps(lines.of(write))

    assert secret not in written
    assert written.count(REDACTED) >= 9


@pytest.mark.parametrize(
    "text",
    [
        "the task-management-system is at risk-assessment-level",
        "GET /v1/models?limit=20&after=abc HTTP/1.1",
        "http://127.0.0.1:8000/ws/chat and https://example.com/a@b",
        "used 1200 tokens, max_tokens=512, token_count: 31",
        "key_missing: no API key for openai",
        "listening on ws://[::1]:8000/ws/chat",
        "4f1f7d2e-8f0a-4c57-9e43-7a5d3f6d9b10",
    ],
)
def test_text_without_a_secret_is_left_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_text_under_a_secret_name_is_hidden_and_a_count_is_not(lines: Lines) -> None:
    (line,) = lines.of(
        lambda: ours.info(
            "seen",
            api_key="abc",
            token={"a": "b"},
            headers={"Cookie": "x"},
            tokens=5,
            access_token=None,
        )
    )

    assert line["api_key"] == line["token"] == line["headers"]["Cookie"] == REDACTED
    assert (line["tokens"], line["access_token"]) == (5, None)


def test_a_value_that_is_known_to_be_secret_is_hidden_in_any_place(lines: Lines) -> None:
    odd = "a$plain(word"
    redact_value(odd)
    redact_value("pin4")

    (line,) = lines.of(lambda: ours.info("seen", text=f"x{odd}y", other="pin4 of pin45"))

    assert line["text"] == f"x{REDACTED}y"
    assert line["other"] == f"{REDACTED} of pin45"


async def test_the_token_of_a_refused_subprotocol_is_not_logged_by_aiohttp(lines: Lines) -> None:
    from aiohttp import ClientSession, WSServerHandshakeError, web
    from aiohttp.test_utils import TestServer

    async def accept(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("sidecar",))
        await socket.prepare(request)
        await socket.close()
        return socket

    path = log.configure("INFO", None, lines.folder)
    application = web.Application()
    application.router.add_get("/ws", accept)
    async with asyncio.timeout(10), TestServer(application) as server, ClientSession() as session:
        try:
            async with session.ws_connect(
                server.make_url("/ws"), protocols=(f"sidecar.token.{TOKEN}",)
            ):
                pass
        except WSServerHandshakeError:
            pass
    log.close()

    assert path is not None
    written = path.read_text("utf-8")
    assert "sidecar.token." in written and TOKEN not in written


def test_redaction_is_quick_on_text_made_to_be_slow() -> None:
    program = """
import time
from sidecar.redaction import redact
texts = ["a" * 16_000, "?a" * 8_000, "eyJ" * 5_000, "://" * 5_000, "api_key" * 2_000,
         "cookie: " * 2_000, "bearer " * 2_000, "a-" * 8_000, "sk-" * 5_000, "?" + "key" * 5_000]
started = time.process_time()
for text in texts:
    redact(text)
print(time.process_time() - started)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], timeout=60, capture_output=True, text=True
    )

    assert float(ended.stdout) < 1.0


# The file.


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files private by inheritance")
def test_only_this_person_may_read_the_file(lines: Lines) -> None:
    lines.of(lambda: ours.info("seen"))

    assert stat.S_IMODE((lines.folder / "sidecar.log").stat().st_mode) == 0o600


def test_a_full_file_is_put_aside_and_five_are_kept(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "FILE_BYTES", 20_000)

    newest = lines.of(lambda: [ours.info("seen", n=n, text="x" * 900) for n in range(150)])

    files = sorted(lines.folder.iterdir())
    assert [file.name for file in files] == [
        "sidecar.log",
        *(f"sidecar.log.{n}" for n in range(1, 5)),
    ]
    assert all(15_000 < file.stat().st_size <= 20_000 for file in files[1:])
    assert newest[-1]["n"] == 149
    previous = json.loads(files[1].read_text("utf-8").splitlines()[-1])
    assert previous["n"] == newest[0]["n"] - 1


def test_several_processes_write_whole_lines_also_while_the_file_is_put_aside(
    tmp_path: Path,
) -> None:
    program = f"""
import sys
from pathlib import Path
from sidecar import log
import structlog
log.FILE_BYTES = 40_000
log.configure("INFO", None, Path({str(tmp_path)!r}))
for number in range(500):
    structlog.get_logger().info("seen", writer=sys.argv[1], number=number, text="x" * 200)
log.close()
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "abc"]

    assert [writer.wait(30) for writer in writers] == [0, 0, 0]

    for file in tmp_path.iterdir():
        for line in file.read_text("utf-8").splitlines():
            assert json.loads(line)["event"] == "seen"
    newest = [file.read_text("utf-8") for file in tmp_path.iterdir()]
    assert any('"number": 499' in text for text in newest)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_file_that_was_removed_is_made_again(lines: Lines) -> None:
    def write() -> None:
        ours.info("first")
        log.configure("INFO", None, lines.folder)
        (lines.folder / "sidecar.log").unlink()
        ours.info("second")

    (line,) = lines.of(write)

    assert line["event"] == "second"


def test_a_file_that_cannot_be_opened_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sidecar.log").mkdir()

    with pytest.raises(ConfigInvalid, match=r"logging\.file to false"):
        log.configure("INFO", None, tmp_path)


def test_the_path_of_the_file_is_returned(tmp_path: Path) -> None:
    assert log.configure("INFO", None, tmp_path) == tmp_path / "sidecar.log"
    assert log.configure("INFO", None, None) is None


# The terminal.


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def shown(
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[], object],
    console_format: log.ConsoleFormat | None = "console",
    is_terminal: bool = False,
) -> str:
    screen = Screen(is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    log.configure("INFO", console_format, None)
    write()
    log.close()
    return screen.getvalue()


def test_lines_for_people_have_the_time_the_level_the_event_and_its_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(monkeypatch, lambda: ours.warning("tool_failed", tool="time"))

    assert re.fullmatch(r"\d\d:\d\d:\d\d \[warning +\] tool_failed +tool=time\n", text)


@pytest.mark.skipif(sys.platform == "win32", reason="no colours there")
def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal = shown(monkeypatch, lambda: ours.info("seen"), is_terminal=True)

    assert "\x1b[" in on_terminal
    assert "\x1b[" not in shown(monkeypatch, lambda: ours.info("seen"))


def test_the_terminal_can_have_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, lambda: ours.info("seen", a="sk-0123456789abcdef"), "json")

    assert json.loads(text)["a"] == REDACTED


def test_a_value_cannot_fake_a_line_or_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        ours.info("seen", server="a\nb\x1b[2J\u202e")
        logging.getLogger("aiohttp").error("one\ntwo\x1b]0;title\a")

    text = shown(monkeypatch, write)

    assert text.count("\n") == 2
    assert not {"\x1b", "\a", "\u202e"} & set(text)


def test_a_managed_program_writes_nothing_on_stderr_or_stdout(
    capfd: pytest.CaptureFixture[str], lines: Lines
) -> None:
    def write() -> None:
        ours.error("ours")
        logging.getLogger("aiohttp").error("theirs")

    lines.of(write)
    ours.error("after the end")
    logging.getLogger("aiohttp").debug("after the end")

    assert capfd.readouterr() == ("", "")


class Stopped(Screen):
    """A terminal on which somebody has pressed Ctrl-S."""

    def __init__(self) -> None:
        super().__init__(is_terminal=False)
        self.resumed = threading.Event()
        self.flowing = threading.Event()

    def write(self, text: str) -> int:
        self.resumed.wait(10)
        written = super().write(text)
        if self.getvalue().count("\n") > 10:
            self.flowing.set()
        return written


def test_a_terminal_that_takes_nothing_stalls_neither_the_program_nor_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    screen = Stopped()
    monkeypatch.setattr(sys, "stderr", screen)

    path = log.configure("INFO", "console", tmp_path)
    ours.info("seen")
    log.close()

    assert path is not None
    assert json.loads(path.read_text("utf-8"))["event"] == "seen"
    assert screen.getvalue() == ""
    screen.resumed.set()


def test_lines_that_nobody_takes_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Stopped()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(log, "MAX_WAITING", 50)

    log.configure("INFO", "json", None)
    for number in range(200):
        ours.info("seen", number=number)
    screen.resumed.set()
    assert screen.flowing.wait(10)
    ours.info("last")
    log.close()

    *seen, last = [json.loads(line) for line in screen.getvalue().splitlines()]
    assert 50 <= len(seen) <= 51  # one may be in the writer's hand
    assert last["event"] == "last"
    dropped = sum(line.get("lines_dropped", 0) for line in (*seen, last))
    assert dropped == 200 - len(seen)


def test_what_waits_is_written_when_the_program_ends_without_closing(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from sidecar import log
import structlog
log.configure("INFO", None, Path({str(tmp_path)!r}))
structlog.get_logger().info("last_words")
raise SystemExit(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=20)

    assert ended.returncode == 3
    assert "last_words" in (tmp_path / "sidecar.log").read_text("utf-8")


def test_the_log_is_imported_without_rich() -> None:
    program = "import sys, sidecar.log; assert 'rich' not in sys.modules"

    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)

"""The log: JSON lines in a rotating file and readable lines on stderr, without a secret in them.

Events of ours and of the libraries' loggers pass one pipeline, which redacts before anything is
written. Writing happens in threads of the log's own, so that a slow disk or a stopped terminal
stalls nobody; when one falls far behind, lines are dropped and counted. Context (`connection`,
`run`, `server`) is bound with `structlog.contextvars`.
"""

import atexit
import contextlib
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

from sidecar.errors import ConfigInvalid
from sidecar.redaction import redacted
from sidecar.visible import visible


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Hide a module from the imports within."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # how the import system says "absent"
    try:
        yield
    finally:
        del sys.modules[module]


with _without("rich"):  # 60 ms for coloured tracebacks with local values, which we do not want
    import structlog

FLOORS = {  # they log whole messages: all of these at DEBUG, the first two in traces as well
    "mcp": logging.CRITICAL,
    "client": logging.CRITICAL,
    "httpx2": logging.WARNING,
    "openai": logging.WARNING,
}
FILE_NAME = "sidecar.log"
FILE_BYTES = 5_000_000
FILES = 5
MAX_WAITING = 10_000  # lines; a few MB, minutes of a busy log
CLOSE_S = 1.0  # what an exit waits for a disk or a terminal

Event: TypeAlias = MutableMapping[str, Any]
LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
ConsoleFormat: TypeAlias = Literal["console", "json"]


def _redact_event(_logger: object, _method: str, event: Event) -> Event:
    clean: Event = redacted(event)
    return clean


def _as_arguments(_logger: object, _method: str, event: Event) -> tuple[tuple[Event], Event]:
    return (event,), {}


_PIPELINE: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,  # plain: a traceback without local values
    _redact_event,
]


class _Writer:
    """One thread that writes events to one place, in order."""

    def __init__(self, name: str, write: Callable[[Event], None], end: Callable[[], None]) -> None:
        self._write = write
        self._end = end
        self._waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._dropped = 0
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, event: Event) -> None:
        if self._waiting.qsize() >= MAX_WAITING:
            self._dropped += 1
            return
        if self._dropped:
            event = {**event, "lines_dropped": self._dropped}
            self._dropped = 0
        self._waiting.put(event)

    def close(self) -> None:
        """Write what waits; give up on a place that takes nothing."""
        self._waiting.put(None)
        self._ended.wait(CLOSE_S)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # a full disk, a closed terminal
                self._write(event)
        self._end()
        self._ended.set()


class _Output:
    """What structlog calls its logger: hands finished events to the writers."""

    def __init__(self, writers: Sequence[_Writer]) -> None:
        self._writers = writers

    def put(self, event: Event) -> None:
        for writer in self._writers:
            writer.put(event)

    debug = info = warning = error = critical = exception = msg = put

    def close(self) -> None:
        """From here on events are dropped: never printed, for stdout is not ours."""
        writers, self._writers = self._writers, ()
        for writer in writers:
            writer.close()


class _Foreign(logging.Handler):
    """The libraries' loggers, into the same pipeline."""

    def __init__(self, output: _Output) -> None:
        super().__init__()
        self._output = output
        self.addFilter(_is_above_its_floor)  # and not a level, which the library itself may change

    def emit(self, record: logging.LogRecord) -> None:
        event: Event = {"event": _message(record), "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        for process in _PIPELINE:
            event = process(None, record.levelname.lower(), event)
        self._output.put(event)


def _is_above_its_floor(record: logging.LogRecord) -> bool:
    return record.levelno >= FLOORS.get(record.name.partition(".")[0], logging.NOTSET)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a library's arguments do not fit; logging would print them to stderr
        return str(record.msg)


class _RotatingFile:
    """Lines appended to a file that only we may read, and that is put aside when it is full.

    Several processes may write to it: a line is one `write` to a file opened for appending, and
    each process looks whether another one has put the file aside.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._open()

    def write(self, line: bytes) -> None:
        if not self._is_current():
            self._open()
        size = os.fstat(self._descriptor).st_size
        if size and size + len(line) > FILE_BYTES:
            self._put_aside()
        os.write(self._descriptor, line)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self) -> None:
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self._path, flags, 0o600)

    def _is_current(self) -> bool:
        try:
            return self._descriptor >= 0 and os.path.samestat(
                os.stat(self._path), os.fstat(self._descriptor)
            )
        except FileNotFoundError:
            return False

    def _put_aside(self) -> None:
        self.close()  # Windows renames no open file
        numbered = [self._path.with_name(f"{self._path.name}.{n}") for n in range(1, FILES)]
        with contextlib.suppress(OSError):  # Windows: another process has it open; it grows on
            for younger, elder in reversed(list(pairwise([self._path, *numbered]))):
                if younger.exists():
                    younger.replace(elder)
        self._open()


def _json_line(event: Event) -> str:
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return json.dumps({**first, **event}, default=str) + "\n"


def _console_writer(stream: TextIO, console_format: ConsoleFormat) -> _Writer:
    render = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and sys.platform != "win32" and "NO_COLOR" not in os.environ,
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
        pad_event_to=24,
    )

    def write(event: Event) -> None:
        shown = {name: _on_terminal(name, value) for name, value in event.items()}
        line = f"{render(None, '', shown)}\n" if console_format == "console" else _json_line(event)
        stream.write(line)
        stream.flush()

    return _Writer("log stderr", write, lambda: None)


def _on_terminal(name: str, value: Any) -> Any:
    if name == "timestamp":
        return str(value)[11:19]  # the time of day
    if not isinstance(value, str):
        return value
    return visible(value) if name == "exception" else visible(value).replace("\n", "\\n")


_undo: list[Callable[[], None]] = []


def configure(
    level: LogLevel,
    console_format: ConsoleFormat | None,
    log_dir: Path | None,
) -> Path | None:
    """Start writing, in place of what was configured before; returns the file's path.

    None as `console_format` keeps stderr silent, None as `log_dir` keeps no file; the folder must
    exist. Libraries are heard from WARNING on, from DEBUG on when we are, and never below FLOORS.
    Raises ConfigInvalid when the file cannot be opened.
    """
    close()
    path = None if log_dir is None else log_dir / FILE_NAME
    writers = [] if path is None else [_file_writer(path)]
    if console_format is not None and sys.stderr is not None:
        writers.append(_console_writer(sys.stderr, console_format))
    output = _Output(writers)
    structlog.configure(
        processors=[*_PIPELINE, _as_arguments],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    handler, root = _Foreign(output), logging.getLogger()
    level_before = root.level
    root.addHandler(handler)
    root.setLevel(
        logging.DEBUG if level == "DEBUG" else max(getattr(logging, level), logging.WARNING)
    )
    logging.captureWarnings(True)

    def undo() -> None:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level_before)
        output.close()

    _undo.append(undo)
    atexit.register(close)
    return path


def close() -> None:
    """Write what waits, for at most a second, and stop; the end of the program does it too."""
    while _undo:
        _undo.pop()()
    atexit.unregister(close)


def _file_writer(path: Path) -> _Writer:
    try:
        file = _RotatingFile(path)
    except OSError as error:
        raise ConfigInvalid(
            f"The log {path} cannot be written: {error.strerror or error}. Give your user account"
            " write access to it, or set logging.file to false."
        ) from error
    return _Writer("log file", lambda event: file.write(_json_line(event).encode()), file.close)

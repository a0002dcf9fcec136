"""Remembered decisions about tools, in one small file that only this person can read."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from sidecar.errors import StorageError, StorageFull
from sidecar.mcp_host.consent import StoredRule
from sidecar.private_file import write_private
from sidecar.threads import run_in_thread

log = structlog.get_logger()


class Rules:
    """The rules that hold always. A change holds at once and is on the disk when the call returns.

    Another process may write the same file: each change is made to what is there at that moment.
    """

    def __init__(self, file: Path | None) -> None:
        """`file` None keeps them for this run only."""
        self.are_incomplete = False
        """A file that could not be read lies aside: a denial in it may be missing here."""
        self._file = file
        self._rules: list[StoredRule] = []
        # held by threads, not tasks: a write goes on when nobody waits for it any more
        self._writing = threading.Lock()

    def load(self) -> None:
        """Read the file, if there is one. A broken one is put aside, see `are_incomplete`."""
        if self._file is None:
            return
        try:
            self._rules = _read(self._file)
        except (OSError, ValidationError) as error:
            with suppress(OSError):
                self._file.replace(self._aside)
            log.warning("rules_unreadable", reason=type(error).__name__)
        self.are_incomplete = self._aside.exists()
        if self.are_incomplete:
            log.warning("rules_incomplete", repair_or_delete=str(self._aside))

    def all(self) -> tuple[StoredRule, ...]:
        return tuple(self._rules)

    async def add(self, rule: StoredRule) -> None:
        """Replaces what was remembered about the same tool or server. Raises StorageError."""
        await self._change(lambda rules: [*(old for old in rules if not _same(old, rule)), rule])

    async def remove(self, rule_id: str | None) -> int:
        """One, or all of them for None. Returns how many went. Raises StorageError."""
        before = len(self._rules)
        await self._change(
            lambda rules: [old for old in rules if rule_id is not None and old.rule_id != rule_id]
        )
        return before - len(self._rules)

    @property
    def _aside(self) -> Path:
        assert self._file is not None
        return self._file.with_suffix(".broken.json")

    async def _change(self, change: Callable[[Sequence[StoredRule]], list[StoredRule]]) -> None:
        self._rules = change(self._rules)
        file = self._file
        if file is None:
            return

        def write() -> None:
            with self._writing:
                write_private(file, _adapter().dump_json(change(_read(file)), indent=1))

        try:
            await run_in_thread(write, "rules")
        except (OSError, ValidationError) as error:
            kind = StorageFull if getattr(error, "errno", None) == ENOSPC else StorageError
            raise kind(
                f"It holds until the sidecar ends, and could not be written to {file}: "
                f"{getattr(error, 'strerror', None) or 'the file was changed'}. Make room for it "
                "or give your user account write access."
            ) from error


def _same(one: StoredRule, other: StoredRule) -> bool:
    return (one.server, one.scope, one.name) == (other.server, other.scope, other.name)


def _read(file: Path) -> list[StoredRule]:
    try:
        return _adapter().validate_json(file.read_bytes())
    except FileNotFoundError:
        return []


def _adapter() -> TypeAdapter[list[StoredRule]]:
    return TypeAdapter(list[StoredRule])

"""Remembered decisions about tools, in one small file that only this person can read."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from sidecar.mcp_host.consent import StoredRule
from sidecar.threads import run_in_thread

log = structlog.get_logger()


class Rules:
    """The rules that hold always; changes are on the disk when the call returns."""

    def __init__(self, file: Path | None) -> None:
        """`file` None keeps them for this run only."""
        self._file = file
        self._rules: list[StoredRule] = []
        self._writing = asyncio.Lock()  # two writers would each put the other's rule back

    def load(self) -> None:
        """Read the file, if there is one. A broken one is put aside: then every tool asks again."""
        if self._file is None:
            return
        try:
            self._rules = _adapter().validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            aside = self._file.with_suffix(".broken.json")
            with suppress(OSError):
                self._file.replace(aside)
            log.warning("rules_unreadable", kept_as=str(aside), reason=type(error).__name__)

    def all(self) -> tuple[StoredRule, ...]:
        return tuple(self._rules)

    async def add(self, rule: StoredRule) -> None:
        """Replaces what was remembered about the same tool or server."""
        same = (rule.server, rule.scope, rule.name)
        await self._change(lambda old: (old.server, old.scope, old.name) != same, rule)

    async def remove(self, rule_id: str | None) -> int:
        """One, or all of them for None. Returns how many went."""
        before = len(self._rules)
        await self._change(lambda old: rule_id is not None and old.rule_id != rule_id)
        return before - len(self._rules)

    async def _change(self, keeps: Callable[[StoredRule], bool], *added: StoredRule) -> None:
        async with self._writing:
            self._rules = [*filter(keeps, self._rules), *added]
            if self._file is not None:
                data = _adapter().dump_json(self._rules, indent=1)
                file = self._file
                await run_in_thread(lambda: _write(file, data), "rules")


def _adapter() -> TypeAdapter[list[StoredRule]]:
    return TypeAdapter(list[StoredRule])


def _write(file: Path, data: bytes) -> None:
    """Whole or not at all; the temporary file is made with 0600."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise

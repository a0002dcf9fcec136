"""Run the required client scenarios one at a time, and print what came of each."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SETS = ("2026-07-28", "2025-11-25")
SCENARIO_S = 60
CLIENT = f"{sys.executable} -m tests.conformance.client"


@dataclass(frozen=True)
class Suite:
    """Where npm put it, and a Node that is new enough for it."""

    modules: Path

    def list(self, requirements: str) -> list[str]:
        """The client scenarios of a revision of MCP, as the suite has them."""
        listing = self._run("list", "--requirements", requirements).stdout
        _, _, clients = listing.partition("Client scenarios")
        required, _, _ = clients.partition("\n\n")
        return [line.removeprefix("  - ") for line in required.splitlines() if "  - " in line]

    def judge(self, scenario: str, requirements: str) -> Counter[str]:
        """How many of its checks ended how; none means that it was not run."""
        with tempfile.TemporaryDirectory() as folder:
            ran = self._run(
                *("client", "--command", CLIENT, "--scenario", scenario),
                *("--spec-version", requirements, "--timeout", str(SCENARIO_S * 1000)),
                *("--output-dir", folder),
            )
            checks = [
                check["status"]
                for file in Path(folder).rglob("checks.json")
                for check in json.loads(file.read_text())
            ]
        counted = Counter(checks)
        if ran.returncode != 0:
            counted["FAILURE"] += not counted["FAILURE"]
            print(ran.stdout, ran.stderr, file=sys.stderr)
        return counted

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        tools = self.modules / ".bin"
        command = [str(tools / "node"), str((tools / "conformance").resolve()), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=2 * SCENARIO_S)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", "It did not end in time.")


@dataclass(frozen=True)
class Verdict:
    scenario: str
    passed: int
    failed: int
    took_s: float

    @property
    def is_good(self) -> bool:
        return self.passed > 0 and self.failed == 0


def verdicts(suite: Suite, requirements: str, chosen: list[str]) -> Iterator[Verdict]:
    for scenario in suite.list(requirements):
        if chosen and scenario not in chosen:
            continue
        began_at = time.monotonic()
        checks = suite.judge(scenario, requirements)
        took_s = time.monotonic() - began_at
        yield Verdict(scenario, checks["SUCCESS"], checks["FAILURE"], took_s)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("folder", type=Path, help="where npm installed the suite and node")
    parser.add_argument("scenarios", nargs="*", help="only these")
    parser.add_argument("--set", choices=SETS, action="append", help="only this revision of MCP")
    arguments = parser.parse_args()
    suite = Suite(arguments.folder / "node_modules")
    all_are_good = True
    for requirements in arguments.set or SETS:
        found = []
        for verdict in verdicts(suite, requirements, arguments.scenarios):
            found.append(verdict)
            print(
                f"{requirements}  {'ok  ' if verdict.is_good else 'FAIL'}  {verdict.scenario}: "
                f"{verdict.passed} checks passed, {verdict.failed} failed, {verdict.took_s:.1f} s",
                flush=True,
            )
        good = sum(verdict.is_good for verdict in found)
        checks = sum(verdict.passed for verdict in found)
        all_are_good &= good == len(found)
        print(f"{requirements}: {good} of {len(found)} scenarios, {checks} checks", flush=True)
    return 0 if all_are_good else 1


if __name__ == "__main__":
    sys.exit(main())

"""The rooms of the house: who may import whom, and what must not load before the ready line."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.api import read_configuration

PROJECT = Path(__file__).parents[1]
HEAVY = (
    "PIL",
    "cryptography",
    "genai_prices",
    "httpx2",
    "jsonschema",
    "keyring",
    "mcp",
    "openai",
    "pypdf",
)
CONTRACTS = [
    contract["id"]
    for contract in read_configuration(str(PROJECT / "pyproject.toml"))["contracts_options"]
]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_import_contract_is_kept(contract: str) -> None:
    command = [sys.executable, "-c", "import importlinter.cli as it; it.lint_imports_command()"]

    lint = subprocess.run(
        [*command, "--no-cache", "--no-logo", "--contract", contract],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize("module", ["sidecar.app", "sidecar.cli"])
def test_nothing_heavy_is_imported_on_the_way_to_the_ready_line(module: str) -> None:
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"

    start = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert start.returncode == 0, start.stderr
    assert set(HEAVY).isdisjoint(start.stdout.split())

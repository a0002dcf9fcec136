"""What the README promises is what the program has."""

import re
import subprocess
import sys
from pathlib import Path

from sidecar.cli import COMMANDS
from tests.support.readme import README, renewed

TEXT = README.read_text("utf-8")


def test_the_tables_are_those_of_the_program() -> None:
    assert renewed(TEXT) == TEXT, "renew them: uv run python -m tests.support.readme"


def test_every_command_is_named() -> None:
    shown = set(re.findall(r"^sidecar ([a-z]+)", TEXT, re.MULTILINE))

    assert shown == set(COMMANDS) - {"demo-server"}  # which the program starts for itself


def test_the_files_of_the_reading_order_exist() -> None:
    package = Path(README.parent, "sidecar")
    order = re.search(r"Reading order: (.*?)\.\n", TEXT, re.DOTALL)
    assert order is not None
    files = re.findall(r"`([\w/]+)`", order[1])

    assert len(files) > 4
    assert [name for name in files if not (package / f"{name}.py").is_file()] == []


def test_the_client_of_the_readme_works(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    [client] = [block for block in blocks if "--managed" in block]
    script = tmp_path / "client.py"
    script.write_text(client.replace('"sidecar"', f'"{sys.executable}", "-m", "sidecar"'))

    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, cwd=README.parent
    )

    assert ran.returncode == 0, ran.stderr
    assert "current_time" in ran.stdout

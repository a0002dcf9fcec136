"""The README's tables, made from the program. `python -m tests.support.readme` renews them."""

import re
from collections.abc import Iterator
from pathlib import Path

from sidecar.paths import shipped_settings
from sidecar.schema import tables

README = Path(__file__).parents[2] / "README.md"
_SETTING = re.compile(r"( *)([a-z_]+):(?: +([^#]*?))?(?:\s+# (.*))?")
_TABLE = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(text: str) -> str:
    """`text` with every marked table made anew. Raises KeyError for one that there is not."""
    made = {**tables(), "Settings": settings_table()}
    return _TABLE.sub(lambda found: f"{found[1]}{made[found[2]].strip()}\n{found[3]}", text)


def settings_table() -> str:
    """The single settings of the shipped file, with what stands beside them there."""
    rows = ["| Setting | Default | |", "| --- | --- | --- |"]
    for path, value, meaning in _settings(shipped_settings().read_text("utf-8")):
        rows.append(f"| `{path}` | `{value}` | {meaning} |")
    return "\n".join(rows)


def _settings(text: str) -> Iterator[tuple[str, str, str]]:
    above: list[str] = []
    for line in text.splitlines():
        found = _SETTING.fullmatch(line)
        if found is None:
            continue
        depth = len(found[1]) // 2
        above[depth:] = [found[2]]
        if found[3] and above[0] != "providers":
            yield ".".join(above), found[3], found[4] or ""


if __name__ == "__main__":
    README.write_text(renewed(README.read_text("utf-8")), "utf-8")

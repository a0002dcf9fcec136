"""What a person is told of an entry before they let it start."""

import pytest

from sidecar.config import McpServerConfig
from sidecar.mcp_host.warnings import warnings
from tests.support.hosts import plain, running


def told(line: str) -> tuple[str, ...]:
    command, *args = line.split()
    return warnings(McpServerConfig(command=command, args=tuple(args)))


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("npx -y @scope/server", "@scope/server@1.2.3"),
        ("npx -y server /home/a", "server@1.2.3"),
        ("npx --yes server@latest", "server@1.2.3"),
        ("npx server@^1.2", "server@1.2.3"),
        ("npx -y server@2", "server@1.2.3"),
        ("npx --registry https://npm.example.com server", "server@1.2.3"),
        ("npx -y -p @scope/tools server", "@scope/tools@1.2.3"),
        ("npx --package=@scope/tools server", "@scope/tools@1.2.3"),
        ("npx -y github:someone/server", "github:someone/server#COMMIT"),
        ("/opt/homebrew/bin/npx -y server", "server@1.2.3"),
        ("C:\\nodejs\\npx.CMD -y server", "server@1.2.3"),
        ("cmd /c npx -y server", "server@1.2.3"),
        ("npm exec -- server", "server@1.2.3"),
        ("bunx server", "server@1.2.3"),
        ("pnpm dlx server", "server@1.2.3"),
        ("deno run -A npm:server", "server@1.2.3"),
        ("uvx mcp-server-time", "mcp-server-time@1.2.3"),
        ("uvx mcp-server-time>=2", "mcp-server-time@1.2.3"),
        ("uvx mcp-server-time@latest", "mcp-server-time@1.2.3"),
        ("uvx --python 3.12 mcp-server-time", "mcp-server-time@1.2.3"),
        ("uvx --with mcp<2 mcp-server-sqlite", "mcp-server-sqlite@1.2.3"),
        ("uvx --from some-tools[mcp] server", "some-tools[mcp]@1.2.3"),
        ("uvx --from git+https://example.com/a/b server", "git+https://example.com/a/b@COMMIT"),
        ("uv tool run mcp-server-time", "mcp-server-time@1.2.3"),
        ("pipx run server", "server@1.2.3"),
        ("docker run -i --rm -e KEY mcp/time", "mcp/time:TAG"),
        ("docker run --rm -i host.example:5000/mcp/time:latest", "host.example:5000/mcp/time:TAG"),
        ("podman run -i --mount type=bind,src=/a,dst=/b mcp/fs /b", "mcp/fs:TAG"),
    ],
)
def test_a_package_without_a_version_is_told_with_how_to_name_one(line: str, pinned: str) -> None:
    [warning] = told(line)

    assert "may change without your approval" in warning
    assert warning.endswith(f"as in {pinned}.")


@pytest.mark.parametrize(
    "line",
    [
        "npx -y @scope/server@1.2.3 /home/a",
        "npx server@1.2.3-beta.1",
        "npx -y ./server",
        "npx -y github:someone/server#4f2a1c",
        "npx",
        "npx -c",
        "uvx mcp-server-time==2026.10.19",
        "uvx mcp-server-time@2026.10.19",
        "uvx --from some-tools==1.0 server",
        "uvx --exclude-newer 2026-01-01 mcp-server-time",
        "uvx --from git+https://example.com/a/b@4f2a1c server",
        "uvx --from ./checkout server",
        "uv run server.py",
        "uv run --directory /home/a server",
        "docker run -i --rm mcp/time:1.0",
        "docker run -i mcp/time@sha256:0f0f",
        "docker exec -i box server",
        "deno run --allow-read main.ts",
        "node /home/a/server.js",
        "python3 -m mcp_server_time",
    ],
)
def test_what_stays_as_it_is_needs_no_warning(line: str) -> None:
    assert told(line) == ()


@pytest.mark.parametrize(
    "line",
    [
        "node server.js --api-key abcd1234",
        "node server.js --api-key=abcd1234",
        "node server.js ghp_abcdefghijklmnop",
        "node server.js postgres://user:password@db/x",
    ],
)
def test_a_key_among_the_arguments_is_told_and_not_repeated(line: str) -> None:
    [warning] = told(line)

    assert "looks like a key" in warning
    assert line.split()[-1] not in warning


def test_a_remote_address_without_tls_is_told() -> None:
    assert "can be read on the way" in warnings(McpServerConfig(url="http://example.com/mcp"))[0]
    for url in ("https://example.com/mcp", "http://127.0.0.1:3000/mcp", "http://localhost/mcp"):
        assert warnings(McpServerConfig(url=url)) == ()


async def test_a_client_is_told_with_the_servers_status() -> None:
    config = plain()
    entry = {"command": "npx", "args": ["-y", "server"], "enabled": False}
    async with running(s=config, t=McpServerConfig.model_validate(entry)) as host:
        assert host.status("s").warnings == ()
        assert "server@1.2.3" in host.status("t").warnings[0]

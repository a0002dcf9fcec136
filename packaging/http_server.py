"""An MCP server over HTTP, made with the SDK, for the smoke test: prints its port and serves."""

import asyncio
import socket

import uvicorn
from mcp.server import MCPServer
from mcp_types import ToolAnnotations


def add(a: int, b: int) -> str:
    return str(a + b)


def main() -> None:
    server = MCPServer("smoke", log_level="ERROR")
    reads = ToolAnnotations(read_only_hint=True)  # so that a trusted server need not ask
    server.add_tool(add, annotations=reads, structured_output=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(server.streamable_http_app(), log_level="error")
        asyncio.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()

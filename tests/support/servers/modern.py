"""A server of the 2026-07-28 revision, by the SDK, whose tools change when `grow` is called.

Over HTTP where it is given a port.
"""

import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("modern", log_level="WARNING")


@server.tool()
async def grow(context: Context) -> str:
    server.add_tool(lambda: "new", name="new", description="A new tool.")
    await context.notify_tools_changed()
    return "grown"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")

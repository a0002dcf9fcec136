"""A server of the 2026-07-28 revision, by the SDK, whose tools change when `grow` is called."""

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("modern", log_level="WARNING")


@server.tool()
async def grow(context: Context) -> str:
    server.add_tool(lambda: "new", name="new", description="A new tool.")
    await context.notify_tools_changed()
    return "grown"


if __name__ == "__main__":
    server.run("stdio")

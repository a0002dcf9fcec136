"""A server that asks, in whichever revision of MCP it is spoken to; over HTTP if given a port."""

import sys
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel, Field

server = MCPServer("asking", log_level="WARNING")


class Seats(BaseModel):
    count: int = Field(ge=1, le=9)
    window: bool = True


def ask_for_seats(town: str) -> Elicit[Seats]:
    return Elicit(f"How many seats to {town}\u202e?", Seats)


@server.tool()
async def book(
    town: str, seats: Annotated[ElicitationResult[Seats], Resolve(ask_for_seats)]
) -> str:
    return f"{seats.action}: {getattr(seats, 'data', None)}"


@server.tool()
async def visit(url: str, context: Context) -> str:
    """Only before 2026-07-28, whose servers ask for it in another way."""
    return (await context.elicit_url("Please sign.", url, "1")).action


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")

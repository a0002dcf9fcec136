"""The official conformance suite of MCP, driven through the sidecar's own API.

    npm install --no-save --prefix FOLDER node@24 @modelcontextprotocol/conformance@0.2.0-alpha.12
    uv run python -m tests.conformance FOLDER

The suite plays the servers, the authorization servers and the judge. `client` is what it runs for
each scenario: a person and a frontend, at a sidecar in a process of its own.
"""

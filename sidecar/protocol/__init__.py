"""What crosses the socket: requests in, frames out. These models are the protocol's definition.

A file has the actions, results and events of one subject; `requests` and `frames` put them
together. The schema, the TypeScript types and the README's tables are generated from them.
"""

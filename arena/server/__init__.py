"""The environment server: sessions in worker processes, reached over HTTP, WebSocket, OpenEnv's protocol and MCP.

How a request flows: an endpoint (`websocket`, `http`, `openenv`, `mcp`, `pages`) turns it into a message of
`arena.protocol` and gives it to the `hub`; the hub checks who asks (`access`), keeps every session's journal (`ledger`)
and sends the work to a process of the `pool`, where a `worker` holds the `arena.session.Session`.
"""

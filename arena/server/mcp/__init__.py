"""MCP over streamable HTTP: one session's tools as MCP tools."""

from arena.server.mcp.endpoint import routes

__all__ = ["routes"]

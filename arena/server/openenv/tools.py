"""OpenEnv's JSON-RPC beside its own frames: an environment's tools, and sessions that are begun over HTTP.

``tools/list`` and ``tools/call`` act in the same episode as ``reset`` and ``step``. ``openenv/session/create`` returns
a `session_id` with which ``/ws?session_id=`` attaches to it; the id is a capability.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from arena.errors import ArenaError
from arena.server.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RpcError,
    RpcRequest,
    failure,
    failure_of,
    parse_request,
    success,
)
from arena.server.mcp.tools import SeatTools, View, result
from arena.server.openenv.session import OpenEnvSession

__all__ = ["Find", "Using", "answer_rpc"]

Find = Callable[[RpcRequest], Awaitable[OpenEnvSession]]
"""Returns the session that a request is for."""
Using = Callable[[OpenEnvSession], AbstractAsyncContextManager[Any]]
"""Gives the session to one request at a time."""


async def answer_rpc(message: Any, find: Find, using: Using) -> dict[str, Any]:
    """Return the reply to one JSON-RPC message; failures are replies too.

    Args:
        message: Any JSON value.
        find: Says which session it is for, and begins or ends one.
        using: Holds the session while it is used.
    """
    id = None
    try:
        request = parse_request(message)
        if request is None:
            raise RpcError(METHOD_NOT_FOUND, "this is a response, and nothing was asked")
        id = request.id
        session = await find(request)
        async with using(session):
            return success(id, await _result(session, request))
    except RpcError as error:
        return failure(id, error)
    except ArenaError as error:
        return failure(id, failure_of(error))


async def _result(session: OpenEnvSession, request: RpcRequest) -> dict[str, Any]:
    match request.method:
        case "openenv/session/create":
            return {"session_id": session.capability}
        case "openenv/session/close":
            await session.close()
            return {"session_id": request.params.get("session_id"), "closed": True}
        case "tools/list":
            return {"tools": SeatTools(session.seat).listing(with_observe=False)}
        case "tools/call":
            return await _call(session, request.params)
    raise RpcError(METHOD_NOT_FOUND, f"Method not found: {request.method[:80]}")


async def _call(session: OpenEnvSession, params: dict[str, Any]) -> dict[str, Any]:
    """Take a step; `data` is what OpenEnv's own client returns to its caller."""
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise RpcError(INVALID_PARAMS, "tools/call takes name, a text, and arguments, a JSON object")
    tools = SeatTools(session.seat)
    stepped = await session.play(tools.action(name, arguments))
    step = stepped.record.time_step.seats[session.agent]
    told = result(tools, View((step,), is_due=not step.is_last), structured=True)
    return told | {"data": session.seat.value(step.observation)}

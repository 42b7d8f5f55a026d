"""OpenEnv's WebSocket: one connection is one OpenEnv session, whose frames are answered one after the other."""

from __future__ import annotations

import logging
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from arena.errors import ArenaError, EnvError, UsageError
from arena.server.access import Caller
from arena.server.hub import Hub
from arena.server.jsonrpc import INVALID_REQUEST, RpcError, RpcRequest
from arena.server.openenv.dialect import FieldError, error_frame, frame, parse_frame
from arena.server.openenv.http import HttpSessions, Identify, shown_by
from arena.server.openenv.session import OpenEnvSession, describe
from arena.server.openenv.tools import answer_rpc
from arena.server.plain_seat import decode_plain

__all__ = ["OpenEnvSocket"]

_REFUSED = 1008
_log = logging.getLogger(__name__)


class OpenEnvSocket:
    """Serves the connections of all environments.

    Args:
        hub: The server's hub.
        identify: Says who opens a socket.
        sessions: Those that are used over HTTP: a socket can attach to one of them.
    """

    def __init__(self, hub: Hub, identify: Identify, sessions: HttpSessions) -> None:
        self._hub, self._identify, self._sessions = hub, identify, sessions

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection until it ends; an episode that is not closed stays for its lease."""
        await websocket.accept()
        try:
            caller = self._identify(websocket)
            session, is_shared = await self._open(websocket, caller)
            await session.hold()
        except ArenaError as error:
            await _refuse(websocket, error)
            return
        self._hub.metrics.connected("websocket")
        try:
            closed = await _converse(websocket, session)
            if closed and not is_shared:
                await session.close()
        finally:
            session.release(socket=True)
            self._hub.metrics.disconnected("websocket")
        if closed:
            await _close(websocket, 1000)

    async def _open(self, websocket: WebSocket, caller: Caller) -> tuple[OpenEnvSession, bool]:
        """Return the connection's session, and whether it is one that is used over HTTP too."""
        env = str(websocket.path_params["env"])
        capability = websocket.query_params.get("session_id") or shown_by(websocket, None).header
        if capability is not None:
            return await self._sessions.attach(env, caller, capability)
        return OpenEnvSession(self._hub, caller, await describe(self._hub, caller, env)), False


async def _converse(websocket: WebSocket, session: OpenEnvSession) -> bool:
    """Answer frames until the client says close, or is gone; return which."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return False
        reply = await _reply(session, message.get("text"))
        if reply is None:
            return True
        try:
            await websocket.send_text(reply)
        except (WebSocketDisconnect, RuntimeError):
            return False


async def _reply(session: OpenEnvSession, text: str | None) -> str | None:
    """Return the reply to a frame, or None where it says close."""
    try:
        message = decode_plain(text if text is not None else "")
    except UsageError as error:
        return error_frame(error, "INVALID_JSON")
    try:
        kind, data = parse_frame(message)
        return None if kind == "close" else await _answer(session, kind, data)
    except ArenaError as error:
        session.hub.metrics.refused(error.code)
        return error_frame(error)
    except Exception:  # the boundary: a fault of ours is answered, and the connection goes on
        _log.exception("an OpenEnv frame failed")
        return error_frame(EnvError("the server failed at this frame"))


async def _answer(session: OpenEnvSession, kind: str, data: dict[str, Any]) -> str:
    match kind:
        case "reset":
            async with session.lock:
                return frame("observation", await session.reset(data))
        case "step":
            async with session.lock:
                return frame("observation", await session.step(data))
        case "state":
            return frame("state", session.state())
        case "mcp":
            return frame("mcp", await _answer_rpc(session, data))
    known = "reset, step, state, close, mcp"
    return error_frame(FieldError(f"Unknown message type: {kind[:80]} (known: {known})", "type"), "UNKNOWN_TYPE")


async def _answer_rpc(session: OpenEnvSession, data: dict[str, Any]) -> dict[str, Any]:
    async def find(request: RpcRequest) -> OpenEnvSession:
        if request.method == "openenv/session/close":
            raise RpcError(INVALID_REQUEST, "this session ends with its connection: send a close frame")
        return session

    return await answer_rpc(data, find, lambda session: session.lock)


async def _refuse(websocket: WebSocket, error: ArenaError) -> None:
    """Say why a connection gets no session, and close it."""
    try:
        await websocket.send_text(error_frame(error, "SESSION_ERROR"))
    except (WebSocketDisconnect, RuntimeError):
        return
    await _close(websocket, _REFUSED)


async def _close(websocket: WebSocket, code: int) -> None:
    try:
        await websocket.close(code)
    except (WebSocketDisconnect, RuntimeError):
        return

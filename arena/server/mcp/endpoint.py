"""MCP over streamable HTTP at ``/mcp``: an agent plays one seat of a session by calling tools.

``Authorization: Bearer <capability>`` says which session and which seat: the owner's capability of a session with one
seat, or a seat's own. Nothing that the agent can send begins or ends an episode, and nothing that it is sent tells
reward or score. Every reply is one JSON message; there are no streams, so GET is refused.

    initialize    agrees on a version; `instructions` hold the task and what the seat sees now
    tools/list    the environment's tools, `act`, `observe`
    tools/call    takes one step, and answers with what the seat sees then
    DELETE        ends the MCP session; the episode goes on

A call that is refused (an illegal action, wrong arguments) is a result with ``isError``, for the agent to read. A
repeated id gets the recorded answer.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from arena.errors import ArenaError, ForbiddenError, UnauthorizedError, UsageError
from arena.server.hub import Hub
from arena.server.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcError,
    RpcRequest,
    failure,
    failure_of,
    is_id,
    parse_request,
    success,
)
from arena.server.mcp.play import SeatPlay
from arena.server.mcp.session import PROTOCOL_VERSIONS, McpSession, McpSessions
from arena.server.plain_seat import decode_plain
from arena.types import encode_json

__all__ = ["PATH", "routes"]

PATH = "/mcp"
_LONGEST_BATCH = 100
_log = logging.getLogger(__name__)


class _HttpError(Exception):
    """A refusal that HTTP itself has a status for; the body is a JSON-RPC error all the same."""

    def __init__(self, status: int, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.headers = status, RpcError(code, message), headers or {}


def routes(hub: Hub) -> list[BaseRoute]:
    """Return the routes of the endpoint."""
    endpoint = _Endpoint(hub)
    return [
        Route(PATH, endpoint.post, methods=["POST"]),
        Route(PATH, endpoint.delete, methods=["DELETE"]),
        Route(PATH, _refuse, methods=["GET", "PUT", "PATCH"]),
    ]


class _Endpoint:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._sessions = McpSessions(hub.settings.idle_s)

    async def post(self, request: Request) -> Response:
        try:
            _check_headers(request)
            play = self._play(request)
            return await self._answer(request, play, await _message(request))
        except _HttpError as error:
            return _json(failure(None, error.error), error.status, error.headers)

    async def delete(self, request: Request) -> Response:
        try:
            self._sessions.remove(self._session(request, self._play(request)))
        except _HttpError as error:
            return _json(failure(None, error.error), error.status, error.headers)
        return Response(status_code=204)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request, play: SeatPlay, message: Any) -> Response:
        if isinstance(message, dict) and message.get("method") == "initialize":
            return await self._initialize(play, message)
        session = self._session(request, play)
        if isinstance(message, list):
            return await _answer_batch(session, message)
        reply = await _reply(session, message)
        return Response(status_code=202) if reply is None else _json(reply)

    async def _initialize(self, play: SeatPlay, message: Any) -> Response:
        id = message.get("id") if is_id(message.get("id")) else None
        try:
            request = parse_request(message)
            if request is None or request.id is None:
                raise RpcError(INVALID_REQUEST, "initialize is a request, so it has an id")
            session = McpSession(play, _agreed_version(request))
            begun = await session.begin()
        except RpcError as error:
            return _json(failure(id, error), 400)
        except ArenaError as error:
            return _json(failure(id, failure_of(error)), _status(error))
        self._sessions.add(session)
        return _json(success(request.id, begun), headers={"Mcp-Session-Id": session.id})

    def _play(self, request: Request) -> SeatPlay:
        scheme, _, capability = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise UnauthorizedError("show a session's capability as Authorization: Bearer <capability>")
            return SeatPlay(self._hub, capability.strip())
        except UnauthorizedError as error:
            headers = {"WWW-Authenticate": "Bearer"}
            raise _HttpError(401, INVALID_REQUEST, error.message, headers) from error

    def _session(self, request: Request, play: SeatPlay) -> McpSession:
        id = request.headers.get("mcp-session-id")
        if id is None:
            raise _HttpError(400, INVALID_REQUEST, "the header Mcp-Session-Id is missing; send initialize first")
        session = self._sessions.find(id, play.grant)
        if session is None:
            raise _HttpError(404, INVALID_REQUEST, "no such MCP session; send initialize again")
        return session


async def _answer_batch(session: McpSession, messages: list[Any]) -> Response:
    if not session.takes_batches or not 0 < len(messages) <= _LONGEST_BATCH:
        what = f"a batch has 1 to {_LONGEST_BATCH} messages" if session.takes_batches else "this version has no batches"
        raise _HttpError(400, INVALID_REQUEST, f"{what}, in MCP {session.version}")
    replies = [reply for message in messages if (reply := await _reply(session, message)) is not None]
    return _json(replies) if replies else Response(status_code=202)


async def _reply(session: McpSession, message: Any) -> dict[str, Any] | None:
    """Return the reply to one message; None where it wants none."""
    id = message["id"] if isinstance(message, dict) and is_id(message.get("id")) else None
    try:
        request = parse_request(message)
        if request is None or request.id is None:
            return None
        return await session.answer(request)
    except RpcError as error:
        return failure(id, error)
    except Exception:  # the boundary: a fault of ours is answered, and the server goes on
        _log.exception("an MCP request failed")
        return failure(id, RpcError(INTERNAL_ERROR, "the server failed at this request"))


async def _message(request: Request) -> Any:
    try:
        return decode_plain(await request.body())
    except UsageError as error:
        raise _HttpError(400, PARSE_ERROR, error.message) from error


def _check_headers(request: Request) -> None:
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _HttpError(415, INVALID_REQUEST, "the body is JSON: send Content-Type: application/json")
    accepted = headers.get("accept", "*/*").lower()
    if not any(kind in accepted for kind in ("application/json", "application/*", "*/*")):
        raise _HttpError(406, INVALID_REQUEST, "every reply is JSON: accept application/json")
    version = headers.get("mcp-protocol-version")
    if version is not None and version not in PROTOCOL_VERSIONS:
        raise _HttpError(400, INVALID_REQUEST, f"MCP-Protocol-Version is one of {', '.join(PROTOCOL_VERSIONS)}")


def _agreed_version(request: RpcRequest) -> str:
    """Return the version that the client asks for, or the latest one where it is not spoken here."""
    version = request.params.get("protocolVersion")
    if not isinstance(version, str):
        raise RpcError(INVALID_PARAMS, "protocolVersion is a text")
    return version if version in PROTOCOL_VERSIONS else PROTOCOL_VERSIONS[-1]


async def _refuse(request: Request) -> Response:
    error = RpcError(INVALID_REQUEST, "this server sends nothing by itself: use POST, or DELETE to end a session")
    return _json(failure(None, error), 405, {"Allow": "POST, DELETE"})


def _status(error: ArenaError) -> int:
    return 403 if isinstance(error, ForbiddenError) else 404 if error.code in ("UNKNOWN_ID", "SESSION_GONE") else 400


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(body), status, headers, media_type="application/json")

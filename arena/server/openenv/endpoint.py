"""OpenEnv's protocol, each environment at ``/openenv/<env id>``: its unmodified clients play here.

::

    WS   /ws       frames reset, step, state, close, mcp; one episode at a time, any number one after the other
    POST /reset    POST /step    GET /state                        the same verbs over HTTP, with state
    GET  /schema   GET /metadata   GET /health                     what the environment is
    POST /mcp      JSON-RPC: tools/list, tools/call, openenv/session/create, openenv/session/close

`reset` takes `seed`, `episode_id`, `task` (or `task_id`), `split` and the environment's options; others are dropped, as
OpenEnv does, and named in ``metadata.ignored``. A text action is ``{"message"}``, a discrete one ``{"action_id"}``, an
array ``{"values"}``, a tool call ``{"type": "call_tool", "tool_name", "arguments"}``; ``/schema`` says which.
Environments with several seats are refused: the protocol knows one agent.

Where OpenEnv destroys the episode of a lost connection, it stays for its lease: `session_id` of the state re-attaches,
as ``/ws?session_id=`` or as the header ``X-Session-ID``. It is a capability, so it is a secret, and it stands in
the state only, which agents do not see.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from arena.errors import ArenaError, CapacityError, EnvError, UnauthorizedError, UsageError
from arena.server.access import Caller
from arena.server.http import STATUS
from arena.server.hub import Hub
from arena.server.jsonrpc import INVALID_PARAMS, PARSE_ERROR, RpcError, RpcRequest, failure
from arena.server.openenv.dialect import FieldError, error_data
from arena.server.openenv.http import AmbiguousSessionError, HttpSessions, Identify, Shown, cookie_of, shown_by
from arena.server.openenv.schema import action_schema, observation_schema, openapi, state_schema
from arena.server.openenv.session import OpenEnvSession, describe
from arena.server.openenv.tools import answer_rpc
from arena.server.openenv.websocket import OpenEnvSocket
from arena.server.plain_seat import PlainSeat, decode_plain
from arena.types import encode_json

__all__ = ["PREFIX", "routes"]

PREFIX = "/openenv"
_log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


def routes(hub: Hub, identify: Identify) -> list[BaseRoute]:
    """Return the routes of all environments.

    Args:
        hub: The server's hub.
        identify: Says who sends a request or opens a socket; raises `UnauthorizedError`.
    """
    endpoint = _Endpoint(hub, identify)
    base = f"{PREFIX}/{{env:path}}"
    return [
        WebSocketRoute(f"{base}/ws", OpenEnvSocket(hub, identify, endpoint.sessions).serve),
        Route(f"{base}/reset", _answering(hub, endpoint.reset), methods=["POST"]),
        Route(f"{base}/step", _answering(hub, endpoint.step), methods=["POST"]),
        Route(f"{base}/state", _answering(hub, endpoint.state), methods=["GET"]),
        Route(f"{base}/schema", _answering(hub, endpoint.schema), methods=["GET"]),
        Route(f"{base}/metadata", _answering(hub, endpoint.metadata), methods=["GET"]),
        Route(f"{base}/health", _answering(hub, endpoint.health), methods=["GET"]),
        Route(f"{base}/openapi.json", _answering(hub, endpoint.openapi), methods=["GET"]),
        Route(f"{base}/mcp", _answering(hub, endpoint.mcp), methods=["POST"]),
    ]


class _Endpoint:
    """The HTTP routes."""

    def __init__(self, hub: Hub, identify: Identify) -> None:
        self._hub, self._identify = hub, identify
        self.sessions = HttpSessions(hub)

    async def reset(self, request: Request) -> Response:
        env, caller, arguments = _env(request), self._identify(request), await _body(request)
        shown = shown_by(request, arguments.get("episode_id"))
        session = await self.sessions.for_reset(env, caller, shown)
        async with _using(session):
            response = _json(await session.reset(arguments))
            cookie_of(session, response, request, f"{PREFIX}/{env}")
            self.sessions.keep(session, named=shown.episode_id is not None)
        return response

    async def step(self, request: Request) -> Response:
        body = await _body(request)
        action, request_id = body.get("action"), body.get("request_id")
        if not isinstance(action, dict):
            raise FieldError("action is a JSON object", "body", "action", given=action)
        if request_id is not None and not isinstance(request_id, str):
            raise FieldError("request_id is a text", "body", "request_id", given=request_id)
        session = await self._session(request, body.get("episode_id"))
        async with _using(session):
            return _json(await session.step_once(request_id, action))

    async def state(self, request: Request) -> Response:
        session = await self._session(request, request.query_params.get("episode_id"))
        return _json(session.state())

    async def schema(self, request: Request) -> Response:
        info = await describe(self._hub, self._identify(request), _env(request))
        seat = PlainSeat(next(iter(info.seats.values())))
        shapes = {name: observation_schema(seat, reset=name != "observation") for name in _OBSERVATIONS}
        return _json({"action": action_schema(seat), **shapes, "state": state_schema()})

    async def metadata(self, request: Request) -> Response:
        spec = (await describe(self._hub, self._identify(request), _env(request))).spec
        told = {"name": spec.id, "description": spec.summary, "version": spec.id.rpartition("-v")[2]}
        return _json(told | dict.fromkeys(("readme_content", "author", "documentation_url")))

    async def health(self, request: Request) -> Response:
        await describe(self._hub, self._identify(request), _env(request))
        return _json({"status": "healthy"})

    async def openapi(self, request: Request) -> Response:
        spec = (await describe(self._hub, self._identify(request), _env(request))).spec
        return _json(openapi(spec.id, spec.summary))

    async def mcp(self, request: Request) -> Response:
        try:
            message = decode_plain(await request.body())
        except UsageError as error:
            return _json(failure(None, RpcError(PARSE_ERROR, error.message)))

        async def find(rpc: RpcRequest) -> OpenEnvSession:
            return await self._for_rpc(request, rpc)

        return _json(await answer_rpc(message, find, _using))

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _session(self, request: Request, episode_id: Any) -> OpenEnvSession:
        shown = shown_by(request, episode_id)
        return await self.sessions.for_step(_env(request), self._identify(request), shown)

    async def _for_rpc(self, request: Request, rpc: RpcRequest) -> OpenEnvSession:
        env, caller, named = _env(request), self._identify(request), rpc.params.get("session_id")
        if rpc.method == "openenv/session/create":
            return await self._begin(env, caller)
        if named is not None and not isinstance(named, str):
            raise RpcError(INVALID_PARAMS, "session_id is a text")
        if rpc.method == "tools/list" and named is None:
            return OpenEnvSession(self._hub, caller, await describe(self._hub, caller, env))
        shown = shown_by(request, None) if named is None else Shown(named, None, None)
        session = await self.sessions.for_step(env, caller, shown)
        if rpc.method == "openenv/session/close":
            self.sessions.forget(session)
        return session

    async def _begin(self, env: str, caller: Caller) -> OpenEnvSession:
        session = self.sessions.new(caller, await describe(self._hub, caller, env))
        async with _using(session):
            await session.reset({})
            self.sessions.keep(session, named=True)
        return session


_OBSERVATIONS = ("observation", "reset_observation")


@asynccontextmanager
async def _using(session: OpenEnvSession) -> AsyncIterator[None]:
    """Use a session for one request, alone; a request is no connection that would hold it."""
    async with session.lock:
        try:
            yield
        finally:
            session.release()


def _answering(hub: Hub, handler: Handler) -> Handler:
    """Return the handler with failures as answers, in OpenEnv's shape: `detail`, and Arena's record at `error`."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ArenaError as error:
            hub.metrics.refused(error.code)
            return _failure(error)
        except Exception:  # the boundary: a fault of ours is answered, and the server goes on
            _log.exception("an OpenEnv request failed")
            return _failure(EnvError("the server failed at this request"))

    return answer


def _failure(error: ArenaError) -> Response:
    detail: Any = error.errors if isinstance(error, FieldError) else error.message
    status = 409 if isinstance(error, AmbiguousSessionError) else STATUS.get(error.code, 502)
    response = _json({"detail": detail, **error_data(error)}, status)
    if isinstance(error, CapacityError):
        response.headers["Retry-After"] = str(max(1, round(float(error.details.get("retry_after_s", 1)))))
    if isinstance(error, UnauthorizedError):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _body(request: Request) -> dict[str, Any]:
    """Return the body's JSON object; an empty one where there is no body."""
    data = await request.body()
    try:
        body = decode_plain(data) if data.strip() else {}
    except UsageError as error:
        raise FieldError(error.message, "body") from error
    if not isinstance(body, dict):
        raise FieldError("the body is a JSON object", "body", given=body)
    return body


def _env(request: Request) -> str:
    return str(request.path_params["env"])


def _json(body: Any, status: int = 200) -> Response:
    return Response(encode_json(body), status, media_type="application/json")

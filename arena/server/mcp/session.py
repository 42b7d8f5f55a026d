"""An MCP session: an agent, the seat that it plays, and the answers it was given.

A repeated request gets the recorded answer: acting twice because an answer was lost is impossible. Calls that only
look are answered anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from typing import Any

from arena.errors import BoundaryError, UnauthorizedError, UnknownIdError, UsageError
from arena.extras import installed_version
from arena.server.access import Grant
from arena.server.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    RpcError,
    RpcRequest,
    failure,
    failure_of,
    success,
)
from arena.server.mcp.play import SeatPlay
from arena.server.mcp.tools import SeatTools, refusal, result
from arena.server.plain_seat import PlainSeat
from arena.types import encode_canonical

__all__ = ["PROTOCOL_VERSIONS", "McpSession", "McpSessions"]

PROTOCOL_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Versions of MCP that are spoken, the latest last."""
_STRUCTURED_SINCE, _BATCHED_UNTIL = "2025-06-18", "2025-03-26"
_KEPT_ANSWERS, _KNOWN_IDS = 64, 10_000
_MOST_SESSIONS_OF_A_SEAT = 8


class McpSession:
    """One agent's session.

    Args:
        play: The seat that it plays.
        version: The protocol version that was agreed on.

    Attributes:
        id: Its id: not guessable, but of no use without the capability.
        used_at: When it was used last, in monotonic seconds.
    """

    def __init__(self, play: SeatPlay, version: str) -> None:
        self.id = secrets.token_urlsafe(24)
        self.play, self.version = play, version
        self.used_at = time.monotonic()
        self._tools: SeatTools | None = None
        self._answers: OrderedDict[str, tuple[bytes, asyncio.Task[dict[str, Any]] | None]] = OrderedDict()

    @property
    def grant(self) -> Grant:
        """What its capability opens."""
        return self.play.grant

    @property
    def takes_batches(self) -> bool:
        """Whether the agreed version has batches."""
        return self.version <= _BATCHED_UNTIL

    async def begin(self) -> dict[str, Any]:
        """Return the answer to ``initialize``: its instructions hold the task and what the seat sees now.

        Raises:
            ArenaError: The session cannot be played with this capability.
        """
        tools = await self._seat_tools()
        view = await self.play.look(wait_s=0.0)
        told = [tools.seat.info.instructions, tools.describe(view)]
        return {
            "protocolVersion": self.version,
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "arena", "version": installed_version("arena-rl") or "unknown"},
            "instructions": "\n\n".join(text for text in told if text),
        }

    async def answer(self, request: RpcRequest) -> dict[str, Any]:
        """Return the reply to a request; failures are replies too."""
        self.used_at = time.monotonic()
        assert request.id is not None
        try:
            return success(request.id, await self._result(request))
        except RpcError as error:
            return failure(request.id, error)
        except (UnauthorizedError, UnknownIdError, BoundaryError) as error:
            return failure(request.id, failure_of(error))

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _result(self, request: RpcRequest) -> dict[str, Any]:
        match request.method:
            case "ping":
                return {}
            case "tools/list":
                if request.params.get("cursor") is not None:
                    raise RpcError(INVALID_PARAMS, "there is one page of tools only, so no cursor")
                return {"tools": (await self._seat_tools()).listing()}
            case "tools/call":
                return await self._call(request)
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: {request.method[:80]}")

    async def _call(self, request: RpcRequest) -> dict[str, Any]:
        name, arguments = request.params.get("name"), request.params.get("arguments")
        arguments = {} if arguments is None else arguments
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RpcError(INVALID_PARAMS, "tools/call takes name, a text, and arguments, a JSON object")
        if name == "observe":
            return await self._observe()
        return await self._once(request, name, arguments)

    async def _once(self, request: RpcRequest, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Act, or return what the same request was answered before, or is about to be."""
        key, asked = f"{type(request.id).__name__}:{request.id}", _fingerprint(name, arguments)
        if key not in self._answers:
            task = asyncio.create_task(self._act(key, name, arguments))
            self._answers[key] = asked, task
            task.add_done_callback(lambda task: self._settle(key, task))
        before, known = self._answers[key]
        if before != asked:
            raise RpcError(INVALID_REQUEST, f"id {request.id!r} was used before, for another call")
        if known is None:
            raise RpcError(INVALID_REQUEST, f"id {request.id!r} was answered long ago; its answer is no longer kept")
        return await asyncio.shield(known)

    def _settle(self, key: str, task: asyncio.Task[dict[str, Any]]) -> None:
        """Forget a call that failed without having been decided, so that it can be repeated, and old answers."""
        if task.cancelled() or task.exception() is not None:
            self._answers.pop(key, None)
        done = [key for key, (_, known) in self._answers.items() if known is not None and known.done()]
        for old in done[:-_KEPT_ANSWERS]:
            self._answers[old] = self._answers[old][0], None
        while len(self._answers) > _KNOWN_IDS:
            self._answers.popitem(last=False)

    async def _act(self, key: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        tools = await self._seat_tools()
        try:
            view = await self.play.act(tools.action(name, arguments), f"{self.id}/{key}")
        except (UnauthorizedError, UnknownIdError):
            raise
        except UsageError as error:
            return refusal(error.message)
        return result(tools, view, structured=self.version >= _STRUCTURED_SINCE)

    async def _observe(self) -> dict[str, Any]:
        try:
            view = await self.play.look()
        except (UnauthorizedError, UnknownIdError):
            raise
        except UsageError as error:
            return refusal(error.message)
        return result(await self._seat_tools(), view, structured=self.version >= _STRUCTURED_SINCE)

    async def _seat_tools(self) -> SeatTools:
        if self._tools is None:
            (seat,) = (await self.play.attach()).seats.values()
            self._tools = SeatTools(PlainSeat(seat))
        return self._tools


def _fingerprint(name: str, arguments: dict[str, Any]) -> bytes:
    return hashlib.blake2b(encode_canonical((name, arguments)), digest_size=16).digest()


class McpSessions:
    """The MCP sessions of a server.

    Args:
        idle_s: Seconds after which an unused one is forgotten.
    """

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._sessions: OrderedDict[str, McpSession] = OrderedDict()

    def add(self, session: McpSession) -> None:
        """Keep a session; the oldest of the same seat makes room, and idle ones are forgotten."""
        now = time.monotonic()
        for idle in [s for s in self._sessions.values() if now - s.used_at > self._idle_s]:
            self.remove(idle)
        same = [other for other in self._sessions.values() if other.grant == session.grant]
        if len(same) >= _MOST_SESSIONS_OF_A_SEAT:
            self.remove(same[0])
        self._sessions[session.id] = session

    def find(self, id: str, grant: Grant) -> McpSession | None:
        """Return a session, if it is the grant's."""
        session = self._sessions.get(id)
        return session if session is not None and session.grant == grant else None

    def remove(self, session: McpSession) -> None:
        """Forget a session."""
        self._sessions.pop(session.id, None)

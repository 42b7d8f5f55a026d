"""Reading sessions: what their owners, their seats and those who watch may see of the steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from arena.env import EnvSpec
from arena.protocol import Attach, Attached, GetTrace, Read, Records, Reply, TaskRef, TraceText
from arena.server.access import Caller, Grant
from arena.server.hosting import Host, Hosted
from arena.server.ledger import Finished, Stored
from arena.server.match import seat_view
from arena.server.sessions import Sessions
from arena.trace import EndRecord, read_lines

__all__ = ["Reader"]

_LONGEST_WAIT_S = 60.0
_MOST_RECORDS = 256
_decode_end = msgspec.msgpack.Decoder(EndRecord).decode


class Reader:
    """Reads sessions, open and closed.

    Args:
        sessions: The sessions.
        host: Where the open ones live.
    """

    def __init__(self, sessions: Sessions, host: Host) -> None:
        self._sessions, self._host = sessions, host

    async def records(self, hosted: Hosted, after: int) -> Records:
        """Return an open session's steps after step `after`, at most some hundreds of them."""
        reply = await self._host.ask(hosted, Read(id=0, session=hosted.id, after=after))
        assert isinstance(reply, Records)
        return reply

    async def read(self, request: Read, grant: Grant) -> Records:
        """Return what the holder of a grant may see of the steps after one; wait for them if that is asked for.

        Raises:
            SessionGoneError: The session is neither open nor kept.
        """
        hosted = self._sessions.find(request.session)
        if hosted is not None:
            hosted.last_seen = time.monotonic()
            await self._wait_for_news(hosted, request)
        if hosted is None or request.session not in self._sessions:
            return _as_seen(_finished_records(self._sessions.closed(request.session), request), grant, request)
        return _as_seen(await self.records(hosted, request.after), grant, request)

    async def trace(self, request: GetTrace) -> Reply:
        """Return the trace of an episode that is over.

        Raises:
            ResetNeededError: It is not over yet.
            SessionGoneError: The session is neither open nor kept.
        """
        hosted = self._sessions.find(request.session)
        if hosted is not None:
            return await self._host.ask(hosted, request)
        kept = self._sessions.closed(request.session)
        return TraceText(id=request.id, session=request.session, lines=kept.trace().decode())

    async def attached(self, request: Attach, grant: Grant, spec: Callable[[str], EnvSpec], caller: Caller) -> Attached:
        """Return what a capability opens, and hold the session for the connection."""
        hosted = self._sessions.find(grant.session)
        if hosted is None:
            return _attached_to_closed(request, grant, self._sessions.closed(grant.session), spec)
        self._sessions.hold(hosted, caller)
        records = await self.records(hosted, len(hosted.entries) - 1)
        opening, opened = hosted.stored.opening, hosted.opened
        seats = {} if opened is None else opened.seats
        return Attached(
            id=request.id,
            session=hosted.id,
            role=grant.role,
            seat=grant.seat,
            env=opening.env,
            spec=spec(opening.env),
            status=records.status,
            next=records.next,
            acting=records.acting,
            seats=seats if grant.seat is None else {grant.seat: seats[grant.seat]},
            **_for_owner(hosted.stored, grant),
        )

    async def _wait_for_news(self, hosted: Hosted, request: Read) -> None:
        wait_s = min(request.wait_s, _LONGEST_WAIT_S)
        deadline = time.monotonic() + wait_s
        while wait_s > 0 and not self._has_news(hosted, request.after):
            with suppress(TimeoutError):
                await asyncio.wait_for(hosted.changed.wait(), wait_s)
            wait_s = deadline - time.monotonic()

    def _has_news(self, hosted: Hosted, after: int) -> bool:
        if self._sessions.draining or hosted.over or hosted.failure or hosted.id not in self._sessions:
            return True
        return len(hosted.entries) - hosted.uncommitted > after + 1


def _as_seen(records: Records, grant: Grant, request: Read) -> Records:
    """Return what the holder of a grant may see of some steps."""
    seat = grant.seat if grant.seat is not None else request.seat
    if seat is None:
        return msgspec.structs.replace(records, id=request.id)
    views = [seat_view(record, seat) for record in records.records]
    return msgspec.structs.replace(records, id=request.id, records=[], seat_records=views, end=None)


def _finished_records(kept: Finished, request: Read) -> Records:
    episode = read_lines(kept.trace())
    first = max(0, request.after + 1)
    return Records(
        session=request.session,
        status="closed",
        next=len(episode.steps),
        records=episode.steps[first : first + _MOST_RECORDS],
        end=_decode_end(kept.end),
    )


def _attached_to_closed(request: Attach, grant: Grant, kept: Finished, spec: Callable[[str], EnvSpec]) -> Attached:
    env = kept.stored.opening.env
    return Attached(
        id=request.id,
        session=grant.session,
        role=grant.role,
        seat=grant.seat,
        env=env,
        spec=spec(env),
        status="closed",
        next=kept.steps + 1,
        seats={},
        **_for_owner(kept.stored, grant),
    )


def _for_owner(stored: Stored, grant: Grant) -> dict[str, Any]:
    """Return what only the owner is told of a session."""
    if grant.role != "owner":
        return {}
    opening = stored.opening
    return {
        "options": opening.options,
        "task": TaskRef(id=opening.task.id, split=opening.task.split),
        "seed": opening.seed,
        "limits": opening.limits,
        "lease_s": stored.lease_s,
    }

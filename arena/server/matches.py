"""The matches of the sessions that are played by remote seats."""

from __future__ import annotations

from arena.errors import ForbiddenError, UnknownIdError, UnsupportedError, UsageError, did_you_mean
from arena.protocol import Act, Acted
from arena.server.access import Grant
from arena.server.hosting import Host, Hosted
from arena.server.match import Match
from arena.server.reading import Reader
from arena.trace import StepRecord
from arena.types import AgentID

__all__ = ["Matches"]


class Matches:
    """Every match by its session.

    Args:
        host: Reaches the sessions.
        reader: Reads where a session stands after a restart.
    """

    def __init__(self, host: Host, reader: Reader) -> None:
        self._host, self._reader = host, reader
        self._matches: dict[str, Match] = {}

    def open(self, hosted: Hosted, latest: StepRecord) -> None:
        """Begin the match of a session, if it is played by remote seats."""
        if hosted.stored.seats is not None and hosted.id not in self._matches:
            self._matches[hosted.id] = Match(self._host, hosted, hosted.stored.seats, latest)

    async def resume(self, hosted: Hosted) -> None:
        """Go on with the match of a session that an earlier server process held; its deadlines begin anew."""
        if hosted.stored.seats is not None and hosted.id not in self._matches:
            records = await self._reader.records(hosted, len(hosted.entries) - 2)
            self.open(hosted, records.records[-1])

    def close(self, id: str) -> None:
        """End the match of a session, if it has one."""
        match = self._matches.pop(id, None)
        if match is not None:
            match.close()

    def close_all(self) -> None:
        """End every match."""
        for id in list(self._matches):
            self.close(id)

    async def act(self, request: Act, hosted: Hosted, grant: Grant) -> Acted:
        """Play a seat's part of a step; see `Match.act`.

        Raises:
            UnsupportedError: The session has no remote seats.
            UsageError, UnknownIdError, ForbiddenError: The seat is missing, unknown, or another one than the grant's.
        """
        if hosted.stored.seats is None:
            raise UnsupportedError("this session has no remote seats: send 'step', not 'act'")
        await self.resume(hosted)
        seat = _seat(grant, request.seat, hosted)
        record = await self._matches[hosted.id].act(seat, request.index, request.action)
        return Acted(id=request.id, session=hosted.id, record=record)


def _seat(grant: Grant, asked: AgentID | None, hosted: Hosted) -> AgentID:
    """Return the seat that acts: the grant's own, or, for the owner, the one that is named."""
    seat = grant.seat if grant.seat is not None else asked
    if seat is None:
        raise UsageError("name the seat that acts")
    if asked is not None and asked != seat:
        raise ForbiddenError(f"this capability is for seat {seat!r}")
    seats = {} if hosted.opened is None else hosted.opened.seats
    if seats and seat not in seats:
        raise UnknownIdError(f"no seat {seat!r}{did_you_mean(seat, seats)}")
    return seat

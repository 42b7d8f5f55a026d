"""What somebody can do who holds a seat's capability, or a spectator's: the half that does no I/O."""

from __future__ import annotations

from typing import Any

from arena.client.flow import UNSENDABLE, Flow, checked_action, seat_specs
from arena.client.records import restored_record, restored_seat_record
from arena.env import SeatSpec
from arena.errors import InvalidActionError, SessionGoneError
from arena.protocol import Act, Acted, Attached, Read, Records, SeatRecord, Status
from arena.trace import EndRecord, StepRecord

__all__ = ["SeatVerbs", "WatchVerbs"]


class SeatVerbs:
    """One seat of a session that somebody else drives.

    Attributes:
        id: The session's id.
        seat: The seat's name.
        spec: What it sees and can do.
        env: What the environment declares.
        status: How the episode stands.
        next: Index of the next step.
        acting: The seats whose action is due.
        latest: The seat's latest record; None before the first `observe`.
    """

    def __init__(self, attached: Attached) -> None:
        if attached.status == "closed" or attached.seat is None:
            raise SessionGoneError("the session is closed")
        self.id, self.seat, self.env = attached.session, attached.seat, attached.spec
        self.spec: SeatSpec = seat_specs(attached.seats)[attached.seat]
        self.status: Status = attached.status
        self.next, self.acting = attached.next, attached.acting
        self.latest: SeatRecord | None = None

    @property
    def due(self) -> bool:
        """Whether this seat's action is due."""
        return self.status == "running" and self.seat in self.acting

    def _observe(self, wait_s: float) -> Flow[list[SeatRecord]]:
        after = -1 if self.latest is None else self.latest.index
        reply: Records = yield Read(id=0, session=self.id, after=after, wait_s=wait_s, seat=self.seat)
        self.status, self.next, self.acting = reply.status, reply.next, reply.acting
        return [self._took(record) for record in reply.seat_records]

    def _act(self, action: Any) -> Flow[SeatRecord]:
        try:
            sent, unsendable = checked_action(action), None
        except InvalidActionError as error:
            sent, unsendable = UNSENDABLE, error
        try:
            reply: Acted = yield Act(id=0, session=self.id, index=self.next, action=sent, seat=self.seat)
        except InvalidActionError as error:
            if unsendable is not None:
                error.message = unsendable.message
            raise
        record = self._took(reply.record)
        self.next, self.acting = record.index + 1, record.acting
        if not record.acting:
            self.status = "over"
        return record

    def _took(self, record: SeatRecord) -> SeatRecord:
        self.latest = restored = restored_seat_record(record, self.seat, self.spec)
        return restored


class WatchVerbs:
    """A session that somebody else drives, for those who only look.

    Attributes:
        id: The session's id.
        env: What the environment declares.
        seats: What each seat sees and can do.
        status: How the episode stands.
        next: Index of the next step.
        acting: The seats whose action is due.
        end: The verdict, once there is one.
    """

    def __init__(self, attached: Attached) -> None:
        self.id, self.env = attached.session, attached.spec
        self.seats = seat_specs(attached.seats)
        self.status: Status = attached.status
        self.next, self.acting = attached.next, attached.acting
        self.end: EndRecord | None = None

    def _records(self, after: int, wait_s: float) -> Flow[list[StepRecord]]:
        reply: Records = yield Read(id=0, session=self.id, after=after, wait_s=wait_s)
        self.status, self.next, self.acting, self.end = reply.status, reply.next, reply.acting, reply.end
        return [restored_record(record, self.seats) for record in reply.records]

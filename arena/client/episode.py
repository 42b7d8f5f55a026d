"""What a client knows of an episode on a server, without I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn
from uuid import uuid4

from arena.client.flow import seat_specs
from arena.client.records import restored_record
from arena.env import EnvSpec, SeatSpec
from arena.errors import (
    ArenaError,
    BoundaryError,
    CapacityError,
    ResetNeededError,
    SessionGoneError,
    TransportError,
    UnauthorizedError,
    UnknownIdError,
)
from arena.protocol import Create, Created, SeatTerms
from arena.trace import EndRecord, StepRecord, end_record
from arena.types import AgentID, Limits, Task, Usage

__all__ = ["Episode", "RemoteEnvironment", "wanted_session"]

Status = Literal["new", "running", "over", "failed", "closed"]
_NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class RemoteEnvironment:
    """What is known here of an environment on a server.

    Attributes:
        spec: What it declares.
        options: Its options; resolved ones, once a session is open.
    """

    spec: EnvSpec
    options: Mapping[str, Any]


def wanted_session(
    env: str,
    options: Mapping[str, Any] | None,
    task: Task | str | None,
    split: str | None,
    seed: int,
    limits: Limits | None,
    lease_s: float | None,
    seats: Mapping[AgentID, SeatTerms] | None,
) -> Create:
    """Return the request for a new session; its key makes it the same session however often it is asked."""
    return Create(
        id=0,
        env=env,
        key=uuid4().hex,
        options=dict(options or {}),
        task=task.id if isinstance(task, Task) else task,
        split=split or (task.split if isinstance(task, Task) else None),
        seed=seed,
        limits=limits or Limits(),
        lease_s=lease_s,
        seats=None if seats is None else dict(seats),
    )


class Episode:
    """One episode on a server, with the surface that `arena.session.Session` offers to drivers.

    Attributes:
        env: The environment's declaration and options.
        id: The session's id on the server; empty before it is open.
        capability: Whoever holds this text owns the session. Keep it secret.
        watch: Capability of those who may read every step.
        seat_capabilities: One for each remote seat.
        task: The task by name; its data stay on the server.
        seed: The episode's root seed.
        limits: What the episode may use.
        journal: Every step so far as it was received, index 0 first.
        status: ``new``, ``running``, ``over``, ``failed`` or ``closed``.
        seats: What each seat sees and can do; empty before the episode has begun.
        usage: Tokens, cost and requests so far.
        refused: Actions refused so far, as far as this client took part.
        lease_s: Seconds that the session outlives its last contact.
    """

    def __init__(self, env: RemoteEnvironment, clock: Callable[[], float] = time.monotonic) -> None:
        self.env = env
        self.id = self.capability = self.watch = ""
        self.seat_capabilities: dict[AgentID, str] = {}
        self.task = Task("")
        self.seed = 0
        self.limits = Limits()
        self.journal: list[StepRecord] = []
        self.status: Status = "new"
        self.seats: dict[AgentID, SeatSpec] = {}
        self.usage = _NO_USAGE
        self.refused = 0
        self.lease_s = 0.0
        self.error: BoundaryError | None = None
        self._create: Create | None = None
        self._unsent: Usage | None = None
        self._end: EndRecord | None = None
        self._clock = clock
        self._began = clock()

    # -- what needs no request --------------------------------------------------------------------------------------

    @property
    def acting(self) -> tuple[AgentID, ...]:
        """The seats whose action is due."""
        return self.journal[-1].time_step.acting if self.status == "running" else ()

    def spend(self, usage: Usage | None) -> None:
        """Count what deciding cost; it is sent with the next step, which records it."""
        if usage is not None:
            self.usage = self.usage + usage
            self._unsent = usage if self._unsent is None else self._unsent + usage

    def remaining_s(self) -> float | None:
        """Return the seconds left of the wall-time limit by this client's clock, or None where there is none."""
        allowed = self.limits.wall_time_s
        return None if allowed is None else max(0.0, allowed - (self._clock() - self._began))

    def fail(self, error: BoundaryError) -> None:
        """Record that something at a boundary failed; the episode has no score. The server is told at `close`."""
        self.error = self.error or error
        if self.status != "closed":
            self.status = "failed"

    # -- beginning --------------------------------------------------------------------------------------------------

    def _want(self, create: Create) -> None:
        """Note what opening will ask for."""
        self._create = create
        self.task, self.seed, self.limits = Task(create.task or "", create.split or ""), create.seed, create.limits

    def _begin(self, created: Created) -> None:
        self.id, self.capability, self.watch = created.session, created.capability, created.watch
        self.seat_capabilities, self.lease_s = created.seat_capabilities, created.lease_s
        self.env = RemoteEnvironment(created.spec, created.options)
        self.task, self.seed = Task(created.task.id, created.task.split), created.seed
        self.limits, self.seats = created.limits, seat_specs(created.seats)
        self.status, self._began = "running", self._clock()

    def _take(self, record: StepRecord) -> None:
        """Add the next record to the journal; one that is there already changes nothing."""
        if record.index > len(self.journal):
            raise TransportError(f"step {record.index} came where step {len(self.journal)} was due")
        if record.index == len(self.journal):
            try:
                self.journal.append(restored_record(record, self.seats))
            except BoundaryError as error:
                self.fail(error)
                raise
        if self.status == "running" and not self.journal[-1].time_step.acting:
            self.status = "over"

    def _failed_end(self) -> EndRecord:
        assert self.error is not None
        wall_s = self._clock() - self._began if self.journal else 0.0
        record = self.error.record()
        return end_record(self.journal, score=None, error=record, refused=self.refused, wall_s=wall_s, usage=self.usage)

    # -- errors -----------------------------------------------------------------------------------------------------

    def _failure(self, error: ArenaError) -> ArenaError:
        """Return what an error means for this session, which fails where it cannot go on."""
        if isinstance(error, UnknownIdError | UnauthorizedError) and self.id:
            error = SessionGoneError(f"the server has no session {self.id} any more: {error}")
        if isinstance(error, BoundaryError) and not isinstance(error, CapacityError | TransportError):
            self.fail(error)
        return error

    def _raise_not_running(self) -> NoReturn:
        if self.status == "failed" and self.error is not None:
            raise self.error
        states = {"new": "has not begun; open it first", "closed": "is closed"}
        raise ResetNeededError(f"the episode {states.get(self.status, 'is over; begin a new one')}")

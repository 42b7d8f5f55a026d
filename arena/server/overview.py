"""What an operator sees of the sessions: rows of a list, and a window into one transcript."""

from __future__ import annotations

from dataclasses import dataclass, field

from arena.errors import ErrorRecord
from arena.protocol import SeatInfo, Status
from arena.trace import EndRecord, EpisodeRecord, StepRecord
from arena.types import AgentID, Score

__all__ = ["SessionRow", "SessionView"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session in one line.

    Attributes:
        id: The session's id.
        env: The environment's id.
        task: The task's id.
        split: The task's split.
        seed: The episode's root seed.
        owner: Name of the principal that created it; never a secret.
        status: How the episode stands.
        steps: Steps taken so far.
        returns: Sum of rewards of each seat so far.
        created_at: When it was created, in Unix seconds.
        ended_at: When it ended, in Unix seconds; None while it is live.
        worker: Number of the worker that holds it; None where none does.
        score: The task's verdict; None until it is over, and where it failed.
        error: What failed.
    """

    id: str
    env: str
    task: str
    split: str
    seed: int
    owner: str
    status: Status
    steps: int
    returns: dict[AgentID, float]
    created_at: float
    ended_at: float | None = None
    worker: int | None = None
    score: Score | None = None
    error: ErrorRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A window into a session's transcript.

    Attributes:
        row: The session in one line.
        header: What is played; the task's data are left out, because they may hold the solution.
        seats: What each seat sees and can do, in the environment's order.
        records: The steps that were asked for, lowest index first; fewer where there are not so many.
        total: Records that there are: one more than steps, because of the first observation.
        end: The verdict, once there is one.
    """

    row: SessionRow
    header: EpisodeRecord
    seats: dict[AgentID, SeatInfo]
    records: list[StepRecord] = field(default_factory=list)
    total: int = 0
    end: EndRecord | None = None

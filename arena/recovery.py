"""Journals: what must be kept of a session so that it can be rebuilt elsewhere.

An `Entry` is a step without the environment's answer: applying it again gives the answer, and the digest proves that it
is the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from arena.env import Environment
from arena.errors import BoundaryError, ReplayError, UsageError
from arena.session import Counts, Session
from arena.trace import StepRecord
from arena.types import Action, AgentID, Limit, Limits, Task, TimeStep, Usage

__all__ = ["Entry", "Opening", "check_usage", "entry_of", "rebuild"]

_NOTHING = TimeStep({})
_MOST_USED = 2**40
"""Of tokens, or dollars, in one step: the sum over a session stays within 64 bits."""


class Opening(msgspec.Struct, frozen=True, array_like=True):
    """What an episode is played on; with the entries it is all that a session is made of."""

    env: str
    options: dict[str, Any]
    task: Task
    seed: int
    limits: Limits


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A step without the environment's answer; see `arena.trace.StepRecord`.

    Attributes:
        counts: What the session counted, up to and including this step.
    """

    index: int
    digest: str
    actions: dict[AgentID, Action]
    limit: Limit | None
    env_s: float
    agent_s: dict[AgentID, float]
    usage: Usage | None
    decisions: dict[AgentID, dict[str, Any]]
    counts: Counts

    def record(self) -> StepRecord:
        """Return the record of the step, its answer missing."""
        return StepRecord(
            index=self.index,
            time_step=_NOTHING,
            digest=self.digest,
            actions=self.actions,
            limit=self.limit,
            env_s=self.env_s,
            agent_s=self.agent_s,
            usage=self.usage,
            decisions=self.decisions,
        )


def entry_of(record: StepRecord, counts: Counts) -> Entry:
    """Return what must be kept of a step."""
    return Entry(
        record.index,
        record.digest,
        record.actions,
        record.limit,
        record.env_s,
        record.agent_s,
        record.usage,
        record.decisions,
        counts,
    )


def check_usage(usage: Usage) -> None:
    """Refuse what a journal could not keep.

    Raises:
        UsageError: A number is negative, too large, or none.
    """
    counts = (usage.input_tokens, usage.output_tokens, usage.requests, usage.retries)
    if not (all(0 <= count <= _MOST_USED for count in counts) and 0 <= usage.cost_usd <= _MOST_USED):
        raise UsageError(f"usage is {usage}; allowed are numbers from 0 to {_MOST_USED}")


def rebuild(env: Environment, opening: Opening, entries: Iterable[Entry], counts: Counts | None = None) -> Session:
    """Return a session that stands where the recorded one stood after the last entry.

    Args:
        env: A fresh environment with the opening's options; the session owns it.
        opening: What the episode is played on.
        entries: Its steps, index 0 first.
        counts: What had been counted at the end; what the last entry says where absent.

    Raises:
        ReplayError: The environment is not deterministic, or the replay gave another answer than was recorded.
        BoundaryError: The environment failed.
    """
    session = Session(env, opening.task, opening.seed, limits=opening.limits)
    try:
        for entry in entries:
            if entry.index > 0 and not env.spec.deterministic:
                raise ReplayError(
                    f"the session's worker died, and {env.spec.id} is not deterministic: it cannot be rebuilt",
                    retryable=True,
                )
            _apply(session, entry)
            counts = counts if counts is not None and counts.elapsed_s >= entry.counts.elapsed_s else entry.counts
    except BaseException:
        session.close()
        raise
    if counts is not None:
        session.restore_counts(counts)
    return session


def _apply(session: Session, entry: Entry) -> None:
    try:
        again = session.apply(entry.record())
    except BoundaryError:
        raise
    except UsageError as error:
        raise ReplayError(f"replaying step {entry.index} was refused: {error}") from error
    if again.digest != entry.digest:
        raise ReplayError(f"replaying step {entry.index} gave another answer than was recorded")
    session.journal[-1] = msgspec.structs.replace(
        again, env_s=entry.env_s, agent_s=entry.agent_s, decisions=entry.decisions
    )

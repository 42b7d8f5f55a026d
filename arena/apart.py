"""A session of this process on a thread of its own: for environments that declare that they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from arena.env import Environment, SeatSpec
from arena.errors import BoundaryError
from arena.session import Session
from arena.threads import CallThread
from arena.trace import EndRecord, StepRecord
from arena.types import Action, AgentID, LimitKind, Limits, Task, Usage

__all__ = ["SessionApart"]

T = TypeVar("T")
_CLOSE_WITHIN_S = 5.0
"""Seconds that a call gets to return when its session is closed under it."""


class SessionApart:
    """A session whose environment is called on a thread of its own: an `arena.play.PlayedSession`.

    Its driver waits for one answer before it asks for the next; what calls no environment is answered at once.

    Args:
        session: A new session; nobody else uses it from now on.

    Attributes:
        journal: Every step so far, index 0 first.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._thread = session, CallThread("session")
        self.journal = session.journal

    @property
    def env(self) -> Environment:
        """The environment, to be asked for what it declares alone."""
        return self._session.env

    @property
    def task(self) -> Task:
        """The task."""
        return self._session.task

    @property
    def seed(self) -> int:
        """The episode's root seed."""
        return self._session.seed

    @property
    def limits(self) -> Limits:
        """What the episode may use."""
        return self._session.limits

    @property
    def seats(self) -> Mapping[AgentID, SeatSpec]:
        """What each seat sees and can do; empty before the episode has begun."""
        return self._session.seats

    @property
    def acting(self) -> tuple[AgentID, ...]:
        """The seats whose action is due."""
        return self._session.acting

    async def open(self) -> StepRecord:
        """Begin the episode; see `Session.open`."""
        return await self._apart(self._session.open)

    async def step(
        self,
        index: int,
        actions: Mapping[AgentID, Any],
        *,
        agent_s: Mapping[AgentID, float],
        decisions: Mapping[AgentID, dict[str, Any]],
    ) -> StepRecord:
        """Take step `index`; see `Session.step`."""
        return await self._apart(partial(self._session.step, index, actions, agent_s=agent_s, decisions=decisions))

    def truncate(self, kind: LimitKind, value: float, allowed: float) -> StepRecord:
        """End a running episode because a limit was reached; see `Session.truncate`."""
        return self._session.truncate(kind, value, allowed)

    async def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return the expert's action for a seat that is to act; see `Session.expert_action`."""
        return await self._apart(partial(self._session.expert_action, agent, kind))

    def spend(self, usage: Usage | None) -> None:
        """Count what deciding cost."""
        self._session.spend(usage)

    def remaining_s(self) -> float | None:
        """Return the seconds left of the wall-time limit, or None where there is none."""
        return self._session.remaining_s()

    def fail(self, error: BoundaryError) -> None:
        """Record that something at a boundary failed."""
        self._session.fail(error)

    async def end(self) -> EndRecord:
        """Return the verdict; see `Session.end`."""
        return await self._apart(self._session.end)

    async def close(self) -> None:
        """Let everything go; a call that is under way, for the driver was stopped, is waited for a while only."""
        timeout_s = _CLOSE_WITHIN_S if self._thread.is_busy else None
        closed = asyncio.wrap_future(self._thread.submit(self._session.close))
        self._thread.stop()
        await asyncio.wait([closed], timeout=timeout_s)

    async def _apart(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._thread.submit(call))

"""Playing one episode: agents decide, the session steps, everybody is told.

This is the asynchronous driver around a session, which is one in this process or one on a server. Agents that wait for
something (a model, a person) wait together; whatever fails is recorded on the session and never escapes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Protocol, TypeVar

import msgspec

from arena.agent import Agent, Seat
from arena.env import EnvSpec, SeatSpec
from arena.errors import (
    AgentError,
    ArenaError,
    BoundaryError,
    EnvError,
    InvalidActionError,
    LimitReached,
    PrerequisiteError,
    UsageError,
)
from arena.trace import EndRecord, StepRecord
from arena.types import Action, AgentID, Decision, LimitKind, Limits, SeatStep, Task, Usage, decode_json, encode_json

__all__ = ["PlayedSession", "blaming", "play_episode", "settled"]

_log = logging.getLogger(__name__)
_YIELD_AFTER_S = 0.02
"""An episode whose agents never wait lets the event loop run this often."""


T = TypeVar("T")


class _Declares(Protocol):
    @property
    def spec(self) -> EnvSpec:
        """What the environment declares."""


class PlayedSession(Protocol):
    """What playing needs of a session: what `arena.session.Session` offers.

    Where a session lives on a server, the methods that ask it something return awaitables.
    """

    journal: list[StepRecord]

    @property
    def env(self) -> _Declares:
        """The environment."""

    @property
    def task(self) -> Task:
        """The task."""

    @property
    def seed(self) -> int:
        """The episode's root seed."""

    @property
    def limits(self) -> Limits:
        """What the episode may use."""

    @property
    def seats(self) -> Mapping[AgentID, SeatSpec]:
        """What each seat sees and can do; empty before the episode has begun."""

    @property
    def acting(self) -> tuple[AgentID, ...]:
        """The seats whose action is due."""

    def open(self) -> StepRecord | Awaitable[StepRecord]:
        """Begin the episode."""

    def step(
        self,
        index: int,
        actions: Mapping[AgentID, Any],
        *,
        agent_s: Mapping[AgentID, float],
        decisions: Mapping[AgentID, dict[str, Any]],
    ) -> StepRecord | Awaitable[StepRecord]:
        """Take step `index`."""

    def truncate(self, kind: LimitKind, value: float, allowed: float) -> StepRecord | Awaitable[StepRecord]:
        """End a running episode because a limit was reached."""

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action | Awaitable[Action]:
        """Return the expert's action for a seat that is to act."""

    def spend(self, usage: Usage | None) -> None:
        """Count what deciding cost."""

    def remaining_s(self) -> float | None:
        """Return the seconds left of the wall-time limit, or None where there is none."""

    def fail(self, error: BoundaryError) -> None:
        """Record that something at a boundary failed."""

    def end(self) -> EndRecord | Awaitable[EndRecord]:
        """Return the verdict."""

    def close(self) -> Awaitable[None] | None:
        """Let everything go."""


async def settled(answer: T | Awaitable[T]) -> T:
    """Return what a session answers, at once or in a while."""
    return await answer if isinstance(answer, Awaitable) else answer


async def play_episode(
    session: PlayedSession, seated: Mapping[AgentID, Agent], *, on_step: Callable[[], None] = lambda: None
) -> None:
    """Play a session to its end.

    Args:
        session: A new session.
        seated: The agent of every seat.
        on_step: Called after each step.

    Raises:
        PrerequisiteError: An agent or the environment lacks something that every episode needs.
    """
    try:
        await _play(session, seated, on_step)
    except LimitReached as reached:  # an agent that keeps a limit of its own
        await _truncate(session, reached)
    except BoundaryError as error:
        with suppress(msgspec.ValidationError):  # what an agent spent before it failed
            session.spend(msgspec.convert(error.details.get("usage"), Usage | None))
        session.fail(error)
    except UsageError as error:  # what the environment or the session refused: no other episode suffers
        session.fail(EnvError(f"{session.env.spec.id}: {error}"))


async def _truncate(session: PlayedSession, reached: LimitReached) -> None:
    try:
        await settled(session.truncate(reached.kind, reached.value, reached.limit))
    except BoundaryError as error:  # a server that cannot be reached
        session.fail(error)


async def _play(session: PlayedSession, seated: Mapping[AgentID, Agent], on_step: Callable[[], None]) -> None:
    await settled(session.open())
    experts = {
        seat: _expert(session, seat, agent.expert_kind) for seat, agent in seated.items() if agent.spec.needs_expert
    }
    spec, teams = session.env.spec, _teams(seated)
    for seat, agent in seated.items():
        with blaming(agent):
            place = session.seats[seat], session.task, session.seed
            agent.begin(Seat(seat, spec, *place, experts.get(seat), teams.get(seat)))
    last_yield = time.monotonic()
    while acting := session.acting:
        steps = session.journal[-1].time_step.seats
        if len(steps) > len(acting):
            _tell(seated, {seat: step for seat, step in steps.items() if seat not in acting})
        for seat in experts and acting:
            if isinstance(foreseen := experts.get(seat), _Foreseen):
                await foreseen.ask()
        await _Turn(session, seated, steps).take()
        on_step()
        if time.monotonic() - last_yield > _YIELD_AFTER_S:
            await asyncio.sleep(0)
            last_yield = time.monotonic()
    try:
        _tell(seated, session.journal[-1].time_step.seats)
    except (BoundaryError, LimitReached) as error:  # the episode is over, and its score stands
        _log.warning("after the end: %s", error)


def _teams(seated: Mapping[AgentID, Agent]) -> dict[AgentID, dict[str, Any]]:
    """Return what the agents of each team share: those of one id with equal options."""
    teams: list[tuple[Agent, dict[str, Any]]] = []
    found: dict[AgentID, dict[str, Any]] = {}
    for seat, agent in seated.items():
        if agent.spec.team:
            mates = (shared for mate, shared in teams if type(mate) is type(agent) and mate.options == agent.options)
            found[seat] = next(mates, {})
            teams.append((agent, found[seat]))
    return found


def _tell(seated: Mapping[AgentID, Agent], steps: Mapping[AgentID, SeatStep]) -> None:
    for seat, step in steps.items():
        with blaming(seated[seat]):
            seated[seat].observe(step)


def _expert(session: PlayedSession, seat: AgentID, kind: str | None) -> Callable[[], Any]:
    if iscoroutinefunction(session.expert_action):
        return _Foreseen(session, seat, kind)
    return partial(session.expert_action, seat, kind)


class _Foreseen:
    """`Seat.expert` where the expert is on a server: asked before the agent is, for agents call it as a function."""

    __slots__ = ("_answer", "_kind", "_seat", "_session")

    def __init__(self, session: PlayedSession, seat: AgentID, kind: str | None) -> None:
        self._session, self._seat, self._kind = session, seat, kind
        self._answer: Action | ArenaError = UsageError(f"no action of {seat} is due")

    async def ask(self) -> None:
        """Get the answer for this turn; what the expert raises is raised when the agent calls."""
        try:
            self._answer = await settled(self._session.expert_action(self._seat, self._kind))
        except ArenaError as error:
            self._answer = error

    def __call__(self) -> Action:
        """Return the expert's action."""
        if isinstance(self._answer, ArenaError):
            raise self._answer
        return self._answer


class _Turn:
    """The deciding that leads to one step.

    Attributes:
        decisions: What has been decided so far, by seat.
        agent_s: Seconds that each seat took, repetitions after refusals included.
    """

    __slots__ = ("_seated", "_session", "_steps", "agent_s", "decisions")

    def __init__(
        self, session: PlayedSession, seated: Mapping[AgentID, Agent], steps: Mapping[AgentID, SeatStep]
    ) -> None:
        self._session, self._seated, self._steps = session, seated, steps
        self.decisions: dict[AgentID, Decision] = {}
        self.agent_s: dict[AgentID, float] = {}

    async def take(self) -> None:
        """Ask until the session has taken a step or the episode is over."""
        session, index = self._session, len(self._session.journal)
        acting = session.acting
        while session.acting:
            await self._decide([seat for seat in acting if seat not in self.decisions])
            if session.acting and await self._step(index):
                return
            await asyncio.sleep(0)  # an agent that is refused again and again must not keep others from playing

    async def _step(self, index: int) -> bool:
        """Return whether the session took the step; whoever was refused is told, and will be asked again."""
        decisions = self.decisions
        try:
            answer = self._session.step(
                index,
                {seat: decision.action for seat, decision in decisions.items()},
                agent_s=self.agent_s,
                decisions={seat: decision.info for seat, decision in decisions.items() if decision.info},
            )
            if type(answer) is not StepRecord:
                await settled(answer)
        except InvalidActionError as error:
            culprit = error.details.get("agent")
            for seat in [culprit] if culprit in decisions else list(decisions):
                del decisions[seat]
                with blaming(self._seated[seat]):
                    self._seated[seat].refuse(error)
            return False
        return True

    async def _decide(self, seats: list[AgentID]) -> None:
        waiting: list[tuple[AgentID, Awaitable[Any], float]] = []
        try:
            for seat in seats:
                began = time.monotonic()
                with blaming(self._seated[seat]):
                    answer = self._seated[seat].act(self._steps[seat])
                if isinstance(answer, Awaitable):
                    waiting.append((seat, answer, began))
                else:
                    with blaming(self._seated[seat]):
                        self._note(seat, answer, began)
        except BaseException:
            for _, answer, _ in waiting:
                if isinstance(answer, Coroutine):
                    answer.close()
            raise
        if waiting:
            await self._wait(waiting)

    def _note(self, seat: AgentID, answer: Any, began: float) -> None:
        """Take down an answer; what it cost counts at once, whatever comes of it."""
        decision = answer if type(answer) is Decision else Decision(answer)
        if decision.usage is not None or decision.info:
            decode_json(encode_json((decision.usage, decision.info)), tuple[Usage | None, dict[str, Any]])
            self._session.spend(decision.usage)
        self.decisions[seat] = decision
        self.agent_s[seat] = self.agent_s.get(seat, 0.0) + time.monotonic() - began

    async def _wait(self, waiting: list[tuple[AgentID, Awaitable[Any], float]]) -> None:
        """Await answers together, within what is left of the wall time; beyond that the episode is truncated."""

        async def one(seat: AgentID, answer: Awaitable[Any], began: float) -> None:
            with blaming(self._seated[seat]):
                self._note(seat, await answer, began)

        deadline = asyncio.timeout(self._session.remaining_s())
        try:
            async with deadline, asyncio.TaskGroup() as group:
                for seat, answer, began in waiting:
                    group.create_task(one(seat, answer, began))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except TimeoutError:
            allowed = self._session.limits.wall_time_s
            if not deadline.expired() or allowed is None:
                raise
            await settled(self._session.truncate("wall_time", allowed, allowed))


@contextmanager
def blaming(agent: Agent) -> Iterator[None]:
    """Turn whatever an agent raises into an `AgentError`, unless it says itself what failed."""
    try:
        yield
    except (BoundaryError, PrerequisiteError, LimitReached):
        raise
    except Exception as error:  # the boundary: an agent's failure becomes data
        what = str(error) if isinstance(error, ArenaError) else f"{type(error).__name__}: {error}"
        raise AgentError(f"agent {agent.spec.id!r}: {what}") from error

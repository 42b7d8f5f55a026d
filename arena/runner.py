"""The runner: plays the episodes of a scenario in this process and records them.

It is the asynchronous driver around synchronous sessions: environments are called one at a time on the event loop's
thread, agents that wait for something wait together. Each finished episode is appended to the trace file at once, so an
interrupted or killed run loses only the episodes that were being played.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from arena.agent import Agent, Seat
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
from arena.registry import agents, make_agent
from arena.scenario import Scenario
from arena.seeding import derive_seed
from arena.session import Session
from arena.trace import AgentRef, EndRecord, Episode, EpisodeRecord
from arena.types import AgentID, Decision, SeatStep, Task, Usage

__all__ = ["PlannedEpisode", "Progress", "plan", "play_episode", "run"]

_log = logging.getLogger(__name__)
_UNDERSTOOD = (BoundaryError, PrerequisiteError, LimitReached)
"""What an agent may raise on purpose; anything else is its failure."""
_YIELD_AFTER_S = 0.02
"""An episode whose agents never wait lets the event loop run this often."""


@dataclass(frozen=True, slots=True)
class PlannedEpisode:
    """An episode that is to be played.

    Attributes:
        id: ``<line-up>/<root seed>/<number>``, unique within the run.
        line_up: The line-up's name.
        task: The task.
        seed: The episode's root seed: the same for every line-up, so that they can be compared in pairs.
    """

    id: str
    line_up: str
    task: Task
    seed: int


@dataclass(slots=True)
class Progress:
    """What has happened so far; the runner writes it, a display reads it.

    Attributes:
        total: Episodes planned.
        ends: The last record of every finished episode by line-up and episode id.
        to_prepare: Tasks to prepare, each before its first episode.
        prepared: Tasks prepared.
        steps: Environment steps of this process.
        playing: Episodes in flight.
        began: When the first episode began, on the monotonic clock.
    """

    total: int = 0
    ends: dict[str, dict[str, EndRecord]] = field(default_factory=dict)
    to_prepare: int = 0
    prepared: int = 0
    steps: int = 0
    playing: int = 0
    began: float | None = None

    @property
    def done(self) -> int:
        """Episodes finished, failed ones included."""
        return sum(len(ends) for ends in self.ends.values())


def plan(scenario: Scenario) -> list[PlannedEpisode]:
    """Return the episodes of a scenario: for each seed its tasks, for each of these every line-up."""
    planned = []
    for seed in scenario.seeds:
        for number, task in enumerate(scenario.task_list(seed)):
            for name in scenario.agents:
                episode_seed = derive_seed(seed, "episode", number)
                planned.append(PlannedEpisode(f"{name}/{seed}/{number}", name, task, episode_seed))
    return planned


async def run(
    scenario: Scenario,
    planned: Iterable[PlannedEpisode],
    record: Callable[[PlannedEpisode, Episode], None],
    *,
    progress: Progress,
    versions: dict[str, str] | None = None,
) -> None:
    """Play episodes, at most `scenario.concurrency` at once.

    Args:
        scenario: A resolved scenario.
        planned: The episodes to play, in order of starting.
        record: Called with each episode once it is over.
        progress: Written as things happen.
        versions: Written into each trace.

    Raises:
        PrerequisiteError: Something that every episode needs is missing.
    """
    todo = list(planned)
    await _check_agents(scenario)
    preparations = _Preparations(scenario, todo, progress)
    progress.began = time.monotonic()
    queue = iter(todo)
    exclusive = any(agents.get(ref.id).spec.exclusive for refs in _line_ups(scenario).values() for ref in refs.values())
    width = 1 if exclusive else min(scenario.concurrency, max(1, len(todo)))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_cpus(), progress.to_prepare)):
                group.create_task(preparations.work())
            for _ in range(width):
                group.create_task(_worker(scenario, queue, preparations, record, progress, versions or {}))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _worker(
    scenario: Scenario,
    queue: Iterator[PlannedEpisode],
    preparations: _Preparations,
    record: Callable[[PlannedEpisode, Episode], None],
    progress: Progress,
    versions: dict[str, str],
) -> None:
    for planned in queue:
        await preparations.wait_for(planned.task)
        for attempt in itertools.count(1):
            progress.playing += 1
            try:
                episode = await _play_planned(scenario, planned, attempt, progress, versions)
            finally:
                progress.playing -= 1
            assert episode.end is not None
            end = episode.end
            if end.error is None or not end.error.retryable or attempt > scenario.retries:
                break
        record(planned, episode)
        progress.ends.setdefault(planned.line_up, {})[planned.id] = end
        await asyncio.sleep(0)  # signals and other episodes get their turn


async def _play_planned(
    scenario: Scenario, planned: PlannedEpisode, attempt: int, progress: Progress, versions: dict[str, str]
) -> Episode:
    """Play one attempt at an episode with a fresh environment and fresh agents."""
    env = scenario.make_env()
    refs = scenario.agents[planned.line_up].agents(env.possible_agents)
    session = Session(env, planned.task, planned.seed, limits=scenario.limits.limits())
    seated = {seat: make_agent(ref.id, ref.options) for seat, ref in refs.items()}
    header = EpisodeRecord(
        episode=planned.id,
        env=env.spec.id,
        options=env.options.model_dump(mode="json"),
        task=planned.task,
        seed=planned.seed,
        limits=session.limits,
        seats=refs,
        attempt=attempt,
        versions=versions,
    )

    def count() -> None:
        progress.steps += 1

    try:
        await play_episode(session, seated, on_step=count)
        return Episode(header, session.journal, session.end())
    finally:
        session.close()
        for agent in seated.values():
            await agent.close()


async def play_episode(
    session: Session, seated: dict[AgentID, Agent], *, on_step: Callable[[], None] = lambda: None
) -> None:
    """Play a session to its end.

    What fails on the way (environment, agent, model) is recorded on the session; it never escapes as an exception.

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
        session.truncate(reached.kind, reached.value, reached.limit)
    except BoundaryError as error:
        if "usage" in error.details:  # what an agent spent before it failed
            session.spend(msgspec.convert(error.details["usage"], Usage))
        session.fail(error)
    except UsageError as error:  # what the environment or the session refused: no other episode suffers
        session.fail(EnvError(f"{session.env.spec.id}: {error}"))


async def _play(session: Session, seated: dict[AgentID, Agent], on_step: Callable[[], None]) -> None:
    record = session.open()
    for seat, agent in seated.items():
        _begin(session, seat, agent)
    clock = time.monotonic
    last_yield = clock()
    index = 1
    while acting := session.acting:
        steps = record.time_step.seats
        if len(steps) > len(acting):
            _observe(seated, steps, without=acting)
        decisions: dict[AgentID, Decision] = {}
        agent_s: dict[AgentID, float] = {}
        usage: Usage | None = None
        while True:
            missing = [seat for seat in acting if seat not in decisions]
            used = await _decide(session, seated, steps, missing, decisions, agent_s)
            if used is not None:
                usage = used if usage is None else usage + used
            if not session.acting:  # the wall-time limit ended the episode while agents were deciding
                session.spend(usage)
                break
            try:
                record = session.step(
                    index,
                    {seat: decision.action for seat, decision in decisions.items()},
                    usage=usage,
                    agent_s=agent_s,
                    decisions={seat: d.info for seat, d in decisions.items() if d.info},
                )
                break
            except InvalidActionError as error:
                if not session.acting:  # one refusal too many
                    session.spend(usage)
                    break
                _refuse(seated, decisions, error)
        record = session.journal[-1]
        index = len(session.journal)
        on_step()
        if (now := clock()) - last_yield > _YIELD_AFTER_S:
            await asyncio.sleep(0)
            last_yield = now
    _observe(seated, record.time_step.seats, without=())


def _begin(session: Session, seat: AgentID, agent: Agent) -> None:
    expert = partial(session.expert_action, seat) if agent.spec.needs_expert else None
    try:
        agent.begin(Seat(seat, session.env.spec, session.env.seat(seat), session.task, session.seed, expert))
    except _UNDERSTOOD:
        raise
    except Exception as error:  # the boundary: whatever an agent raises becomes data
        raise _agent_failed(agent, error) from error


def _observe(seated: dict[AgentID, Agent], steps: dict[AgentID, SeatStep], without: tuple[AgentID, ...]) -> None:
    for seat, step in steps.items():
        if seat not in without:
            try:
                seated[seat].observe(step)
            except _UNDERSTOOD:
                raise
            except Exception as error:  # the boundary, as above
                raise _agent_failed(seated[seat], error) from error


async def _decide(
    session: Session,
    seated: dict[AgentID, Agent],
    steps: dict[AgentID, SeatStep],
    seats: list[AgentID],
    decisions: dict[AgentID, Decision],
    agent_s: dict[AgentID, float],
) -> Usage | None:
    """Ask agents for their actions; those that wait do so together, within what is left of the wall time."""
    waiting: list[tuple[AgentID, Awaitable[Any], float]] = []
    used: Usage | None = None
    clock = time.monotonic

    def take(seat: AgentID, answer: Any, began: float) -> None:
        nonlocal used
        decision = answer if type(answer) is Decision else Decision(answer)
        decisions[seat] = decision
        agent_s[seat] = agent_s.get(seat, 0.0) + clock() - began
        if decision.usage is not None:
            used = decision.usage if used is None else used + decision.usage

    for seat in seats:
        began = clock()
        try:
            answer = seated[seat].act(steps[seat])
        except Exception as error:  # the boundary, as above
            for _, other, _ in waiting:
                if isinstance(other, Coroutine):
                    other.close()
            if isinstance(error, _UNDERSTOOD):
                raise
            raise _agent_failed(seated[seat], error) from error
        if isinstance(answer, Awaitable):
            waiting.append((seat, answer, began))
        else:
            take(seat, answer, began)
    if waiting:
        await _wait(session, seated, waiting, take)
    return used


async def _wait(
    session: Session,
    seated: dict[AgentID, Agent],
    waiting: list[tuple[AgentID, Awaitable[Any], float]],
    take: Callable[[AgentID, Any, float], None],
) -> None:
    async def one(seat: AgentID, answer: Awaitable[Any], began: float) -> None:
        try:
            take(seat, await answer, began)
        except _UNDERSTOOD:
            raise
        except Exception as error:  # the boundary, as above
            raise _agent_failed(seated[seat], error) from error

    left = session.remaining_s()
    deadline = asyncio.timeout(left)
    try:
        async with deadline, asyncio.TaskGroup() as group:
            for seat, answer, began in waiting:
                group.create_task(one(seat, answer, began))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    except TimeoutError:
        allowed = session.limits.wall_time_s
        if not deadline.expired() or allowed is None:
            raise
        session.truncate("wall_time", allowed, allowed)


def _refuse(seated: dict[AgentID, Agent], decisions: dict[AgentID, Decision], error: InvalidActionError) -> None:
    """Tell the agents concerned, and drop their actions so that they are asked again."""
    culprit = error.details.get("agent")
    for seat in [culprit] if culprit in decisions else list(decisions):
        del decisions[seat]
        seated[seat].refuse(error)


def _agent_failed(agent: Agent, error: Exception) -> AgentError:
    if isinstance(error, ArenaError):
        return AgentError(f"agent {agent.spec.id!r}: {error}")
    return AgentError(f"agent {agent.spec.id!r}: {type(error).__name__}: {error}")


def _line_ups(scenario: Scenario) -> dict[str, dict[AgentID, AgentRef]]:
    possible = scenario.make_env().possible_agents
    return {name: line_up.agents(possible) for name, line_up in scenario.agents.items()}


async def _check_agents(scenario: Scenario) -> None:
    """Let each different agent check once that it can play at all."""
    refs = {(ref.id, repr(ref.options)): ref for seats in _line_ups(scenario).values() for ref in seats.values()}
    for ref in refs.values():
        agent = make_agent(ref.id, ref.options)
        try:
            await agent.check()
        finally:
            await agent.close()


class _Preparations:
    """Prepares each task once, a few at a time in threads, in the order in which episodes will need them.

    A task that cannot be prepared fails its own episodes: they will meet the same failure and record it.
    """

    def __init__(self, scenario: Scenario, planned: list[PlannedEpisode], progress: Progress) -> None:
        self._scenario, self._progress = scenario, progress
        self._tasks = {(episode.task.split, episode.task.id): episode.task for episode in planned}
        self._ready = {key: asyncio.Event() for key in self._tasks}
        self._queue = iter(self._tasks.items())
        progress.to_prepare = len(self._tasks)

    async def wait_for(self, task: Task) -> None:
        """Return once the task has been prepared."""
        await self._ready[task.split, task.id].wait()

    async def work(self) -> None:
        """Prepare tasks until none is left; several of these run at once."""
        env = self._scenario.make_env()
        for key, task in self._queue:
            try:
                await asyncio.to_thread(env.prepare, task)
            except PrerequisiteError:
                raise
            except Exception as error:  # the boundary: the episode will meet the same failure
                _log.info("task %s cannot be prepared: %s", task.id, error)
            self._progress.prepared += 1
            self._ready[key].set()
        env.close()


def _cpus() -> int:
    return len(os.sched_getaffinity(0))

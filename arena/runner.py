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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from arena.errors import (
    PrerequisiteError,
)
from arena.play import play_episode
from arena.registry import agents, make_agent
from arena.scenario import Scenario
from arena.seeding import derive_seed
from arena.session import Session
from arena.trace import AgentRef, EndRecord, Episode, EpisodeRecord
from arena.types import AgentID, Task

__all__ = ["PlannedEpisode", "Progress", "plan", "run"]

_log = logging.getLogger(__name__)


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

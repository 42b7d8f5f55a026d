"""The runner: plays the episodes of a scenario and records them.

It is the asynchronous driver around sessions: environments of this process are called one at a time on the event loop's
thread, those that wait for something (`EnvSpec.blocking`) on a thread for each episode. These, agents that wait, and
sessions on a server wait together. Each finished episode is appended to the trace file at once, so an interrupted or
killed run loses only the episodes that were being played.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from arena.agent import Agent
from arena.apart import SessionApart
from arena.env import Environment
from arena.errors import AgentError, ArenaError, BoundaryError, EnvError, ErrorRecord, PrerequisiteError
from arena.play import PlayedSession, blaming, play_episode, settled
from arena.registry import agents, make_agent
from arena.scenario import Scenario
from arena.seeding import derive_seed
from arena.session import Session
from arena.trace import AgentRef, EndRecord, Episode, EpisodeRecord
from arena.types import AgentID, Limits, Task

__all__ = ["PlannedEpisode", "Progress", "RemoteSessions", "plan", "run"]

RemoteSessions: TypeAlias = Callable[[Environment, Task, int, Limits], PlayedSession]
"""Makes a session on a server, not yet open, of an environment like this one, with a task, a seed and limits."""

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 60.0
"""Longest wait for one failure that says when to try again, whatever it says."""
_PATIENCE_S = 600.0
"""Longest wait altogether while no episode ends without a failure; after that they fail as fast as they come."""


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
    remote: RemoteSessions | None = None,
) -> None:
    """Play episodes, at most `scenario.concurrency` at once.

    Args:
        scenario: A resolved scenario.
        planned: The episodes to play, in order of starting.
        record: Called with each episode once it is over.
        progress: Written as things happen.
        versions: Written into each trace.
        remote: Makes the sessions on a server, which prepares their tasks itself; in this process where None.

    Raises:
        PrerequisiteError: Something that every episode needs is missing.
        BoundaryError: An agent failed when it was asked whether it can play.
    """
    todo = list(planned)
    await _check_agents(scenario)
    work = _Run(scenario, todo, record, progress, versions or {}, remote)
    exclusive = any(agents.get(ref.id).spec.exclusive for refs in _line_ups(scenario).values() for ref in refs.values())
    width = 1 if exclusive else min(scenario.concurrency, len(todo))
    progress.began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_cpus(), progress.to_prepare)):
                group.create_task(work.prepare())
            for _ in range(width):
                group.create_task(work.play())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


class _Run:
    """The episodes that are still to be played, and the tasks that must be prepared for them.

    Each task is prepared once, in the order in which episodes will need it. One that cannot be prepared fails its own
    episodes.
    """

    def __init__(
        self,
        scenario: Scenario,
        todo: list[PlannedEpisode],
        record: Callable[[PlannedEpisode, Episode], None],
        progress: Progress,
        versions: dict[str, str],
        remote: RemoteSessions | None,
    ) -> None:
        self._scenario, self._record, self._progress, self._versions = scenario, record, progress, versions
        self._episodes, self._remote = iter(todo), remote
        tasks = {} if remote else {(episode.task.split, episode.task.id): episode.task for episode in todo}
        self._tasks = iter(tasks.items())
        self._ready = {key: asyncio.Event() for key in tasks}
        self._unprepared: dict[tuple[str, str], BoundaryError] = {}
        self._pause = _Pause()
        progress.to_prepare = len(tasks)

    async def prepare(self) -> None:
        """Prepare tasks until none is left; several of these run at once."""
        env = self._scenario.make_env()
        for key, task in self._tasks:
            try:
                await _in_thread(partial(env.prepare, task))
            except PrerequisiteError:
                raise
            except Exception as error:  # the boundary: the episodes of this task fail, the others do not
                self._unprepared[key] = _env_error(env.spec.id, error)
            self._progress.prepared += 1
            self._ready[key].set()
        env.close()

    async def play(self) -> None:
        """Play episodes until none is left; several of these run at once."""
        progress = self._progress
        for planned in self._episodes:
            if (ready := self._ready.get((planned.task.split, planned.task.id))) is not None:
                await ready.wait()
            for attempt in itertools.count(1):
                await self._pause.over()
                progress.playing += 1
                try:
                    episode, end = await self._attempt(planned, attempt)
                finally:
                    progress.playing -= 1
                self._pause.heed(end.error)
                if end.error is None or not end.error.retryable or attempt > self._scenario.retries:
                    break
            self._record(planned, episode)
            progress.ends.setdefault(planned.line_up, {})[planned.id] = end
            await asyncio.sleep(0)  # signals and other episodes get their turn

    async def _attempt(self, planned: PlannedEpisode, attempt: int) -> tuple[Episode, EndRecord]:
        """Play one attempt at an episode with a fresh environment and fresh agents."""
        scenario = self._scenario
        env = scenario.make_env()
        refs = scenario.agents[planned.line_up].agents(env.possible_agents)
        session = self._session(env, planned)
        seated: dict[AgentID, Agent] = {}
        try:
            if (error := self._unprepared.get((planned.task.split, planned.task.id))) is not None:
                session.fail(error)
            elif _seat_agents(refs, seated, session):
                await play_episode(session, seated, on_step=self._count)
            end = await settled(session.end())
            return Episode(self._header(planned, attempt, env, refs, session), session.journal, end), end
        finally:
            await settled(session.close())
            for agent in seated.values():
                await _close(agent)

    def _header(
        self,
        planned: PlannedEpisode,
        attempt: int,
        env: Environment,
        refs: dict[AgentID, AgentRef],
        session: PlayedSession,
    ) -> EpisodeRecord:
        return EpisodeRecord(
            episode=planned.id,
            env=env.spec.id,
            options=env.options.model_dump(mode="json"),
            task=planned.task,
            seed=planned.seed,
            limits=session.limits,
            seats=refs,
            attempt=attempt,
            versions=self._versions,
        )

    def _session(self, env: Environment, planned: PlannedEpisode) -> PlayedSession:
        limits = self._scenario.limits.limits()
        if self._remote is None:
            session = Session(env, planned.task, planned.seed, limits=limits)
            return SessionApart(session) if env.spec.blocking else session
        env.close()
        return self._remote(env, planned.task, planned.seed, limits)

    def _count(self) -> None:
        self._progress.steps += 1


class _Pause:
    """Holds attempts back after a failure that says when to try again: the environment is the same for all of them."""

    def __init__(self) -> None:
        self._until, self._patience_s = 0.0, _PATIENCE_S

    async def over(self) -> None:
        """Wait for as long as the last failures asked for."""
        while (wait_s := self._until - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    def heed(self, error: ErrorRecord | None) -> None:
        """Take note of how an attempt ended."""
        if error is None:
            self._patience_s = _PATIENCE_S
            return
        asked_s = error.details.get("retry_after_s")
        if not error.retryable or not isinstance(asked_s, int | float):
            return
        now = time.monotonic()
        longer_s = min(now + min(asked_s, _LONGEST_PAUSE_S) - max(self._until, now), self._patience_s)
        if longer_s > 0:
            self._patience_s -= longer_s
            self._until = max(self._until, now) + longer_s
            _log.info("no attempt for %.1f s: %s", self._until - now, error.message)


def _seat_agents(refs: dict[AgentID, AgentRef], seated: dict[AgentID, Agent], session: PlayedSession) -> bool:
    """Make the agents; return whether that worked, and fail the session otherwise."""
    for seat, ref in refs.items():
        try:
            seated[seat] = make_agent(ref.id, ref.options)
        except PrerequisiteError:
            raise
        except Exception as error:  # the boundary, as in `arena.play`
            session.fail(AgentError(f"agent {ref.id!r} cannot be made: {type(error).__name__}: {error}"))
            return False
    return True


async def _close(agent: Agent) -> None:
    try:
        await agent.close()
    except Exception as error:  # the boundary: closing must not cost a recorded episode
        _log.warning("agent %s failed to close: %s: %s", agent.spec.id, type(error).__name__, error)


def _env_error(env_id: str, error: Exception) -> BoundaryError:
    if isinstance(error, BoundaryError):
        return error
    what = str(error) if isinstance(error, ArenaError) else f"{type(error).__name__}: {error}"
    return EnvError(f"{env_id}: {what}")


async def _in_thread(call: Callable[[], None]) -> None:
    """Run a call in a thread that does not keep the process alive: an interrupted run need not wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            call()
        except BaseException as raised:  # carried to the event loop
            error = raised
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=work, daemon=True).start()
    await done


def _line_ups(scenario: Scenario) -> dict[str, dict[AgentID, AgentRef]]:
    possible = scenario.make_env().possible_agents
    return {name: line_up.agents(possible) for name, line_up in scenario.agents.items()}


async def _check_agents(scenario: Scenario) -> None:
    """Let each different agent check once that it can play at all."""
    refs = {(ref.id, repr(ref.options)): ref for seats in _line_ups(scenario).values() for ref in seats.values()}
    for ref in refs.values():
        agent = make_agent(ref.id, ref.options)
        try:
            with blaming(agent):
                await agent.check()
        finally:
            await _close(agent)


def _cpus() -> int:
    return len(os.sched_getaffinity(0))

"""What a worker says of environments and tasks: everything that needs no session."""

from __future__ import annotations

from typing import Any

import msgspec

from arena.env import Environment
from arena.errors import (
    ArenaError,
    EnvError,
    UnsupportedError,
)
from arena.protocol import (
    EnvironmentInfo,
    SeatInfo,
    TaskPage,
    TaskRef,
    Tasks,
)
from arena.recovery import Opening
from arena.registry import make
from arena.server.frames import (
    Prepare,
)
from arena.spaces import describe
from arena.types import AgentID, Limits

__all__ = ["describe_env", "find_opening", "list_tasks", "make_env", "seat_info"]

_MOST_TASKS = 1000


def make_env(env: str, options: dict[str, Any]) -> Environment:
    """Return a fresh environment; whatever its constructor raises becomes an `EnvError`."""
    try:
        return make(env, options)
    except ArenaError:
        raise
    except Exception as error:  # the boundary to the environment's constructor
        raise EnvError(f"{env}: {type(error).__name__}: {error}") from error


def find_opening(frame: Prepare, env: Environment) -> Opening:
    """Return what an episode is to be played on: its task, found and prepared; the environment is closed.

    Raises:
        UnknownIdError: There is no such task.
        UnsupportedError: There is no such split.
        PrerequisiteError, EnvError: It cannot be prepared.
    """
    try:
        taskset = env.taskset(_split(env, frame.split))
        task = taskset.sample(1, frame.seed)[0] if frame.task is None else taskset.get(frame.task)
        env.prepare(task)
        steps = frame.limits.steps or env.spec.max_steps
        limits: Limits = msgspec.structs.replace(frame.limits, steps=steps)
        return Opening(frame.env, env.options.model_dump(mode="json"), task, frame.seed, limits)
    finally:
        env.close()


def _split(env: Environment, split: str | None) -> str:
    """Return the split, or the environment's first one.

    Raises:
        UnsupportedError: The environment has no such split.
    """
    splits = env.spec.splits
    if split is None:
        return splits[0]
    if split not in splits:
        raise UnsupportedError(f"{env.spec.id} has no split {split[:80]!r} (known: {', '.join(splits)})")
    return split


def describe_env(env: Environment) -> EnvironmentInfo:
    """Return what is to be known of an environment, and close it."""
    try:
        return EnvironmentInfo(
            spec=env.spec,
            options=env.options.model_dump(mode="json"),
            options_schema=env.Options.model_json_schema(),
            seats={agent: seat_info(env, agent) for agent in env.possible_agents},
            tasks={split: len(env.taskset(split)) for split in env.spec.splits},
        )
    finally:
        env.close()


def list_tasks(request: Tasks) -> TaskPage:
    """Return a page of tasks, at most 1,000 of them."""
    env = make_env(request.env, request.options)
    try:
        taskset = env.taskset(_split(env, request.split))
        total, start = len(taskset), max(0, request.start)
        stop = min(request.stop, total, start + _MOST_TASKS)
        found = [taskset.task(index) for index in range(start, stop)]
        return TaskPage(tasks=[TaskRef(id=task.id, split=task.split) for task in found], total=total, start=start)
    finally:
        env.close()


def seat_info(env: Environment, agent: AgentID) -> SeatInfo:
    """Return what a seat sees and can do, as it is sent."""
    seat = env.seat(agent)
    return SeatInfo(
        observation_space=describe(seat.observation_space),
        action_space=None if seat.action_space is None else describe(seat.action_space),
        tools=seat.tools,
        instructions=seat.instructions,
    )

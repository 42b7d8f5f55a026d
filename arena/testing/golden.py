"""Golden traces: recorded episodes that an environment must reproduce line by line.

A golden file is a trace file whose durations and versions are blank, so it changes only when an environment does. They
lie in ``tests/golden/<env id with '/' written '__'>/<case>.jsonl``, one episode a file, and together show every ending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from arena.errors import ConfigError, UsageError
from arena.registry import make
from arena.replay import Difference, replay
from arena.sampling import sample_action
from arena.seeding import stream
from arena.session import Session
from arena.trace import EndRecord, Episode, EpisodeRecord, StepRecord, read_episodes
from arena.types import Action, AgentID, Limits, Task

__all__ = [
    "Policy",
    "as_expert",
    "at_random",
    "check_golden",
    "directory",
    "endings_shown",
    "record",
    "rerecord",
    "update",
    "write",
]

Policy: TypeAlias = Callable[[Session], Mapping[AgentID, Action]]
"""Returns the actions of the seats that are due in a running session."""


def directory(root: Path, env_id: str) -> Path:
    """Return the directory of an environment's golden files below `root`."""
    return root / env_id.replace("/", "__")


# -- recording --------------------------------------------------------------------------------------------------------


def as_expert(session: Session) -> Mapping[AgentID, Action]:
    """Return the expert's actions: a `Policy`."""
    return {agent: session.expert_action(agent) for agent in session.acting}


def at_random(seed: int) -> Policy:
    """Return the policy that draws legal actions from the stream ``policy`` of `seed`."""
    rng = stream(seed, "policy")

    def choose(session: Session) -> Mapping[AgentID, Action]:
        seats = session.journal[-1].time_step.seats
        return {agent: sample_action(rng, session.env.seat(agent), seats[agent]) for agent in session.acting}

    return choose


def record(
    env_id: str,
    options: Mapping[str, Any] | None,
    task: Task,
    seed: int,
    play: Policy | Sequence[Any],
    *,
    limits: Limits | None = None,
) -> Episode:
    """Play an episode and return it as a golden one.

    Args:
        env_id: The environment's id.
        options: Its options.
        task: The task.
        seed: The episode's root seed.
        play: A policy, or the actions in order: of one seat, or as a mapping for several.
        limits: What the episode may use; the environment's own `max_steps` where None.

    Raises:
        UsageError: The actions ran out before the end, or are wrong.
    """
    session = _session(env_id, options, task, seed, limits)
    try:
        session.open()
        policy = play if callable(play) else _scripted(play)
        while session.status == "running":
            session.step(len(session.journal), policy(session))
        first = EpisodeRecord(
            env=env_id,
            options=session.env.options.model_dump(mode="json"),
            task=task,
            seed=seed,
            limits=session.limits,
        )
        return Episode(first, session.journal, session.end())
    finally:
        session.close()


def _session(env_id: str, options: Mapping[str, Any] | None, task: Task, seed: int, limits: Limits | None) -> Session:
    """Return a session whose clock stands still, so that all durations are 0."""
    return Session(make(env_id, options), task, seed, limits=limits, clock=lambda: 0.0)


def _scripted(actions: Sequence[Any]) -> Policy:
    left = iter(actions)

    def choose(session: Session) -> Mapping[AgentID, Action]:
        action = next(left, None)
        if action is None:
            raise UsageError(f"the actions ran out at step {len(session.journal)} and the episode goes on")
        return action if isinstance(action, Mapping) else {session.acting[0]: action}

    return choose


def write(path: Path, episode: Episode) -> None:
    """Write a golden file, in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(episode.lines())


def rerecord(episode: Episode) -> Episode:
    """Play an episode's actions again on today's environment and return the new episode, durations and versions blank.

    Raises:
        InvalidActionError: A recorded action is no longer legal.
        UsageError: The episode goes on after the last recorded action.
    """
    first = msgspec.structs.replace(episode.record, versions={})
    session = _session(first.env, first.options, first.task, first.seed, first.limits)
    try:
        session.open()
        for step in episode.steps[1:]:
            if session.status == "running":
                _redo(session, step)
        if session.status == "running":
            raise UsageError(f"{first.env}: the episode goes on after the last recorded action; record it anew")
        return Episode(first, session.journal, _end(session, episode), line=episode.line)
    finally:
        session.close()


def _redo(session: Session, step: StepRecord) -> None:
    """Take a recorded step; limits on time are applied as recorded, because the clock stands still."""
    if step.limit is not None and (not step.actions or step.limit.kind in ("wall_time", "step_time")):
        session.apply(step)
    else:
        session.step(len(session.journal), step.actions, usage=step.usage, decisions=step.decisions)


def _end(session: Session, episode: Episode) -> EndRecord:
    """Return a session's end; refused actions are not played again, so their number stays as recorded."""
    refused = 0 if episode.end is None else episode.end.refused
    return msgspec.structs.replace(session.end(), refused=refused)


def update(paths: Iterable[Path]) -> list[Path]:
    """Record golden files anew after an intended change of their environment, and return those that changed.

    Raises:
        InvalidActionError, UsageError: A file's actions no longer play an episode to its end; record it by hand.
    """
    changed = []
    for path in paths:
        lines = b"".join(rerecord(episode).lines() for episode in read_episodes(path))
        if lines != path.read_bytes():
            path.write_bytes(lines)
            changed.append(path)
    return changed


# -- checking ---------------------------------------------------------------------------------------------------------


def endings_shown(paths: Iterable[Path]) -> set[str]:
    """Return every ending of any seat in golden files.

    Raises:
        ConfigError: A file cannot be read.
    """
    endings: set[str] = set()
    for path in paths:
        for episode in read_episodes(path):
            for step in episode.steps:
                endings.update(seat.ending for seat in step.time_step.seats.values() if seat.ending is not None)
    return endings


def check_golden(path: Path) -> Difference | None:
    """Return the first difference between a golden file and playing it again, or None where all is equal.

    Raises:
        ConfigError: The file cannot be read, is torn, or holds durations or versions.
    """
    for episode in read_episodes(path):
        if episode.end is None:
            raise ConfigError(f"{path}: the episode of line {episode.line} has no end")
        _check_blank(path, episode, episode.end)
        difference = replay(episode)
        if difference is not None:
            return difference
    return None


def _check_blank(path: Path, episode: Episode, end: EndRecord) -> None:
    timed = any(step.env_s or step.agent_s for step in episode.steps)
    if episode.record.versions or timed or end.wall_s or end.env_s or end.agent_s:
        raise ConfigError(f"{path}: a golden file holds no durations and no versions; record it with arena.testing")

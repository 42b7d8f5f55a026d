"""Traces: what happened, one JSON line a record.

An episode is one `EpisodeRecord`, then a `StepRecord` for the first observation (index 0) and for every step, then one
`EndRecord`. A file holds whole episodes one after the other; an episode is appended in one write once it is over, so a
killed run leaves whole episodes and at most one torn tail, which `read_episodes` reports.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from arena.errors import ConfigError, ErrorRecord, UsageError
from arena.types import (
    Action,
    AgentID,
    Limit,
    Limits,
    Score,
    Task,
    TimeStep,
    Usage,
    decode_json,
    encode_canonical,
    encode_json,
)

__all__ = [
    "TRACE_VERSION",
    "AgentRef",
    "EndRecord",
    "Episode",
    "EpisodeRecord",
    "Outcome",
    "Record",
    "StepRecord",
    "append_episode",
    "cut_torn_episode",
    "end_record",
    "first_digest",
    "next_digest",
    "read_episodes",
    "read_lines",
]

TRACE_VERSION = 1
_BEGINNING = b'{"type":"episode",'
Outcome: TypeAlias = Literal["terminated", "truncated", "failed"]


class _Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="type"
):
    pass


class AgentRef(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An agent by id and options; never holds a secret."""

    id: str
    options: dict[str, Any] = {}


class EpisodeRecord(_Record, frozen=True, tag="episode"):
    """The first line of an episode: all that is needed to play it again.

    Attributes:
        episode: Unique within a run: ``<agents>/<root seed>/<number>``.
        env: The environment's id.
        options: Its resolved options.
        task: The task.
        seed: The episode's root seed.
        limits: The limits that held.
        seats: Who sat where.
        attempt: 1, or more where earlier attempts failed at a boundary and were repeated.
        versions: Versions of the software that played.
        trace_version: Version of this format.
    """

    env: str
    task: Task
    seed: int
    episode: str = ""
    options: dict[str, Any] = {}
    limits: Limits = Limits()
    seats: dict[AgentID, AgentRef] = {}
    attempt: int = 1
    versions: dict[str, str] = {}
    trace_version: int = TRACE_VERSION


class StepRecord(_Record, frozen=True, tag="step"):
    """One step: the actions that led to it and what every seat got.

    Attributes:
        index: 0 for the first observation, then 1, 2, …
        actions: The action of every seat that acted; empty at index 0 and where a limit ended it between steps.
        time_step: The environment's answer.
        digest: Hash of everything up to and including this step, actions included.
        limit: The limit that this step reached.
        env_s: Seconds that the environment took.
        agent_s: Seconds that each seat took to decide.
        usage: Tokens, cost and requests of the decisions.
        decisions: What agents want recorded beside their actions.
    """

    index: int
    time_step: TimeStep
    digest: str
    actions: dict[AgentID, Action] = {}
    limit: Limit | None = None
    env_s: float = 0.0
    agent_s: dict[AgentID, float] = {}
    usage: Usage | None = None
    decisions: dict[AgentID, dict[str, Any]] = {}


class EndRecord(_Record, frozen=True, tag="end"):
    """The last line of an episode.

    Attributes:
        outcome: ``terminated`` or ``truncated`` with a score; ``failed`` with an error and no score.
        endings: How it ended for each seat.
        steps: Environment steps.
        returns: Sum of rewards of each seat.
        score: The task's verdict; None exactly when the outcome is ``failed``.
        error: What failed, and whether trying again may help.
        limit: The limit that truncated the episode.
        refused: Actions that were refused.
        wall_s: Seconds from the start of the episode to its end, scoring included.
        env_s: Seconds in the environment.
        agent_s: Seconds of deciding.
        usage: Tokens, cost and requests.
        digest: Digest of the last step.
    """

    outcome: Outcome
    steps: int
    endings: dict[AgentID, str] = {}
    returns: dict[AgentID, float] = {}
    score: Score | None = None
    error: ErrorRecord | None = None
    limit: Limit | None = None
    refused: int = 0
    wall_s: float = 0.0
    env_s: float = 0.0
    agent_s: float = 0.0
    usage: Usage = Usage()
    digest: str = ""


def end_record(
    steps: Sequence[StepRecord],
    *,
    score: Score | None,
    error: ErrorRecord | None,
    refused: int,
    wall_s: float,
    usage: Usage,
) -> EndRecord:
    """Return the last line of an episode: what its steps add up to, and the verdict."""
    endings: dict[AgentID, str] = {}
    returns: dict[AgentID, float] = {}
    for record in steps:
        for agent, step in record.time_step.seats.items():
            returns[agent] = returns.get(agent, 0.0) + step.reward
            if step.ending is not None:
                endings[agent] = step.ending
    last = steps[-1] if steps else None
    truncated = last is not None and any(step.truncated for step in last.time_step.seats.values())
    return EndRecord(
        outcome="failed" if score is None else "truncated" if truncated else "terminated",
        steps=sum(1 for record in steps if record.actions),
        endings=endings,
        returns=returns,
        score=score,
        error=error,
        limit=None if last is None else last.limit,
        refused=refused,
        wall_s=wall_s,
        env_s=sum((record.env_s for record in steps), 0.0),
        agent_s=sum((seconds for record in steps for seconds in record.agent_s.values()), 0.0),
        usage=usage,
        digest="" if last is None else last.digest,
    )


def first_digest(env: str, options: dict[str, Any], task: Task, seed: int, limits: Limits) -> bytes:
    """Return the start of an episode's digest chain: what it is played on."""
    return hashlib.blake2b(encode_canonical((env, options, task, seed, limits)), digest_size=16).digest()


def next_digest(digest: bytes, index: int, actions: dict[AgentID, Action], time_step: TimeStep) -> bytes:
    """Return the digest of a step: of the one before, the actions and the answer.

    Raises:
        UsageError, TypeError, ValueError, OverflowError, RecursionError: Something in the answer cannot be sent.
    """
    return hashlib.blake2b(digest + encode_canonical((index, actions, time_step)), digest_size=16).digest()


Record: TypeAlias = EpisodeRecord | StepRecord | EndRecord


@dataclass(slots=True)
class Episode:
    """A recorded episode.

    Attributes:
        record: Its first line.
        steps: Its steps, index 0 first.
        end: Its last line; None where the file is torn.
        line: Number of the first line in the file, from 1; step `i` stands on line ``line + 1 + i``.
        stop: Bytes from the start of the file to the end of its last line; 0 for one that was not read.
    """

    record: EpisodeRecord
    steps: list[StepRecord] = field(default_factory=list)
    end: EndRecord | None = None
    line: int = 1
    stop: int = 0

    def lines(self) -> bytes:
        """Return the episode as JSON lines."""
        records: list[Record] = [self.record, *self.steps]
        if self.end is not None:
            records.append(self.end)
        return b"".join(encode_json(record) + b"\n" for record in records)


def append_episode(path: Path, episode: Episode) -> None:
    """Append a whole episode to a file in one write; call `cut_torn_episode` once before the first."""
    data = episode.lines()
    with path.open("ab") as file:
        file.write(data)


def cut_torn_episode(path: Path) -> None:
    """Truncate a trace file after its last whole episode, so that the next one follows it; none is no trouble.

    Raises:
        ConfigError: It is no trace file, so nothing was cut.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        first = file.readline()
    if not first.endswith(b"\n") and (first.startswith(_BEGINNING) or _BEGINNING.startswith(first)):
        os.truncate(path, 0)  # killed in the first line of the first write
        return
    whole = max((episode.stop for episode in read_episodes(path) if episode.end is not None), default=0)
    if whole < path.stat().st_size:
        os.truncate(path, whole)


def read_episodes(path: Path) -> Iterator[Episode]:
    """Yield the episodes of a trace file in order; a torn tail comes last, with `end` None.

    Raises:
        ConfigError: The file cannot be read, or a line is not a record where it stands; the line is named.
    """
    try:
        with path.open("rb") as file:
            yield from _episodes(path, file)
    except OSError as error:
        raise ConfigError(f"cannot read the trace {path}: {error.strerror or error}") from error


def read_lines(lines: bytes) -> Episode:
    """Return the one episode that `Episode.lines` wrote.

    Raises:
        ConfigError: It is none.
    """
    for episode in _episodes(Path("trace"), iter(lines.splitlines(keepends=True))):
        return episode
    raise ConfigError("the trace is empty")


def _episodes(path: Path, lines: Iterator[bytes]) -> Iterator[Episode]:
    episode: Episode | None = None
    number = offset = 0
    for number, line in enumerate(lines, 1):
        offset += len(line)
        if not line.endswith(b"\n") and number > 1:
            break  # the write was cut off in this line
        record = _decode(path, number, line)
        if isinstance(record, EpisodeRecord):
            if episode is not None:
                yield episode
            episode = Episode(record, line=number)
        elif episode is None:
            raise ConfigError(f"{path}:{number}: an episode must begin with a line of type 'episode'")
        elif isinstance(record, StepRecord):
            if record.index != len(episode.steps):
                raise ConfigError(
                    f"{path}:{number}: step {record.index} stands where step {len(episode.steps)} belongs"
                )
            episode.steps.append(record)
        else:
            episode.end, episode.stop = record, offset
            yield episode
            episode = None
    if episode is not None:
        yield episode
    if number == 0:
        raise ConfigError(f"{path} is empty; a trace begins with a line of type 'episode'")


def _decode(path: Path, number: int, line: bytes) -> Record:
    try:
        record: Record = decode_json(line, type=Record)
    except UsageError as error:
        raise ConfigError(f"{path}:{number}: {error}") from error
    if isinstance(record, EpisodeRecord) and record.trace_version != TRACE_VERSION:
        raise ConfigError(f"{path}:{number}: trace version {record.trace_version}; this Arena reads {TRACE_VERSION}")
    return record

"""The environment contract: what an author writes, and everything that he may rely on.

An environment hosts one episode at a time. Whoever drives it (a session) promises: `reset` first; then `step` with
exactly the seats in `acting`, each with an action that passes `arena.legality.check_action`; no step after the end;
calls never overlap, though they need not all come from one thread.
The environment promises what its `EnvSpec` declares; `arena.testing.check_env` runs every promise.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
import pydantic
from gymnasium.spaces import Space

from arena.errors import UnknownIdError, UnsupportedError, did_you_mean
from arena.seeding import derive_seed
from arena.types import PLAYER, Action, AgentID, Score, SeatStep, Task, TimeStep, Tool
from arena.vector import TabularModel, VectorEnvironment

__all__ = [
    "EnvSpec",
    "Environment",
    "Options",
    "SeatSpec",
    "SingleAgentEnvironment",
    "TaskMaker",
    "Taskset",
    "check_expert",
]


class Options(pydantic.BaseModel):
    """Base of an environment's or an agent's options: frozen, strict, unknown names refused, each field described."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False
    )


class EnvSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an environment declares about itself. Every line is checked by `arena.testing.check_env`.

    Attributes:
        id: ``family/name-vN``; a change that alters transcripts is a new version.
        summary: One sentence.
        play: Whether one seat acts, seats act in turn, or all at once.
        endings: Every name an ending can have, and whether it ends the task or only the watching.
        reward_range: Smallest and largest reward of one step.
        score_range: Smallest and largest score.
        metrics: Name and meaning of the numbers in `Score.metrics`.
        groups: Name and meaning of the fields of `Task.data` by which results can be broken down.
        splits: Names of the task splits.
        max_steps: Steps after which a session truncates the episode unless its limits say otherwise.
        deterministic: The same task, seed and actions give the same time steps, so journals can be replayed.
        seeded: The seed changes episodes of the same task; when false every seed gives the same episode.
        legal_actions: ``none`` are listed, ``some`` are (others are accepted too), or ``all`` (others are refused).
        shared_reward: Every seat always gets the same reward.
        snapshots: `snapshot` and `restore` work, so that forks need no replay.
        expert: `expert_action` works.
        experts: Names of its experts where there are several; the first one is asked where none is named.
        extra: The extra of this distribution that it needs, if any.
        blocking: A call may wait for something outside this process (a command in a sandbox, a search over the
            network). Episodes are then driven on threads of their own, side by side: calls of one instance never
            overlap, those of two may.
    """

    id: str
    summary: str
    endings: dict[str, Literal["termination", "truncation"]]
    reward_range: tuple[float, float]
    score_range: tuple[float, float] = (0.0, 1.0)
    play: Literal["single", "turns", "simultaneous"] = "single"
    metrics: dict[str, str] = {}
    groups: dict[str, str] = {}
    splits: tuple[str, ...] = ("train", "test")
    max_steps: int | None = None
    deterministic: bool = True
    seeded: bool = True
    legal_actions: Literal["none", "some", "all"] = "none"
    shared_reward: bool = False
    snapshots: bool = False
    expert: bool = False
    experts: tuple[str, ...] = ()
    extra: str | None = None
    blocking: bool = False


@dataclass(frozen=True, slots=True)
class SeatSpec:
    """What a seat sees and can do.

    Attributes:
        observation_space: The space of `SeatStep.observation`.
        action_space: The space of its text, discrete or array actions; None where it acts through tools only.
        tools: The tools that it may call.
        instructions: What a language model or a person is told about the task before the first observation.
    """

    observation_space: Space[Any]
    action_space: Space[Any] | None
    tools: tuple[Tool, ...] = ()
    instructions: str = ""


class Taskset(abc.ABC):
    """The tasks of one split, made lazily. `len` works where they are finite.

    Attributes:
        split: The split's name.
    """

    split: str

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of tasks."""

    @abc.abstractmethod
    def task(self, index: int) -> Task:
        """Return task number `index`, from 0 to `len - 1`: always the same one."""

    def get(self, task_id: str) -> Task:
        """Return the task with this id.

        Raises:
            UnknownIdError: There is none; a near miss is named.
        """
        known = []
        for task in self:
            if task.id == task_id:
                return task
            known.append(task.id)
        raise UnknownIdError(f"no task {task_id!r} in split {self.split!r}{did_you_mean(task_id, known[:1000])}")

    def __iter__(self) -> Iterator[Task]:
        return (self.task(index) for index in range(len(self)))

    def sample(self, count: int, seed: int) -> list[Task]:
        """Return `count` different tasks drawn with `seed`; all of them, shuffled, when there are not so many."""
        rng = np.random.default_rng(derive_seed(seed, "tasks", self.split))
        size = len(self)
        if count * 4 > size:
            return [self.task(int(index)) for index in rng.permutation(size)[:count]]
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            chosen[int(rng.integers(size))] = None
        return [self.task(index) for index in chosen]


class TaskMaker(abc.ABC):
    """Makes tasks as files in the format of a public benchmark; ``arena tasks ENV MAKER --out DIR`` runs it.

    Attributes:
        summary: One sentence.
        Options: What can be asked for.
    """

    summary: ClassVar[str]
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: Any = None) -> None:
        self.options: Any = self.Options() if options is None else options

    @abc.abstractmethod
    def make(self, folder: Path, progress: Callable[[int, int], None]) -> str:
        """Make the tasks below a folder; whole ones that are there already are kept, so that it can be run again.

        Args:
            folder: Made if it was not there.
            progress: To be called with how many of how many tasks are done.

        Returns:
            One or two lines: what was made, and how it is played.

        Raises:
            UsageError: The options cannot be met; nothing was written.
        """


class Environment(abc.ABC):
    """One episode of a task, for one or several seats.

    Attributes:
        spec: The declaration, set by `arena.register`.
        Options: The options' model; constructing the environment is cheap, heavy work waits for `prepare` or `reset`.
        makers: What can make tasks for it, by name.
    """

    spec: ClassVar[EnvSpec]
    Options: ClassVar[type[Options]] = Options
    makers: ClassVar[Mapping[str, type[TaskMaker]]] = {}

    def __init__(self, options: Any = None) -> None:
        self.options: Any = self.Options() if options is None else options

    @property
    def possible_agents(self) -> tuple[AgentID, ...]:
        """Every seat, in a fixed order."""
        return (PLAYER,)

    @abc.abstractmethod
    def seat(self, agent: AgentID) -> SeatSpec:
        """Return what the seat sees and can do; constant over the environment's life."""

    @abc.abstractmethod
    def taskset(self, split: str) -> Taskset:
        """Return the tasks of a split named in the spec."""

    def prepare(self, task: Task) -> None:  # noqa: B027 - optional: most tasks need no preparation
        """Do a task's slow one-time work (generate, unpack, build) and cache it; safe to call twice at once."""

    @abc.abstractmethod
    def reset(self, task: Task, seed: int) -> TimeStep:
        """Begin an episode; an unfinished one is dropped.

        Args:
            task: From a taskset of this environment with these options.
            seed: The episode's root seed; the environment draws from its stream ``env`` only.

        Raises:
            UsageError: The task is not one of this environment's.
        """

    @abc.abstractmethod
    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        """Apply the actions of exactly the acting seats.

        Raises:
            InvalidActionError: An action is not legal; nothing has changed, and the message says what is legal.
        """

    @abc.abstractmethod
    def score(self) -> Score:
        """Return the verdict on the episode as it stands; called once, after the last step."""

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return a good action for the seat now, without changing anything.

        Args:
            agent: The seat.
            kind: One of the spec's `experts`; None for the first, or only, one.

        Raises:
            UnsupportedError: There is no expert, or it does not know how to go on from here.
        """
        raise UnsupportedError(f"{self.spec.id} has no expert")

    def snapshot(self) -> object:
        """Return the episode's state, for `restore` of an environment with the same options in this process."""
        raise UnsupportedError(f"{self.spec.id} has no snapshots; a fork replays its journal")

    def restore(self, state: object) -> None:
        """Continue from a state that `snapshot` returned; one state can be restored many times."""
        raise UnsupportedError(f"{self.spec.id} has no snapshots; a fork replays its journal")

    def vector(self, seeds: Sequence[int], per_seed: int) -> VectorEnvironment | None:
        """Return many episodes that step together, computed with arrays; None where there is nothing of the kind.

        Args:
            seeds: The root seed of each group of episodes.
            per_seed: Episodes in each group.
        """
        return None

    def tabular(self) -> TabularModel:
        """Return the whole game as tables, for exact solutions.

        Raises:
            UnsupportedError: It is not finite, or not known.
        """
        raise UnsupportedError(f"{self.spec.id} is not known as tables")

    def close(self) -> None:  # noqa: B027 - optional: many environments hold nothing
        """Free everything that the environment holds; safe to call twice."""


class SingleAgentEnvironment(Environment):
    """An environment with one seat: the author writes `begin` and `act`, and never sees a mapping."""

    @abc.abstractmethod
    def begin(self, task: Task, seed: int) -> SeatStep:
        """Begin an episode and return its first step; see `Environment.reset`."""

    @abc.abstractmethod
    def act(self, action: Action) -> SeatStep:
        """Apply the player's action; see `Environment.step`."""

    def reset(self, task: Task, seed: int) -> TimeStep:
        """Begin an episode."""
        return TimeStep.solo(self.begin(task, seed))

    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        """Apply the player's action."""
        return TimeStep.solo(self.act(actions[PLAYER]))


def check_expert(spec: EnvSpec, kind: str | None) -> None:
    """Refuse the name of an expert that an environment does not have.

    Raises:
        UnsupportedError: The message names those that there are.
    """
    if kind is not None and kind not in spec.experts:
        what = f"{spec.id} has no expert {kind!r}" if spec.experts else f"{spec.id} has no experts with names"
        raise UnsupportedError(f"{what}{did_you_mean(kind, spec.experts)}")

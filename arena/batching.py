"""Batches of episodes for learning: an environment's own, or any simultaneous one stepped episode by episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from arena.env import Environment, Taskset
from arena.errors import ConfigError, UnsupportedError
from arena.registry import make
from arena.seeding import MAX_SEED, stream
from arena.threads import CallThread
from arena.types import Action, AgentID, SeatStep, TimeStep
from arena.vector import VectorEnvironment, VectorStep

__all__ = ["EpisodeByEpisode", "make_vector"]

T = TypeVar("T")
_MOST_THREADS = 128


def make_vector(
    id: str,
    options: Mapping[str, Any] | None = None,
    *,
    seeds: Sequence[int],
    per_seed: int,
    split: str | None = None,
) -> VectorEnvironment:
    """Return many episodes of an environment that step together.

    Args:
        id: For instance ``marl/coordination-v0``.
        options: Fields of its options' model.
        seeds: The root seed of each group of episodes.
        per_seed: Episodes in each group.
        split: Where the tasks come from; the first declared split where absent.

    Raises:
        UnknownIdError, ConfigError: As `arena.make`.
        UnsupportedError: Its seats act in turn, or not by a discrete choice.
    """
    env = make(id, options)
    try:
        own = env.vector(seeds, per_seed) if split is None else None
        split = split or env.spec.splits[0]
    finally:
        env.close()
    return own or EpisodeByEpisode(lambda: make(id, options), seeds, per_seed, split=split)


class EpisodeByEpisode(VectorEnvironment):
    """Any simultaneous environment with discrete actions, one instance an episode.

    Each group draws its tasks and the seeds of its episodes from its own stream. Observations are flattened as
    Gymnasium's `flatten` does, the state is all of them side by side, and `metrics` has the verdict's ``score`` and
    what the environment declares. Environments that wait (`EnvSpec.blocking`) are called side by side, each on a thread
    of its own, or one of 128 that they share; what comes out is the same.

    Args:
        make_env: Makes an instance.
        seeds: The root seed of each group.
        per_seed: Episodes in each group.
        split: Where the tasks come from.

    Raises:
        UnsupportedError: Seats act in turn, or not by a discrete choice.
    """

    def __init__(self, make_env: Any, seeds: Sequence[int], per_seed: int, *, split: str) -> None:
        super().__init__(seeds, per_seed)
        self._envs: list[Environment] = [make_env()]
        self._threads: list[CallThread] = []
        try:
            self._look_at(self._envs[0], split)
            self._envs += [make_env() for _ in range(len(self) - 1)]
            if self._spec.blocking:
                self._threads = [CallThread(f"row-{number}") for number in range(min(len(self), _MOST_THREADS))]
        except BaseException:
            self.close()
            raise

    def _look_at(self, first: Environment, split: str) -> None:
        """Take down what agents see and choose among, from one of the environments."""
        self._spec = first.spec
        if first.spec.play == "turns":
            raise UnsupportedError(f"{first.spec.id} is played in turns; only simultaneous play can be batched")
        self.agents = first.possible_agents
        seats = [first.seat(agent) for agent in self.agents]
        self._observed = [seat.observation_space for seat in seats]
        self._are_flat = [isinstance(space, spaces.Box) and len(space.shape) == 1 for space in self._observed]
        sizes, self._choices = [], []
        for agent, seat in zip(self.agents, seats, strict=True):
            if not isinstance(seat.action_space, spaces.Discrete):
                raise UnsupportedError(
                    f"{first.spec.id}: {agent} acts in {seat.action_space}; only Discrete is batched"
                )
            self._choices.append(seat.action_space)
            sizes.append(_size(seat.observation_space, first.spec.id))
        self.actions = max(int(choice.n) for choice in self._choices)
        self.observation_size, self._sizes = max(sizes), sizes
        self.state_size = sum(sizes)
        self._tasks: Taskset = first.taskset(split)
        self._usual = np.zeros((len(self.agents), self.actions), bool)
        for usual, choice in zip(self._usual, self._choices, strict=True):
            usual[: int(choice.n)] = True

    def reset(self) -> VectorStep:
        """Begin all episodes."""
        self._rngs = [stream(seed, "env") for seed in self.seeds]
        shape = (len(self), len(self.agents))
        self._observations = np.zeros((*shape, self.observation_size), np.float32)
        self._masks = np.broadcast_to(self._usual, (*shape, self.actions)).copy()
        self._alive = np.zeros(shape, bool)
        self._begun: list[tuple[int, int]] = [(0, 0)] * len(self)
        self._taken: list[list[list[int]]] = [[] for _ in range(len(self))]
        self._begin(range(len(self)))
        zeros, no = np.zeros(shape, np.float32), np.zeros(shape, bool)
        return self._answer(zeros, no, no, np.zeros(len(self), bool), None, {})

    def step(self, actions: NDArray[np.integer[Any]]) -> VectorStep:
        """Step all episodes."""
        self._refuse_illegal(actions, self._masks, self._alive)
        shape = (len(self), len(self.agents))
        rewards, terminated, truncated = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
        over = np.zeros(len(self), bool)
        last: NDArray[np.float32] | None = None
        metrics: dict[str, NDArray[np.float32]] = {}
        calls = (partial(env.step, self._chosen(row, actions[row])) for row, env in enumerate(self._envs))
        for row, answer in enumerate(self._made(range(len(self)), calls)):
            self._taken[row].append(actions[row].tolist())
            for column, agent in enumerate(self.agents):
                step = answer.seats.get(agent)
                if step is not None:
                    rewards[row, column] = step.reward
                    terminated[row, column], truncated[row, column] = step.terminated, step.truncated
            self._show(row, answer)
            cut = self._spec.max_steps is not None and len(self._taken[row]) >= self._spec.max_steps
            if not answer.is_last and cut:
                truncated[row] = self._alive[row]
            if answer.is_last or cut:
                over[row] = True
        if over.any():
            last = self._observations.copy()
            ended = [int(row) for row in np.flatnonzero(over)]
            self._judge(ended, metrics)
            self._begin(ended)
        return self._answer(rewards, terminated, truncated, over, last, metrics)

    def snapshot(self) -> dict[str, Any]:
        """Return the episodes as what was done in them.

        Raises:
            UnsupportedError: The environment may answer the same actions in another way.
        """
        if not self._spec.deterministic:
            raise UnsupportedError(f"{self._spec.id} is not deterministic, so its episodes cannot be repeated")
        return {
            "rngs": [rng.bit_generator.state for rng in self._rngs],
            "begun": [list(one) for one in self._begun],
            "taken": [np.array(one, np.int64).reshape(-1, len(self.agents)) for one in self._taken],
        }

    def restore(self, state: Mapping[str, Any]) -> VectorStep:
        """Repeat the episodes up to where they were; rewards are zero and nothing is over in what comes back.

        Raises:
            ConfigError: This is no such state.
        """
        answer = self.reset()
        try:
            rows, begun = range(len(self)), [(int(task_index), int(seed)) for task_index, seed in state["begun"]]
            histories = [taken for _, taken in zip(rows, state["taken"], strict=True)]
            self._open(dict(zip(rows, begun, strict=True)))
            for _ in self._made(rows, (partial(self._repeat, row, taken) for row, taken in enumerate(histories))):
                pass
            for rng, words in zip(self._rngs, state["rngs"], strict=True):
                rng.bit_generator.state = words
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"not a state of {len(self)} episodes of {self._spec.id}: {error}") from error
        none = answer.rewards, answer.terminated, answer.truncated, answer.over
        return self._answer(*none, None, {})

    def close(self) -> None:
        """Close every instance."""
        for _ in self._made(range(len(self._envs)), (env.close for env in self._envs)):
            pass
        for thread in self._threads:
            thread.stop()
        self._threads = []

    def _made(self, rows: Sequence[int], calls: Iterable[Callable[[], T]]) -> Iterable[T]:
        """Return what calls of the environments of some rows give, in order: of each when it is due, or all at once."""
        if not self._threads:
            return (call() for call in calls)
        futures = [self._threads[row % len(self._threads)].submit(call) for row, call in zip(rows, calls, strict=True)]
        wait(futures)  # also where one failed: no call may be under way afterwards
        return [future.result() for future in futures]

    def _begin(self, rows: Sequence[int]) -> None:
        rngs = [self._rngs[row // self.per_seed] for row in rows]
        drawn = [(int(rng.integers(len(self._tasks))), int(rng.integers(MAX_SEED))) for rng in rngs]
        self._open(dict(zip(rows, drawn, strict=True)))

    def _open(self, begun: Mapping[int, tuple[int, int]]) -> None:
        """Begin an episode in some rows, each with a task, by its index, and a seed."""
        rows = list(begun)
        for row, first in zip(
            rows, self._made(rows, (partial(self._first, row, *begun[row]) for row in rows)), strict=True
        ):
            self._observations[row], self._masks[row] = 0.0, self._usual
            self._begun[row], self._taken[row] = begun[row], []
            self._show(row, first)

    def _first(self, row: int, task_index: int, seed: int) -> TimeStep:
        task = self._tasks.task(task_index)
        self._envs[row].prepare(task)
        return self._envs[row].reset(task, seed)

    def _repeat(self, row: int, taken: NDArray[np.integer[Any]]) -> None:
        """Do again what was done in a row; it touches nothing of the others."""
        for actions in taken:
            self._show(row, self._envs[row].step(self._chosen(row, actions)))
            self._taken[row].append([int(action) for action in actions])

    def _show(self, row: int, answer: TimeStep) -> None:
        self._alive[row] = False
        for column, agent in enumerate(self.agents):
            step = answer.seats.get(agent)
            if step is None:
                continue
            self._alive[row, column] = agent in answer.acting
            flat = step.observation
            if not self._are_flat[column]:
                flat = spaces.flatten(self._observed[column], flat)
            self._observations[row, column, : self._sizes[column]] = flat
            self._mask(row, column, step)

    def _mask(self, row: int, column: int, step: SeatStep) -> None:
        if step.legal_actions is None or self._spec.legal_actions != "all":
            return
        start = int(self._choices[column].start)
        self._masks[row, column] = False
        self._masks[row, column, [int(action) - start for action in step.legal_actions]] = True
        if not step.legal_actions:
            self._masks[row, column] = self._usual[column]

    def _chosen(self, row: int, actions: NDArray[np.integer[Any]]) -> dict[AgentID, Action]:
        return {
            agent: int(actions[column]) + int(self._choices[column].start)
            for column, agent in enumerate(self.agents)
            if self._alive[row, column]
        }

    def _judge(self, rows: Sequence[int], metrics: dict[str, NDArray[np.float32]]) -> None:
        """Have the episodes of some rows, which are over, scored."""
        scores = self._made(rows, (self._envs[row].score for row in rows))
        for row, score in zip(rows, scores, strict=True):
            for name, value in {"score": score.value, **score.metrics}.items():
                metrics.setdefault(name, np.full(len(self), np.nan, np.float32))[row] = value

    def _answer(
        self,
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        over: NDArray[np.bool_],
        last: NDArray[np.float32] | None,
        metrics: Mapping[str, NDArray[np.float32]],
    ) -> VectorStep:
        observations = self._observations.copy()
        state = self._state(observations)
        return VectorStep(
            observations,
            state,
            self._masks.copy(),
            self._alive.copy(),
            rewards,
            terminated,
            truncated,
            over,
            observations if last is None else last,
            state if last is None else self._state(last),
            metrics,
        )

    def _state(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(set(self._sizes)) == 1:
            return observations.reshape(len(self), self.state_size)
        parts = [observations[:, column, :size] for column, size in enumerate(self._sizes)]
        return np.concatenate(parts, axis=1)


def _size(space: spaces.Space[Any], id: str) -> int:
    """Return how many numbers a space flattens to."""
    try:
        return int(spaces.flatdim(space))
    except (NotImplementedError, ValueError) as error:
        raise UnsupportedError(
            f"{id}: observations in {space} have no fixed size, so they cannot be batched"
        ) from error

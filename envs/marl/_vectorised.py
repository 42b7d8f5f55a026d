"""Cooperative games on arrays: many episodes that step together, and one of them as an environment.

A game's rules are written once, as functions of arrays whose first axis is the episode. They keep nothing between
calls: an episode is a mapping of arrays, a step returns a new one, and everything random comes in as uniform numbers.
So the same rules play one episode and thousands, and given the same numbers they play them alike. Letters in shapes:
B episodes, n agents, d numbers of an observation, s numbers of a state, k uniform numbers.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from arena import (
    Action,
    AgentID,
    Environment,
    InvalidActionError,
    ResetNeededError,
    Score,
    SeatSpec,
    SeatStep,
    Task,
    Taskset,
    TimeStep,
    UnknownIdError,
    UsageError,
    VectorEnvironment,
    VectorStep,
    stream,
)

Bools = NDArray[np.bool_]
Integers = NDArray[np.integer[Any]]
Episodes = dict[str, NDArray[Any]]
"""What B episodes are: arrays by name, each with B as its first length. Nobody changes one in place."""


class Outcome(NamedTuple):
    """What a step of a game leads to.

    Attributes:
        episodes: The episodes after it.
        rewards: What every agent receives, float64 (B,).
        ended: Whether the rules ended the episode, (B,).
    """

    episodes: Episodes
    rewards: NDArray[np.float64]
    ended: Bools


class Game(abc.ABC):
    """The rules of a cooperative game with a shared reward and the same actions for all agents, always all legal.

    Attributes:
        agents: Number of agents.
        actions: Number of actions.
        horizon: Steps after which an episode is cut off, if the rules have not ended it.
        observation_size: Numbers in an observation.
        observation_low: The smallest of them that there can be; the largest is 1.
        state_size: Numbers in the state.
        start_draws: Uniform numbers that the start of an episode takes.
        step_draws: Uniform numbers that a step takes.
    """

    agents: int
    actions: int
    horizon: int
    observation_size: int
    observation_low: float = 0.0
    start_draws: int
    step_draws: int

    @property
    def state_size(self) -> int:
        """Numbers in what `state` returns."""
        return self.agents * self.observation_size

    @abc.abstractmethod
    def start(self, draws: NDArray[np.float64]) -> Episodes:
        """Return new episodes.

        Args:
            draws: Uniform in [0, 1), (B, `start_draws`).
        """

    @abc.abstractmethod
    def step(self, episodes: Episodes, actions: Integers, draws: NDArray[np.float64], is_last: Bools) -> Outcome:
        """Return what the actions lead to.

        Args:
            episodes: From `start` or `step`.
            actions: In [0, `actions`), (B, n).
            draws: Uniform in [0, 1), (B, `step_draws`).
            is_last: Whether the step is number `horizon`, (B,).
        """

    @abc.abstractmethod
    def observe(self, episodes: Episodes) -> NDArray[np.float32]:
        """Return what each agent sees, (B, n, d): a new array."""

    def state(self, episodes: Episodes, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what a central critic sees, (B, s): all observations side by side, unless a game knows better."""
        return observations.reshape(len(observations), self.state_size)

    @abc.abstractmethod
    def metrics(self, episodes: Episodes) -> dict[str, NDArray[Any]]:
        """Return numbers about the episodes as they stand, each (B,): ``score``, and what the game declares."""

    @abc.abstractmethod
    def expert(self, episodes: Episodes, kind: str | None) -> Integers:
        """Return a good team's actions, (B, n); `kind` is one of the declared experts, None the first or only one."""


def begin(game: Game, draws: NDArray[np.float64]) -> Episodes:
    """Return new episodes of a game, with the count of their steps and their return."""
    count = len(draws)
    return {**game.start(draws), "steps": np.zeros(count, np.int64), "return": np.zeros(count)}


def advance(
    game: Game, episodes: Episodes, actions: Integers, draws: NDArray[np.float64]
) -> tuple[Outcome, NDArray[np.bool_]]:
    """Return what a step leads to, and which episodes are cut off at the horizon, (B,)."""
    steps = episodes["steps"] + 1
    is_last = steps >= game.horizon
    outcome = game.step(episodes, actions, draws, is_last)
    outcome.episodes["steps"] = steps
    outcome.episodes["return"] = episodes["return"] + outcome.rewards
    return outcome, is_last & ~outcome.ended


def agent_names(game: Game) -> tuple[AgentID, ...]:
    """Return the seats: agent_0, agent_1 and so on."""
    return tuple(f"agent_{number}" for number in range(game.agents))


# -- many episodes -----------------------------------------------------------------------------------------------------


class GameBatch(VectorEnvironment):
    """Episodes of one game, stepped together.

    A group draws the same numbers whatever is beside it: first those of a step for its episodes in order, then those of
    new episodes for its episodes that ended, in order. With one episode in a group, its first episode is the one that
    the environment plays with that seed.

    Args:
        game: The rules.
        seeds: The root seed of each group.
        per_seed: Episodes in each group.

    Raises:
        UsageError: A seed is none, or there is nothing to step.
    """

    def __init__(self, game: Game, seeds: Sequence[int], per_seed: int) -> None:
        if not seeds or per_seed < 1:
            raise UsageError(f"a batch needs a seed and an episode for it, not {len(seeds)} seeds and {per_seed} each")
        super().__init__(seeds, per_seed)
        self._game = game
        self.agents, self.actions = agent_names(game), game.actions
        self.observation_size, self.state_size = game.observation_size, game.state_size
        self._generators = self._fresh_generators()
        self._draws = np.zeros((len(seeds), per_seed, game.step_draws))
        self._episodes: Episodes | None = None
        self._answer: VectorStep

    def reset(self) -> VectorStep:
        """Begin all episodes."""
        self._generators = self._fresh_generators()
        self._episodes = begin(self._game, self._start_draws(np.arange(len(self))))
        observations = self._game.observe(self._episodes)
        state = self._game.state(self._episodes, observations)
        no = np.zeros(len(self), bool)
        outcome = Outcome(self._episodes, np.zeros(len(self)), no)
        return self._answered(outcome, no, (observations, state), (observations, state), {})

    def step(self, actions: NDArray[np.integer[Any]]) -> VectorStep:
        """Step all episodes."""
        episodes = self._begun()
        self._check(actions)
        for generator, draws in zip(self._generators, self._draws, strict=True):
            generator.random(out=draws)
        draws = self._draws.reshape(len(self), self._game.step_draws)
        outcome, cut = advance(self._game, episodes, actions, draws)
        observations = self._game.observe(outcome.episodes)
        last = shown = observations, self._game.state(outcome.episodes, observations)
        metrics: dict[str, NDArray[np.float32]] = {}
        self._episodes = outcome.episodes
        if (over := outcome.ended | cut).any():
            metrics = self._metrics(over)
            self._begin_anew(np.flatnonzero(over))
            observations = self._game.observe(self._episodes)
            shown = observations, self._game.state(self._episodes, observations)
        return self._answered(outcome, cut, shown, last, metrics)

    def expert(self, kind: str | None = None) -> NDArray[np.integer[Any]]:
        """Return the actions of a good team in every episode, (B, n); `kind` is one of the game's experts."""
        return self._game.expert(self._begun(), kind)

    def snapshot(self) -> dict[str, Any]:
        """Return arrays by name: the episodes, the generators, and the last answer."""
        episodes, answer = self._begun(), self._answer
        shown = {name: getattr(answer, name) for name in VectorStep.__slots__ if name != "metrics"}
        named = {
            "episode": episodes,
            "answer": shown,
            "metric": answer.metrics,
            "generator": {"state": np.stack([_words(generator) for generator in self._generators])},
        }
        return {f"{kind}.{name}": array.copy() for kind, arrays in named.items() for name, array in arrays.items()}

    def restore(self, state: Mapping[str, Any]) -> VectorStep:
        """Continue from a snapshot of a batch of the same game and size.

        Raises:
            UsageError: It is no such snapshot; nothing has changed.
        """
        like = GameBatch(self._game, self.seeds, self.per_seed)
        like.reset()
        held = _fitting(state, like.snapshot(), len(self))
        self._generators = [_generator(words) for words in held["generator.state"]]
        self._episodes = _parts(held, "episode")
        self._answer = VectorStep(**_parts(held, "answer"), metrics=_parts(held, "metric"))
        return self._answer

    def _fresh_generators(self) -> list[np.random.Generator]:
        return [stream(seed, "env") for seed in self.seeds]

    def _begun(self) -> Episodes:
        if self._episodes is None:
            raise ResetNeededError("the batch has not begun; call reset first")
        return self._episodes

    def _check(self, actions: NDArray[np.integer[Any]]) -> None:
        """Refuse what is no array of legal actions."""
        shape = len(self), self._game.agents
        if not isinstance(actions, np.ndarray) or actions.shape != shape or actions.dtype.kind not in "iu":
            raise InvalidActionError(f"actions are an array of integers of shape {shape}, not {_described(actions)}")
        if actions.min() < 0 or actions.max() >= self._game.actions:
            legal = f"0 to {self._game.actions - 1}"
            raise InvalidActionError(f"actions from {actions.min()} to {actions.max()} were given (legal: {legal})")

    def _start_draws(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Draw what the new episodes with these numbers, in rising order, take."""
        counts = np.bincount(rows // self.per_seed, minlength=len(self.seeds))
        size = self._game.start_draws
        pairs = zip(self._generators, counts.tolist(), strict=True)
        return np.concatenate([generator.random((count, size)) for generator, count in pairs if count])

    def _begin_anew(self, rows: NDArray[np.intp]) -> None:
        """Replace the episodes with these numbers by new ones."""
        old, new = self._begun(), begin(self._game, self._start_draws(rows))
        if len(rows) == len(self):
            self._episodes = new
            return
        merged = {name: array.copy() for name, array in old.items()}
        for name, array in new.items():
            merged[name][rows] = array
        self._episodes = merged

    def _metrics(self, over: Bools) -> dict[str, NDArray[np.float32]]:
        found = all_metrics(self._game, self._begun())
        return {name: np.where(over, values, np.nan).astype(np.float32) for name, values in found.items()}

    def _answered(
        self,
        outcome: Outcome,
        cut: Bools,
        shown: tuple[NDArray[np.float32], NDArray[np.float32]],
        last: tuple[NDArray[np.float32], NDArray[np.float32]],
        metrics: Mapping[str, NDArray[np.float32]],
    ) -> VectorStep:
        agents = self._game.agents

        def for_all(values: NDArray[Any]) -> NDArray[Any]:
            return np.repeat(values[:, None], agents, axis=1)

        self._answer = VectorStep(
            observations=shown[0],
            state=shown[1],
            masks=np.ones((len(self), agents, self._game.actions), bool),
            alive=np.ones((len(self), agents), bool),
            rewards=for_all(outcome.rewards.astype(np.float32)),
            terminated=for_all(outcome.ended),
            truncated=for_all(cut),
            over=outcome.ended | cut,
            last_observations=last[0],
            last_state=last[1],
            metrics=metrics,
        )
        return self._answer


def all_metrics(game: Game, episodes: Episodes) -> dict[str, NDArray[Any]]:
    """Return a game's metrics and ``return``, the sum of the rewards, each (B,)."""
    return {**game.metrics(episodes), "return": episodes["return"]}


def _described(actions: Any) -> str:
    return f"{actions.dtype}{list(actions.shape)}" if isinstance(actions, np.ndarray) else type(actions).__name__


def _fitting(state: Mapping[str, Any], like: Mapping[str, NDArray[Any]], episodes: int) -> dict[str, NDArray[Any]]:
    """Return copies of a snapshot's arrays.

    Args:
        state: What is said to be one.
        like: One of such a batch, with no metrics; there may be metrics, float32 (B,), beside its names.
        episodes: B.

    Raises:
        UsageError: An array is missing, unknown, or has another form.
    """
    held = {name: state.get(name) for name in {*like, *state}}
    metric = np.empty(episodes, np.float32)
    for name, value in held.items():
        form = metric if name.startswith("metric.") else like.get(name)
        if form is None:
            raise UsageError(f"no snapshot of this batch: {name!r} is unknown")
        if not isinstance(value, np.ndarray) or (value.shape, value.dtype) != (form.shape, form.dtype):
            raise UsageError(f"no snapshot of this batch: {name!r} is not an array of {form.dtype}{list(form.shape)}")
    return {name: np.array(value) for name, value in held.items()}


def _parts(state: Mapping[str, NDArray[Any]], kind: str) -> dict[str, NDArray[Any]]:
    """Return a snapshot's arrays of one kind, by name."""
    head = f"{kind}."
    return {name.removeprefix(head): array for name, array in state.items() if name.startswith(head)}


def _words(generator: np.random.Generator) -> NDArray[np.uint64]:
    """Return the state of a PCG64 generator as six 64-bit words."""
    held = generator.bit_generator.state
    state, inc = held["state"]["state"], held["state"]["inc"]
    halves = [part for number in (state, inc) for part in divmod(number, 2**64)]
    return np.array([*halves, held["has_uint32"], held["uinteger"]], np.uint64)


def _generator(words: NDArray[np.uint64]) -> np.random.Generator:
    """Return the generator whose state `_words` returned."""
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    bits = np.random.PCG64(0)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high * 2**64 + low, "inc": inc_high * 2**64 + inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)


# -- one episode -------------------------------------------------------------------------------------------------------


class GameTasks(Taskset):
    """One task: the game. What differs between episodes is their seed."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return 1

    def task(self, index: int) -> Task:
        """Return the task, whose id is the split's name."""
        return Task(self.split, self.split)


class GameEnvironment(Environment):
    """One episode of a game: a batch of one.

    A subclass says which game, and tells each seat what it is about. The ending at the horizon is ``out_of_steps``.

    Attributes:
        instructions: What a seat is told; ``{agent}`` is its name and ``{team}`` is how many agents there are.
    """

    instructions: ClassVar[str]

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._game = self.make_game()
        self._agents = agent_names(self._game)
        self._seats: dict[AgentID, SeatSpec] = {}
        self._generator: np.random.Generator
        self._episode: Episodes

    @abc.abstractmethod
    def make_game(self) -> Game:
        """Return the rules, for these options."""

    def ending(self, episode: Episodes) -> str:
        """Return the declared name of how the rules ended an episode, a batch of one; asked where they did only."""
        raise NotImplementedError(f"{self.spec.id} does not name its endings")

    def facts(self, episode: Episodes) -> list[dict[str, Any]] | None:
        """Return for each seat what it sees in plain numbers, where the observation is scaled; a batch of one."""
        return None

    @property
    def possible_agents(self) -> tuple[AgentID, ...]:
        """The seats: agent_0, agent_1 and so on."""
        return self._agents

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the seat's spaces, and what it is told."""
        if agent not in self._seats:
            game = self._game
            self._seats[agent] = SeatSpec(
                spaces.Box(game.observation_low, 1.0, (game.observation_size,), np.float32),
                spaces.Discrete(game.actions),
                instructions=self.instructions.format(agent=agent, team=game.agents),
            )
        return self._seats[agent]

    def taskset(self, split: str) -> Taskset:
        """Return the one task of a split."""
        return GameTasks(split)

    def reset(self, task: Task, seed: int) -> TimeStep:
        """Begin an episode."""
        if task.id not in self.spec.splits:
            known = ", ".join(self.spec.splits)
            raise UnknownIdError(f"task {task.id!r} is not one of {self.spec.id} (known: {known})")
        self._generator = stream(seed, "env")
        self._episode = begin(self._game, self._generator.random((1, self._game.start_draws)))
        return self._time_step(0.0, None)

    def step(self, actions: Mapping[AgentID, Action]) -> TimeStep:
        """Step the episode."""
        chosen = [actions[agent] for agent in self._agents]
        for action in chosen:
            if not isinstance(action, int) or not 0 <= action < self._game.actions:
                raise InvalidActionError(f"{action!r} is no action (legal: 0 to {self._game.actions - 1})")
        draws = self._generator.random((1, self._game.step_draws))
        outcome, cut = advance(self._game, self._episode, np.array([chosen]), draws)
        self._episode = outcome.episodes
        reward = float(outcome.rewards[0])
        if outcome.ended[0]:
            return self._time_step(reward, self.ending(self._episode), terminated=True)
        if cut[0]:
            return self._time_step(reward, "out_of_steps", truncated=True)
        return self._time_step(reward, None)

    def score(self) -> Score:
        """Return the verdict; success is whether the game was won, where it can be."""
        metrics = {name: float(values[0]) for name, values in all_metrics(self._game, self._episode).items()}
        value = metrics.pop("score")
        success = bool(metrics["won"]) if "won" in metrics else None
        return Score(value, success, metrics, dict.fromkeys(self._agents, value))

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return what the seat does in a good team."""
        return int(self._game.expert(self._episode, kind)[0, self._agents.index(agent)])

    def snapshot(self) -> object:
        """Return the episode's state."""
        return self._episode, self._generator.bit_generator.state

    def restore(self, state: object) -> None:
        """Continue from a state."""
        assert isinstance(state, tuple)
        self._episode, held = state
        self._generator = np.random.Generator(np.random.PCG64(0))
        self._generator.bit_generator.state = held

    def vector(self, seeds: Sequence[int], per_seed: int) -> VectorEnvironment:
        """Return episodes that step together."""
        return GameBatch(self._game, seeds, per_seed)

    def _time_step(
        self, reward: float, ending: str | None, *, terminated: bool = False, truncated: bool = False
    ) -> TimeStep:
        observations = self._game.observe(self._episode)[0]
        facts = self.facts(self._episode) or [{}] * len(self._agents)
        seats = {
            agent: SeatStep(observation, reward, terminated, truncated, ending, None, info)
            for agent, observation, info in zip(self._agents, observations, facts, strict=True)
        }
        return TimeStep(seats, () if ending else self._agents)

"""What the clauses of the environment contract examine: an environment, its tasks, and episodes played with them.

Random play draws from the stream ``policy``, never from the environment's: with the same stream a random policy guesses
the environment's secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np

from arena.env import Environment, EnvSpec, SeatSpec
from arena.errors import InvalidActionError, UnsupportedError
from arena.sampling import sample_action
from arena.seeding import stream
from arena.session import Session
from arena.testing.verdicts import broken, must_be_same
from arena.types import Action, AgentID, Limits, Score, SeatStep, Task, TimeStep, as_action, encode_msgpack

__all__ = ["MAX_DRAWS", "Chooser", "EnvProbe", "Run", "Seats", "as_expert", "at_random", "go_on", "take_steps"]

MAX_DRAWS = 20
"""Most draws of anything of which one clause tries many: refused actions in a row, listed actions, steps to disturb."""


@dataclass(slots=True)
class Run:
    """An episode that was played.

    Attributes:
        task: Its task.
        seed: Its seed.
        steps: The time steps, as the environment returned them.
        encoded: The same, encoded when they came.
        actions: The accepted actions; `actions[i]` led to `steps[i + 1]`.
        given: The same, encoded before the environment got them.
        refused: Actions that the environment itself refused, with the time step at which they were tried.
        score: The score at the end.
    """

    task: Task
    seed: int
    steps: list[TimeStep] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    actions: list[dict[AgentID, Action]] = field(default_factory=list)
    given: list[bytes] = field(default_factory=list)
    refused: list[tuple[TimeStep, dict[AgentID, Action]]] = field(default_factory=list)
    score: Score | None = None

    @property
    def middle(self) -> int:
        """Half the number of its actions."""
        return len(self.actions) // 2

    def add(self, step: TimeStep) -> None:
        """Take note of a time step."""
        self.steps.append(step)
        self.encoded.append(encode_msgpack(step))

    def must_equal(self, what: str, answers: Sequence[bytes], env: Environment, *, start: int = 0) -> None:
        """Fail unless the answers from number `start` on are this run's, and the environment's score is, too."""
        must_be_same(what, self.encoded[start:], answers)
        score = env.score()
        if score != self.score:
            broken(f"{what}: the score was {self.score} and is {score}")

    def __iter__(self) -> Iterator[tuple[int, AgentID, SeatStep]]:
        for index, time_step in enumerate(self.steps):
            for agent, step in time_step.seats.items():
                yield index, agent, step


Seats: TypeAlias = Mapping[AgentID, SeatSpec]
Chooser: TypeAlias = Callable[[Environment, Seats, TimeStep, np.random.Generator], dict[AgentID, Action]]
"""Returns the actions of the acting seats, in an environment with these seats, at a time step."""


def at_random(env: Environment, seats: Seats, now: TimeStep, rng: np.random.Generator) -> dict[AgentID, Action]:
    """Return random actions: a `Chooser`."""
    return {agent: sample_action(rng, seats[agent], now.seats[agent]) for agent in now.acting}


def as_expert(env: Environment, seats: Seats, now: TimeStep, rng: np.random.Generator) -> dict[AgentID, Action]:
    """Return the expert's actions, random ones where it does not know how to go on: a `Chooser`."""
    try:
        return {agent: as_action(env.expert_action(agent)) for agent in now.acting}
    except UnsupportedError:
        return at_random(env, seats, now, rng)


class EnvProbe:
    """An environment's factory, some of its tasks, and episodes played with them.

    Args:
        factory: Returns a new environment.
        tasks: The tasks to play; a sample of every split where None.
        seeds: The seeds to play.
        max_steps: Most steps of one episode.
    """

    def __init__(
        self, factory: Callable[[], Environment], tasks: Sequence[Task] | None, seeds: Sequence[int], max_steps: int
    ) -> None:
        self._factory, self._given = factory, tasks
        self.seeds, self.max_steps = tuple(seeds), max_steps
        self._open: list[Environment] = []
        self.pristine: list[bytes] = []
        self.spec: EnvSpec = self.fresh().spec

    # -- new environments ----------------------------------------------------------------------------------------------

    def fresh(self) -> Environment:
        """Return a new environment, closed by the next `sweep`."""
        env = self._factory()
        self._open.append(env)
        return env

    def begun(self) -> tuple[Environment, TimeStep]:
        """Return a new environment after the reset of the first episode, and its first time step."""
        env = self.fresh()
        return env, env.reset(self.tasks[0], self.seeds[0])

    def session(self, task: Task, seed: int, limits: Limits | None = None) -> Session:
        """Return a session after its first step, in a new environment."""
        session = Session(self.fresh(), task, seed, limits=limits)
        session.open()
        return session

    def seats(self) -> dict[AgentID, SeatSpec]:
        """Return every seat of a new environment."""
        return _seats(self.fresh())

    def sweep(self) -> None:
        """Close what `fresh` made."""
        while self._open:
            self._open.pop().close()

    # -- tasks and episodes --------------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks to play: at most two of each split unless given; `pristine` is how they were before."""
        tasks = self._sampled() if self._given is None else list(self._given)
        self.pristine = [encode_msgpack(task) for task in tasks]
        return tasks

    def _sampled(self) -> list[Task]:
        env = self.fresh()
        return [task for split in self.spec.splits for task in env.taskset(split).sample(2, self.seeds[0])]

    @cached_property
    def episodes(self) -> list[tuple[Task, int]]:
        """Every task with the first seed, and the first task with every seed."""
        others = [(self.tasks[0], seed) for seed in self.seeds[1:]]
        return [(self.tasks[0], self.seeds[0]), *others, *((task, self.seeds[0]) for task in self.tasks[1:])]

    @cached_property
    def runs(self) -> list[Run]:
        """Random play of every episode."""
        return [self.play(task, seed) for task, seed in self.episodes]

    @cached_property
    def expert_runs(self) -> list[Run]:
        """The expert's play of every episode; none where there is no expert."""
        return [self.play(*pair, chooser=as_expert) for pair in self.episodes] if self.spec.expert else []

    @property
    def seen(self) -> list[Run]:
        """Everything that was played."""
        return [*self.runs, *self.expert_runs]

    @property
    def longest(self) -> Run:
        """The random run with most actions."""
        return max(self.runs, key=lambda run: len(run.actions))

    def play(
        self,
        task: Task,
        seed: int,
        *,
        env: Environment | None = None,
        choices: int | None = None,
        chooser: Chooser = at_random,
        limit: int | None = None,
    ) -> Run:
        """Play an episode.

        Args:
            task: The task.
            seed: The seed.
            env: The environment to play in; a new one where None.
            choices: Seed of the policy's stream; `seed` where None.
            chooser: Who chooses.
            limit: Most steps.
        """
        env = self.fresh() if env is None else env
        rng = stream(seed if choices is None else choices, "policy")
        run = Run(task, seed)
        run.add(env.reset(task, seed))
        seats = _seats(env)
        while run.steps[-1].acting and len(run.actions) < (limit or self.max_steps):
            if not _move(env, run, lambda now: chooser(env, seats, now, rng)):
                break
        run.score = env.score()
        return run

    def follow(self, run: Run, *, env: Environment | None = None, stop: int | None = None) -> list[bytes]:
        """Return what an environment answers to a run's task, seed and first `stop` actions, encoded."""
        env = self.fresh() if env is None else env
        answers = [encode_msgpack(env.reset(run.task, run.seed))]
        return answers + go_on(env, run.actions[:stop])


def _seats(env: Environment) -> dict[AgentID, SeatSpec]:
    return {agent: env.seat(agent) for agent in env.possible_agents}


def _move(env: Environment, run: Run, choose: Callable[[TimeStep], dict[AgentID, Action]]) -> bool:
    """Take one step, trying again where the environment refuses; return whether one was accepted."""
    now = run.steps[-1]
    for _ in range(MAX_DRAWS):
        actions = choose(now)
        given = encode_msgpack(actions)
        try:
            answer = env.step(actions)
        except InvalidActionError:
            run.refused.append((now, actions))
            continue
        run.actions.append(actions)
        run.given.append(given)
        run.add(answer)
        return True
    return False


def go_on(env: Environment, script: Sequence[Mapping[AgentID, Action]]) -> list[bytes]:
    """Return the answers to actions, encoded; the script ends where the episode does."""
    answers = []
    for actions in script:
        answer = env.step(actions)
        answers.append(encode_msgpack(answer))
        if answer.is_last:
            break
    return answers


def take_steps(session: Session, run: Run, until: int | None = None) -> None:
    """Give a session the actions of a run from where it stands up to number `until`, or all."""
    for index in range(len(session.journal), (len(run.actions) if until is None else until) + 1):
        session.step(index, run.actions[index - 1])

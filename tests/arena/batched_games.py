"""Small simultaneous games for tests of batches: seats that differ, masks, deaths, and every way to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
import numpy as np
from gymnasium import spaces

from arena import (
    Environment,
    EnvSpec,
    InvalidActionError,
    Options,
    Score,
    SeatSpec,
    SeatStep,
    Task,
    Taskset,
    TimeStep,
    UnknownIdError,
    restart,
    stream,
    termination,
    transition,
    truncation,
)
from arena.registry import environments

FADING = "toys/fading-v0"


class Levels(Taskset):
    """Three tasks: how many steps more than three an episode has at least."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return 3

    def task(self, index: int) -> Task:
        return Task(f"level-{index}", self.split, {"more": index})


class Fading(Environment):
    """Three seats that differ in all that seats can differ in; bob is out after two steps, the others go on.

    Some actions are illegal at each step. Episodes end by the rules after 3 or 4 steps, by the environment's own
    truncation after 5, and go on for ever otherwise, so that `max_steps` cuts them after 6.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id=FADING,
        summary="Seats that differ, and fade.",
        play="simultaneous",
        endings={"done": "termination", "late": "truncation", "out": "termination"},
        reward_range=(-100.0, 100.0),
        legal_actions="all",
        max_steps=6,
        splits=("train", "test"),
    )
    possible_agents = ("ann", "bob", "cat")
    opened: ClassVar[list[Fading]] = []
    """Every instance that was made while a test watches."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.episodes: list[tuple[str, int, list[dict[str, Any]]]] = []
        """What was played: the task, the seed, and what was done."""
        self.closed = 0
        self.opened.append(self)

    def seat(self, agent: str) -> SeatSpec:
        if agent == "ann":
            return SeatSpec(spaces.Box(-10, 10, (2,), np.float32), spaces.Discrete(2))
        if agent == "bob":
            return SeatSpec(spaces.Discrete(3), spaces.Discrete(3, start=5))
        far = spaces.Box(-10, 10, (1, 1), np.float32)
        return SeatSpec(spaces.Dict({"far": far, "near": spaces.Discrete(2)}), spaces.Discrete(4))

    def taskset(self, split: str) -> Taskset:
        return Levels(split)

    def reset(self, task: Task, seed: int) -> TimeStep:
        if not task.id.startswith("level-"):
            raise UnknownIdError(f"no task {task.id!r}")
        self.rng, self.steps, self.paid = stream(seed, "env"), 0, 0.0
        self.length = 3 + int(task.data["more"]) + int(self.rng.integers(2))
        self.episodes.append((task.id, seed, []))
        self.look()
        return TimeStep(
            {agent: restart(self.seen[agent], legal_actions=self.legal[agent]) for agent in self.possible_agents},
            self.possible_agents,
        )

    def look(self) -> None:
        self.seen = {
            "ann": np.array([self.steps, self.rng.uniform(-1, 1)], np.float32),
            "bob": int(self.rng.integers(3)),
            "cat": {"far": self.rng.uniform(-1, 1, (1, 1)).astype(np.float32), "near": int(self.rng.integers(2))},
        }
        self.legal: dict[str, tuple[int, ...]] = {}
        for agent in self.possible_agents:
            choice: Any = self.seat(agent).action_space
            every = range(int(choice.start), int(choice.start + choice.n))
            kept = tuple(action for action in every if self.rng.random() < 0.6)
            self.legal[agent] = kept or (every[-1],)

    def step(self, actions: Mapping[str, Any]) -> TimeStep:
        for agent, action in actions.items():
            if action not in self.legal[agent]:
                raise InvalidActionError(f"{agent} cannot do {action} (legal: {self.legal[agent]})")
        self.episodes[-1][2].append(dict(actions))
        self.steps += 1
        rewards = {agent: self.steps + 0.1 * action for agent, action in actions.items()}
        self.paid += sum(rewards.values())
        self.look()
        ended = self.steps >= self.length and self.length <= 5
        seats: dict[str, SeatStep] = {}
        for agent, reward in rewards.items():
            if ended:
                end = (truncation, "late") if self.length == 5 else (termination, "done")
                seats[agent] = end[0](self.seen[agent], reward, ending=end[1])
            elif agent == "bob" and self.steps == 2:
                seats[agent] = termination(self.seen[agent], reward, ending="out")
            else:
                seats[agent] = transition(self.seen[agent], reward, legal_actions=self.legal[agent])
        return TimeStep(seats, tuple(agent for agent, step in seats.items() if not step.is_last))

    def score(self) -> Score:
        return Score(self.paid / 1000, None, metrics={"length": float(self.steps)})

    def close(self) -> None:
        self.closed += 1


class Unsure(Fading):
    """The same, but it says that it may answer the same actions in another way."""

    spec = msgspec.structs.replace(Fading.spec, id="toys/unsure-v0", deterministic=False)


class Coded(Fading):
    """Ann's observation is two digits, which Gymnasium flattens to six numbers."""

    spec = msgspec.structs.replace(Fading.spec, id="toys/coded-v0")

    def seat(self, agent: str) -> SeatSpec:
        was = super().seat(agent)
        return SeatSpec(spaces.MultiDiscrete([3, 3]), was.action_space) if agent == "ann" else was

    def look(self) -> None:
        super().look()
        self.seen["ann"] = self.rng.integers(3, size=2)


class Sized(Options):
    """Options of `Payday`."""

    factor: float = 1.0


class Payday(Fading):
    """The same, but what is paid can be huge."""

    spec = msgspec.structs.replace(Fading.spec, id="toys/payday-v0")
    Options = Sized

    def step(self, actions: Mapping[str, Any]) -> TimeStep:
        answer = super().step(actions)
        factor = self.options.factor
        seats = {
            agent: msgspec.structs.replace(step, reward=step.reward * factor) for agent, step in answer.seats.items()
        }
        return TimeStep(seats, answer.acting)


class Drawn(Fading):
    """Ann draws: she acts in a box."""

    spec = msgspec.structs.replace(Fading.spec, id="toys/drawn-v0")

    def seat(self, agent: str) -> SeatSpec:
        was = super().seat(agent)
        return SeatSpec(was.observation_space, spaces.Box(0, 1, (2,))) if agent == "ann" else was


class Named(Fading):
    """Its metrics have names that a training uses itself."""

    spec = msgspec.structs.replace(Fading.spec, id="toys/named-v0")

    def score(self) -> Score:
        return Score(0.5, None, metrics={"step": 7.0, "seed": 99.0, "kl": 5.0, "density": 3.0})


TOYS: tuple[type[Environment], ...] = (Fading, Unsure, Coded, Payday, Drawn, Named)


@contextmanager
def toys_registered() -> Iterator[None]:
    """Make the games known by id for a while: tests that go over the registry must not meet them."""
    known = environments._classes
    known.update({cls.spec.id: cls for cls in TOYS})
    Fading.opened.clear()
    try:
        yield
    finally:
        for cls in TOYS:
            del known[cls.spec.id]
        Fading.opened.clear()

"""Policies and trainings for the tests of the actor-critic, small and made in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from arena import Row, TrainingJob
from arena.agents.marl._dag import GraphNoise, OrderKind, draw_noise
from arena.agents.marl._learner import Learner
from arena.agents.marl._policy import Policy
from arena.agents.marl.actor_critic import ActorCritic, ActorCriticOptions, GraphOptions
from arena.learning import Progress, learn
from arena.seeding import stream

torch.set_num_threads(1)  # as trainings do: more would only wait for each other

COORDINATION = "marl/coordination-v0"

METHODS: dict[str, dict[str, Any]] = {
    "ippo": {"method": "ippo"},
    "mappo": {"method": "mappo"},
    "autoregressive": {"method": "autoregressive"},
    "random-order": {"method": "random-order"},
    "fixed-density": {"method": "fixed-density"},
    "dynamic": {"method": "dynamic", "graph": {"edge_bias": 0.5, "prior": 0.5}},
    "dynamic, index": {"method": "dynamic", "graph": {"edge_bias": 0.5, "order": "index"}},
    "dynamic, random": {"method": "dynamic", "graph": {"edge_bias": 0.5, "order": "random"}},
    "dynamic, sinkhorn": {"method": "dynamic", "graph": {"edge_bias": 0.5, "prior": 0.5, "order": "sinkhorn"}},
    "annealed": {"method": "annealed", "graph": {"edge_bias": 0.5}},
    "annealed by penalty": {"method": "annealed", "graph": {"edge_bias": 0.5, "anneal": "penalty"}},
    "shuffled": {"method": "autoregressive", "graph": {"shuffled": True}},
}
"""Every method and every kind of order, with graphs that vary from sample to sample where they can."""


def make_policy(
    agents: int = 3,
    actions: int = 2,
    observation: int = 4,
    hidden: int = 16,
    seeds: Sequence[int] = (0,),
    loud: float = 0.0,
    **graph: Any,
) -> Policy:
    """Return a fresh policy; with `loud`, every parameter is moved by so much noise, so that nothing is zero."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    policy = Policy(generators, agents, actions, observation, hidden, GraphOptions.model_validate(graph))
    if loud:
        make_loud(policy, loud)
    return policy


def make_loud(policy: torch.nn.Module, deviation: float) -> None:
    """Move every parameter by noise."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += deviation * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def noise_of(shape: tuple[int, ...], agents: int, order: OrderKind = "plackett-luce", seed: int = 0) -> GraphNoise:
    """Return noise for graphs of some shape."""
    return draw_noise(stream(seed, "graph"), shape, agents, order)


def backward(loss: torch.Tensor) -> None:
    """Go back through a graph."""
    loss.backward()  # type: ignore[no-untyped-call]


def make_trainer(
    options: Mapping[str, Any],
    *,
    env: str = COORDINATION,
    env_options: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    steps: int = 64,
) -> ActorCritic:
    """Return a trainer that has begun."""
    trainer = ActorCritic(
        TrainingJob(env, dict(env_options or {}), tuple(seeds), steps), ActorCriticOptions.model_validate(options)
    )
    trainer.begin()
    return trainer


def learner_of(trainer: ActorCritic) -> Learner:
    """Return what does the work."""
    assert trainer._learner is not None
    return trainer._learner


def go_on(trainer: ActorCritic, updates: int | None = None) -> list[Row]:
    """Train for so many updates, or to the end, and return their rows."""
    until = trainer.updates if updates is None else trainer.done + updates
    rows: list[Row] = []
    while trainer.done < until:
        rows += trainer.update()
    return rows


def tensors_of(trainer: ActorCritic) -> dict[str, torch.Tensor]:
    """Return every tensor of a training by name: networks, optimisers, the scale of returns."""
    return {f"{owner}.{name}": value.clone() for owner, name, value in learner_of(trainer)._tensors()}


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Return whether two sets of tensors are the same to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@dataclass
class Trained:
    """A checkpoint on disk, and the trainer that it was made by.

    Attributes:
        folder: The checkpoint.
        trainer: As it was at the end; closed.
    """

    folder: Path
    trainer: ActorCritic = field(repr=False)

    @property
    def policy(self) -> Policy:
        """The policy of all seeds."""
        return learner_of(self.trainer).policy


def train_to_disk(
    folder: Path,
    options: Mapping[str, Any],
    *,
    env: str = COORDINATION,
    env_options: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    steps: int = 64,
    loud: float = 0.0,
) -> Trained:
    """Train as `arena train` does, and return the final checkpoint; `loud` moves its policies by so much noise."""
    kept: list[ActorCritic] = []

    class Kept(ActorCritic):
        def update(self) -> Sequence[Row]:
            rows = super().update()
            if loud and self.done == self.updates:
                make_loud(learner_of(self).policy, loud)
            return rows

        def close(self) -> None:
            """Stay, so that a test can look inside."""

    def make_one() -> ActorCritic:
        job = TrainingJob(env, dict(env_options or {}), tuple(seeds), steps)
        kept.append(Kept(job, ActorCriticOptions.model_validate(options)))
        return kept[-1]

    learn(make_one, folder, checkpoint_every=1000, progress=Progress(1))
    return Trained(folder / "final", kept[-1])

"""The coordination game: agents set bits together, and a team that chooses apart is easily stuck with the second best.

Each of n agents (2, 3, 5 or 10) sets its bit to 0 or 1; each bit is flipped with probability 0.1, independently. Let z
be the number of zeros, o that of ones, and l 1, 1, 2 or 3 for n = 2, 3, 5 or 10. A joint state is worth 3 if z - o > l
(nearly all zeros), 2 if o - z > l, 1 if the ones are ahead by at most l, and else 0. So all ones is an equilibrium that
nobody leaves alone, and all zeros is better.

Observation: the n bits, agent_0's first: every agent sees the joint state.
State: the same.
Actions: Discrete(2), the bit; all are always legal.
Reward: what the new joint state is worth, 0 to 3, the same for every seat.
Endings: ``out_of_steps`` (truncation) after 25 steps: the game itself goes on for ever.
Score: the mean reward of a step, divided by 3.
Expert: always 0. Per step this is worth 2.450, 2.216 and 2.765 with 2, 3 and 5 agents.
Tasks: one; `train` and `test` differ in nothing.
Seed: draws the first state, where a bit is 0 with probability 1/n, and the flips.
As tables (`tabular`, up to 5 agents): the reward is that of the *current* state, the discount is 0.95, and the first
    state is uniform. The simulator pays for the next state, as the reference does. States are numbered like joint
    actions, agent_0's bit varying slowest.
Versions: v0, the first.
Source: Chen and Zhang 2023, arXiv:2306.01920; the rules are those of its authors' code.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from arena import Options, TabularModel, UnsupportedError, register

from ._vectorised import Bools, Episodes, Game, GameEnvironment, Integers, Outcome

_EVEN = {2: 1, 3: 1, 5: 2, 10: 3}
"""By how much zeros and ones may differ in number and still count as even, for each number of agents."""

_BEST = 3.0
_FLIP = 0.1
_DISCOUNT = 0.95
_MOST_AS_TABLES = 5


class CoordinationOptions(Options):
    """Options of `marl/coordination-v0`."""

    agents: Literal[2, 3, 5, 10] = Field(3, description="Agents in the team.")


class CoordinationGame(Game):
    """The rules; an episode is its ``bits``, int8 (B, n).

    Args:
        agents: How many: 2, 3, 5 or 10.
    """

    actions = 2
    horizon = 25

    def __init__(self, agents: int) -> None:
        self.agents = self.observation_size = self.start_draws = self.step_draws = agents
        self.worth = np.array([_worth(agents - ones, ones, _EVEN[agents]) for ones in range(agents + 1)])
        """What a joint state is worth, by its number of ones."""

    @property
    def state_size(self) -> int:
        """The bits."""
        return self.agents

    def start(self, draws: NDArray[np.float64]) -> Episodes:
        """Draw the first bits."""
        return {"bits": (draws >= 1 / self.agents).astype(np.int8)}

    def step(self, episodes: Episodes, actions: Integers, draws: NDArray[np.float64], is_last: Bools) -> Outcome:
        """Set the bits, and flip some."""
        bits = (actions != (draws < _FLIP)).astype(np.int8)
        return Outcome({"bits": bits}, self.worth[bits.sum(1)], np.zeros(len(bits), bool))

    def observe(self, episodes: Episodes) -> NDArray[np.float32]:
        """Show every agent all bits."""
        return np.repeat(episodes["bits"][:, None].astype(np.float32), self.agents, axis=1)

    def state(self, episodes: Episodes, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the bits."""
        return episodes["bits"].astype(np.float32)

    def metrics(self, episodes: Episodes) -> dict[str, NDArray[Any]]:
        """Return the mean reward of a step, divided by the best one."""
        return {"score": episodes["return"] / (_BEST * np.maximum(episodes["steps"], 1))}

    def expert(self, episodes: Episodes, kind: str | None) -> Integers:
        """Return zeros."""
        return np.zeros_like(episodes["bits"])


@register(
    "marl/coordination-v0",
    summary="Agents set noisy bits together; all ones is good, all zeros is better.",
    play="simultaneous",
    endings={"out_of_steps": "truncation"},
    reward_range=(0.0, 3.0),
    metrics={"return": "Sum of the rewards."},
    shared_reward=True,
    snapshots=True,
    expert=True,
)
class Coordination(GameEnvironment):
    """One episode."""

    Options = CoordinationOptions
    instructions = (
        "You are {agent}, one of a team of {team}. At each step every one of you answers 0 or 1 at the same "
        "time, and so sets a bit; now and then a bit flips. You all see all bits. Nearly all zeros are worth 3 to each "
        "of you, nearly all ones 2, and a mixture 0 or 1. Answer with 0 or 1 only."
    )

    def make_game(self) -> Game:
        """Return the rules for this number of agents."""
        return CoordinationGame(self.options.agents)

    def tabular(self) -> TabularModel:
        """Return the game as tables: 2^n states and joint actions.

        Raises:
            UnsupportedError: There are too many agents.
        """
        agents = self.options.agents
        if agents > _MOST_AS_TABLES:
            raise UnsupportedError(f"tables are made for up to {_MOST_AS_TABLES} agents, not for {agents}")
        game = CoordinationGame(agents)
        bits = (np.arange(2**agents)[:, None] >> np.arange(agents)[::-1]) & 1
        flips = (bits[:, None] != bits[None]).sum(2)
        reached = _FLIP**flips * (1 - _FLIP) ** (agents - flips)
        size = len(bits)
        observations = game.observe({"bits": bits})
        return TabularModel(
            actions=(2,) * agents,
            transitions=np.broadcast_to(reached, (size, size, size)).copy(),
            rewards=np.repeat(game.worth[bits.sum(1)][:, None], size, axis=1),
            start=np.full(size, 1 / size),
            discount=_DISCOUNT,
            observations=observations,
        )


def _worth(zeros: int, ones: int, even: int) -> float:
    """Return what a joint state is worth to every agent."""
    if abs(zeros - ones) <= even:
        return 1.0 if zeros < ones else 0.0
    return _BEST if zeros > ones else 2.0

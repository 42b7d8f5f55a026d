"""A PettingZoo environment of an operator's own, with what those of the libraries do not have; and its defects."""

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiDiscrete
from pettingzoo import ParallelEnv


class parallel_env(ParallelEnv):
    """Two agents see a dictionary; one acts with a pair of numbers, the other through a mask among its facts."""

    metadata = {"name": "foreign_v0"}  # noqa: RUF012

    def __init__(self, defect="", size=3, render_mode=None):
        if size > 100:
            raise ValueError("too large\nand more")
        self.defect, self.size = defect, size
        self.possible_agents = [0, 1] if defect == "numbered agents" else ["pair_0", "masked_0"]
        self.observed = Dict({"place": Box(0, 9, (size,), np.float32), "phase": Discrete(4)})
        if defect == "graph":
            self.observed = Graph(Discrete(2), Discrete(2))

    def observation_space(self, agent):
        return self.observed

    def action_space(self, agent):
        return MultiDiscrete([3, 2]) if agent == "pair_0" else Discrete(3, start=5)

    def reset(self, seed=None, options=None):
        self.rng, self.agents, self.steps, self.given = np.random.default_rng(seed), list(self.possible_agents), 0, []
        return self.told(), self.facts()

    def told(self):
        place = self.rng.integers(10, size=self.size).astype(np.float32)
        return {agent: {"phase": np.int64(self.steps), "place": place} for agent in self.agents}

    def facts(self):
        mask = np.array([0, 0, 0] if self.steps == 1 else [1, 0, 1], np.int8)
        odd = {"text": "a", "number": np.float32(0.5), "array": np.arange(2), "function": print, "nan": float("nan")}
        return {"pair_0": odd, "masked_0": {"action_mask": mask}}

    def step(self, actions):
        self.steps += 1
        self.given.append(actions)
        told, alive = self.told(), list(self.agents)
        if self.defect == "born":
            self.agents.append("late_0")
        if self.defect == "untold":
            told.pop("masked_0")
        reward = {"NaN": float("nan"), "huge": 1e300}.get(self.defect, 0.5)
        over = {"pair_0": self.steps == 2, "masked_0": self.steps == 3}
        terminations = {agent: over[agent] for agent in alive}
        truncations = dict.fromkeys(alive, self.steps == 3)
        self.agents = [agent for agent in self.agents if not over.get(agent)]
        return told, dict.fromkeys(alive, reward), terminations, truncations, self.facts()

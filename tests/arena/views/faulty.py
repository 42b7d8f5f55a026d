"""A sound parallel game with three agents, and the defects that can be seeded in it."""

import os
import random

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv


class Bits(ParallelEnv):
    """Each agent sets a bit, which flips by chance; one of them leaves after four steps, the others after ten."""

    metadata = {"name": "bits_v0", "render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(self, fault=None):
        self.fault = fault
        self.possible_agents = ["agent_0", "agent_1", "agent_2"]
        self.spaces = {agent: (self.observed(), Discrete(2)) for agent in self.possible_agents}
        self.rng = np.random.default_rng()
        self.agents = []
        if fault == "cannot be pickled":
            self.held = lambda: None

    def observed(self):
        return Box(0, 1, (4,), np.float32)

    def observation_space(self, agent):
        return self.observed() if self.fault == "fresh spaces" else self.spaces[agent][0]

    def action_space(self, agent):
        return self.spaces[agent][1]

    def reset(self, seed=None, options=None):
        if self.fault == "seed ignored":
            seed = None
        if seed is not None or self.fault == "second reset draws anew":
            self.rng = np.random.default_rng(seed)
        if self.fault != "reset remembers" or not hasattr(self, "bits"):
            self.bits = self.rng.integers(2, size=3).astype(np.float32)
        self.agents, self.steps = list(self.possible_agents), 0
        self.shared = np.zeros(4, np.float32)
        return self.seen(self.agents), self.infos(self.agents)

    def infos(self, agents):
        return {} if self.fault == "infos empty" else {agent: {} for agent in agents}

    def seen(self, agents):
        if self.fault == "aliases the state":
            return dict.fromkeys(agents, self.state_array())
        if self.fault == "aliases a buffer":
            self.shared[:3], self.shared[3] = self.bits, min(self.steps, 10) / 10
            return {agent: self.shared for agent in agents}
        dtype = np.float64 if self.fault == "dtype" else np.float32
        far = 5.0 if self.fault == "out of bounds" else 1.0
        made = np.array([*(self.bits * far), min(self.steps, 10) / 10], dtype)
        if self.fault == "agents share an array":
            return dict.fromkeys(agents, made)
        return {agent: made.copy() for agent in agents}

    def state_array(self):
        if not hasattr(self, "live") or len(self.live) != 4:
            self.live = np.zeros(4, np.float32)
            self.live[:3] = self.bits
        self.bits = self.live[:3]
        return self.live

    def step(self, actions):
        before = list(self.agents)
        self.steps += 1
        flips = self.rng.random(3) < 0.1
        if self.fault == "unseeded from the second step" and self.steps > 1:
            flips = np.random.default_rng().random(3) < 0.5
        if self.fault == "differs between processes":
            flips = np.random.default_rng([os.getpid(), self.steps]).random(3) < 0.5
        if self.fault == "draws from the global generator" and self.steps > 1:
            flips = np.array([random.random() < 0.5 for _ in range(3)])
        for number, agent in enumerate(self.possible_agents):
            if agent in actions:
                self.bits[number] = float(bool(actions[agent]) != bool(flips[number])) % 2
        over = {agent: self.is_over(agent) for agent in before}
        rewards = {agent: float(self.bits.sum()) for agent in before}
        if self.fault == "NaN reward" and self.steps == 3:
            rewards[before[0]] = float("nan")
        if self.fault == "infinite reward" and self.steps == 3:
            rewards[before[0]] = float("inf")
        if self.fault == "ghost keys" and len(before) == 2:
            rewards["agent_0"] = 1.0
        flags = {agent: np.bool_(flag) for agent, flag in over.items()} if self.fault == "numpy flags" else over
        if self.fault != "finished agents stay":
            self.agents = [agent for agent in before if not over[agent]]
        elif all(over.values()):
            self.agents = []
        return self.seen(before), rewards, flags, dict.fromkeys(before, False), self.infos(before)

    def is_over(self, agent):
        if self.fault == "never ends":
            return False
        return self.steps >= (4 if agent == "agent_0" else 10)

    def render(self):
        return None

    def close(self):
        pass

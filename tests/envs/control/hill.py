"""An environment that an operator's package registers: three steps up a hill."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Hill(gymnasium.Env):
    observation_space, action_space = Box(0, 3, (1,), np.float32), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(1, np.float32)
        return self.place, {}

    def step(self, action):
        self.place += action
        return self.place, float(action), bool(self.place[0] == 3), False, {}


gymnasium.register("hill/Hill-v0", entry_point="tests.envs.control.hill:Hill")

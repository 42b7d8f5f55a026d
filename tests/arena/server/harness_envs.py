"""More environments for the server's tests: a worker imports this module beside `tests.arena.served`."""

import time

from arena.env import Environment, SeatSpec
from arena.registry import register
from arena.seeding import stream
from arena.spaces import FreeText
from arena.types import Score, Task, TimeStep, restart, termination, transition
from tests.arena.served import Echo, OneTask


@register("test/nap-v0", summary="Takes its time.", endings={"enough": "termination"}, reward_range=(0.0, 1.0))
class Nap(Echo):
    """``nap`` takes a second and a half."""

    def act(self, action):
        if action == "nap":
            time.sleep(1.5)
        return super().act(action)


@register(
    "test/whispers-v0",
    summary="Everybody is told a secret of his own.",
    endings={"done": "termination"},
    reward_range=(0.0, 1.0),
    play="simultaneous",
)
class Whispers(Environment):
    """Three seats act at once, four times. What a seat is told holds its secret; what it says is nobody else's."""

    possible_agents = ("red", "green", "blue")

    def seat(self, agent):
        return SeatSpec(FreeText(), FreeText(), instructions=f"The instructions of {agent}.")

    def taskset(self, split):
        return OneTask(split)

    def reset(self, task: Task, seed: int) -> TimeStep:
        self._rng, self._round = stream(seed, "env"), 0
        return TimeStep({agent: restart(self._secret(agent)) for agent in self.possible_agents}, self.possible_agents)

    def step(self, actions):
        self._round += 1
        told = {agent: f"{self._secret(agent)} heard {actions[agent]}" for agent in self.possible_agents}
        if self._round == 4:
            return TimeStep({agent: termination(text, 1.0, ending="done") for agent, text in told.items()})
        seats = {agent: transition(text, 0.0, whisper=f"info-{agent}") for agent, text in told.items()}
        return TimeStep(seats, self.possible_agents)

    def score(self):
        return Score(1.0)

    def _secret(self, agent):
        return f"secret-of-{agent}-{self._rng.integers(10**12)}"

"""A dial that is turned by numbers and shown as an array, and a target that is hit by an array."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from pydantic import Field

from arena import (
    Action,
    AgentID,
    Array,
    FreeText,
    Options,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    register,
    restart,
    termination,
    transition,
)
from tests.arena.games import OneTask


class DialOptions(Options):
    size: int = Field(5, ge=2, le=9, description="Places of the dial.")


@register(
    "play/dial-v0",
    summary="Turn the dial to its end.",
    endings={"end": "termination"},
    reward_range=(0.0, 1.0),
    splits=("test",),
    legal_actions="all",
    seeded=False,
)
class Dial(SingleAgentEnvironment):
    Options = DialOptions

    def seat(self, agent: AgentID) -> SeatSpec:
        shown = Dict({"places": Box(0, 1, (self.options.size,), np.float32), "says": FreeText(20)})
        return SeatSpec(shown, Discrete(2, start=1))

    def taskset(self, split: str) -> OneTask:
        return OneTask(split)

    def begin(self, task: Any, seed: int) -> SeatStep:
        self.place = 0
        return restart(self.shown(), legal_actions=(1, 2))

    def act(self, action: Action) -> SeatStep:
        assert isinstance(action, int)
        self.place = min(self.place + action, self.options.size - 1)
        if self.place == self.options.size - 1:
            return termination(self.shown(), 1.0, ending="end")
        return transition(self.shown(), 0.0, legal_actions=(1, 2))

    def shown(self) -> dict[str, Any]:
        places = np.zeros(self.options.size, np.float32)
        places[self.place] = 1
        return {"places": places, "says": f"at {self.place}"}

    def score(self) -> Score:
        return Score(self.place / (self.options.size - 1))


@register(
    "play/aim-v0",
    summary="Say a point.",
    endings={"shot": "termination"},
    reward_range=(0.0, 1.0),
    splits=("test",),
    seeded=False,
)
class Aim(SingleAgentEnvironment):
    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(FreeText(100), Box(-1, 1, (1, 2), np.float32))

    def taskset(self, split: str) -> OneTask:
        return OneTask(split)

    def begin(self, task: Any, seed: int) -> SeatStep:
        self.hit = False
        return restart("Shoot.")

    def act(self, action: Action) -> SeatStep:
        assert isinstance(action, Array)
        point = action.numpy()
        self.hit = bool(np.abs(point).max() < 0.5)
        return termination(f"Shot at {point.tolist()}", float(self.hit), ending="shot")

    def score(self) -> Score:
        return Score(float(self.hit), self.hit)

"""An echo environment for Arena's side of the comparison; imported by the workers."""

from __future__ import annotations

from arena import SeatSpec, SingleAgentEnvironment, Task, Taskset, register
from arena.spaces import FreeText
from arena.types import Action, AgentID, Score, SeatStep, restart, transition

ENV = "bench/echo-v0"


class OneTask(Taskset):
    """The one task there is."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return 1

    def task(self, index: int) -> Task:
        """Return it."""
        return Task("only", self.split)


@register(ENV, summary="Says back what it is told.", endings={}, reward_range=(0.0, 0.0))
class Echo(SingleAgentEnvironment):
    """Never ends, so that nothing but steps is measured."""

    def seat(self, agent: AgentID) -> SeatSpec:
        """Any text may be said, and comes back."""
        return SeatSpec(FreeText(), FreeText())

    def taskset(self, split: str) -> Taskset:
        """Return the one task."""
        return OneTask(split)

    def begin(self, task: Task, seed: int) -> SeatStep:
        """Begin an episode."""
        return restart("")

    def act(self, action: Action) -> SeatStep:
        """Say back what was said."""
        return transition(action, 0.0)

    def score(self) -> Score:
        """Nothing is scored."""
        return Score(0.0)

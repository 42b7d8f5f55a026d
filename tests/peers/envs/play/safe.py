"""A safe that is opened by tools: three digits, turned one after the other."""

from typing import Any

from arena import (
    Action,
    AgentID,
    FreeText,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    Tool,
    ToolCall,
    python_stream,
    register,
    restart,
    termination,
    transition,
)
from tests.arena.games import OneTask

NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
DIGIT = {
    "type": "object",
    "properties": {"digit": {"type": "integer", "minimum": 0, "maximum": 2}},
    "required": ["digit"],
    "additionalProperties": False,
}
TOOLS = (
    Tool("turn", "Turn the next wheel to a digit from 0 to 2.", DIGIT),
    Tool("listen", "Listen to the wheel that is next.", NOTHING),
    Tool("reset", "Turn all wheels back.", NOTHING),
)


@register(
    "play/safe-v0",
    summary="Open a safe by its tools.",
    endings={"open": "termination"},
    reward_range=(0.0, 1.0),
    splits=("test",),
)
class Safe(SingleAgentEnvironment):
    def seat(self, agent: AgentID) -> SeatSpec:
        return SeatSpec(FreeText(200), None, TOOLS, "Open the safe.")

    def taskset(self, split: str) -> OneTask:
        return OneTask(split)

    def begin(self, task: Any, seed: int) -> SeatStep:
        random = python_stream(seed, "env")
        self.digits, self.turned = [random.randrange(3) for _ in range(3)], 0
        return restart("The safe has 3 wheels.", secret_note="not for agents")

    def act(self, action: Action) -> SeatStep:
        assert isinstance(action, ToolCall)
        if action.name == "listen":
            return transition(f"You hear {self.digits[self.turned]} clicks.", 0.0, gain=0)
        if action.name == "reset":
            self.turned = 0
            return transition("All wheels are back.", 0.0)
        self.turned = self.turned + 1 if action.arguments["digit"] == self.digits[self.turned] else 0
        if self.turned == len(self.digits):
            return termination("The safe is open.", 1.0, ending="open")
        return transition(f"{self.turned} wheels are right.", 0.25)

    def score(self) -> Score:
        return Score(float(self.turned == len(self.digits)), self.turned == len(self.digits))

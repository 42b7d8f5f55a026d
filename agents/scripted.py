"""The agent that plays a given list of actions: for tests, for walk-throughs, and to try one line of play by hand."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from arena import Action, Agent, AgentError, Options, Seat, SeatStep, ToolCall, register_agent


class ScriptedCall(Options):
    """A tool call of the script."""

    name: str = Field(description="Name of the tool.")
    arguments: dict[str, Any] = Field({}, description="Its arguments.")


class ScriptedOptions(Options):
    """Options of `scripted`."""

    actions: list[str | int | ScriptedCall] = Field([], description="The actions, in order: text, numbers, tool calls.")
    then: Literal["stop", "repeat", "last"] = Field(
        "stop", description="When all are played: fail, begin again with the first, or go on with the last."
    )

    @pydantic.model_validator(mode="after")
    def _has_something_to_go_on_with(self) -> ScriptedOptions:
        if self.then != "stop" and not self.actions:
            raise ValueError(f"then: {self.then} needs at least one action (allowed with none: stop)")
        return self


@register_agent("scripted", summary="Plays a given list of actions.")
class Scripted(Agent):
    """Plays the next action of its list each time that it is asked; a refused one is not repeated."""

    Options = ScriptedOptions

    def begin(self, seat: Seat) -> None:
        """Begin again with the first action."""
        super().begin(seat)
        self._played = 0

    def act(self, step: SeatStep) -> Action:
        """Return the next action.

        Raises:
            AgentError: The script is used up, and `then` is ``stop``.
        """
        action = self.options.actions[self._index()]
        self._played += 1
        return ToolCall(action.name, action.arguments) if isinstance(action, ScriptedCall) else action

    def _index(self) -> int:
        count, options = len(self.options.actions), self.options
        if self._played < count:
            return self._played
        if options.then == "stop":
            raise AgentError(f"the script of {count} actions is used up (options: then: repeat, then: last)")
        return self._played % count if options.then == "repeat" else count - 1

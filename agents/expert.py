"""The agent that plays the environment's own expert: a ceiling to compare with, and a source of good episodes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from arena import Action, Agent, Options, Seat, SeatStep, UsageError, register_agent


class ExpertOptions(Options):
    """Options of `expert`."""

    kind: str | None = Field(
        None, description="Which expert, where the environment has several (`arena describe`); the first one if absent."
    )


@register_agent("expert", summary="Plays the environment's own expert.", needs_expert=True)
class Expert(Agent):
    """Asks `Seat.expert` for every action."""

    Options = ExpertOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.expert_kind = self.options.kind

    def begin(self, seat: Seat) -> None:
        """Take a seat of an environment that has an expert."""
        if seat.expert is None:
            raise UsageError(f"{seat.env.id} has no expert to play seat {seat.agent!r}; choose another agent")
        super().begin(seat)
        self._expert = seat.expert

    def act(self, step: SeatStep) -> Action:
        """Return the expert's action; whatever it raises passes."""
        return self._expert()

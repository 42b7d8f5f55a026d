"""The agent that plays the environment's own expert: a ceiling to compare with, and a source of good episodes."""

from __future__ import annotations

from arena import Action, Agent, Seat, SeatStep, UsageError, register_agent


@register_agent("expert", summary="Plays the environment's own expert.", needs_expert=True)
class Expert(Agent):
    """Asks `Seat.expert` for every action."""

    def begin(self, seat: Seat) -> None:
        """Take a seat of an environment that has an expert."""
        if seat.expert is None:
            raise UsageError(f"{seat.env.id} has no expert to play seat {seat.agent!r}; choose another agent")
        super().begin(seat)
        self._expert = seat.expert

    def act(self, step: SeatStep) -> Action:
        """Return the expert's action; whatever it raises passes."""
        return self._expert()

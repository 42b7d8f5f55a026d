"""The agent that plays at random: a floor to compare with, and the quickest way to see an environment move.

It draws from the seat's own stream only, so the same seed gives the same play.
"""

from __future__ import annotations

from arena import Action, ActionSampler, Agent, Seat, SeatStep, register_agent


@register_agent("random", summary="Plays uniformly at random.")
class Random(Agent):
    """Draws from the listed legal actions, else from the action space; or calls a tool with random arguments."""

    def begin(self, seat: Seat) -> None:
        """Take a seat that acts by text, number, array or tool."""
        super().begin(seat)
        self._sampler = ActionSampler(seat.spec, seat.rng())

    def act(self, step: SeatStep) -> Action:
        """Return a random action."""
        return self._sampler.sample(step)

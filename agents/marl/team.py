"""A trained team: one member in each seat, of what `marl/actor_critic` has learned.

With ``edges: cut`` every member acts on its own observation alone. With ``edges: on`` the members tell each other what
they see, build the graph of this moment, and decide one after the other along it; then every seat must be one of the
team's. Members act greedily, or at random as in training with ``greedy: false``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from arena import Action, Agent, InvalidActionError, Options, Seat, SeatStep, UsageError, import_extra, register_agent

if TYPE_CHECKING:
    from ._member import Team

__all__ = ["TeamMember", "TeamOptions"]


class TeamOptions(Options):
    """Options of `marl/team`."""

    checkpoint: str = Field(description="Folder of a checkpoint of `marl/actor_critic`, such as runs/.../final.")
    seed: int | None = Field(None, description="Which of the trained seeds plays; the first one where absent.")
    edges: Literal["on", "cut"] = Field("on", description="Whether members tell each other what they see and do.")
    greedy: bool = Field(True, description="Whether the likeliest actions are taken, rather than drawn.")


@register_agent("marl/team", summary="A member of a team that marl/actor_critic has trained.", team=True, extra="train")
class TeamMember(Agent):
    """One member."""

    Options = TeamOptions
    options: TeamOptions

    def __init__(self, options: Any = None) -> None:
        if options is None:
            raise UsageError("marl/team needs the option 'checkpoint', the folder of a trained team")
        super().__init__(options)

    def begin(self, seat: Seat) -> None:
        """Take a seat of the environment that the team was trained in.

        Raises:
            UsageError: It was trained in another one, or for other seats.
            ConfigError: The folder holds no team.
            PrerequisiteError: PyTorch is missing.
        """
        super().begin(seat)
        import_extra("torch", extra="train")
        from ._member import Team

        shared: dict[str, Any] = {} if seat.team is None else seat.team
        if "team" not in shared:
            shared["team"] = Team.load(Path(self.options.checkpoint), self.options.seed)
        self._team: Team = shared["team"]
        self._team.join(seat, greedy=self.options.greedy)
        self._last: Action | None = None
        self._refused = False

    def act(self, step: SeatStep) -> Action | Awaitable[Action]:
        """Return the member's action."""
        if self._refused and self._last is not None:
            self._refused = False
            return self._last
        if self.options.edges == "cut":
            self._last = self._team.alone(self.seat.agent, step)
            return self._last
        return self._together(step)

    async def _together(self, step: SeatStep) -> Action:
        decided: asyncio.Future[dict[str, Action]] = self._team.tell(self.seat.agent, step)
        self._last = (await decided)[self.seat.agent]
        return self._last

    def refuse(self, error: InvalidActionError) -> None:
        """Stand by the action: the team has none other to offer, and whoever set the limits decides."""
        self._refused = True

    def observe(self, step: SeatStep) -> None:
        """Let the others know that this member does not act now."""
        self._team.pass_over(self.seat.agent, step)

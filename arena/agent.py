"""The agent contract: whoever sits in a seat.

A runner promises: `begin` first; then every step that the seat receives exactly once, through `act` when its action is
due and through `observe` when it is not (others act, or the episode is over); `close` at the end. After a refused
action it calls `refuse`, then `act` again with the same step.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import numpy as np

from arena.env import EnvSpec, Options, SeatSpec
from arena.errors import InvalidActionError
from arena.seeding import stream
from arena.types import Action, AgentID, Decision, SeatStep, Task

__all__ = ["Agent", "AgentSpec", "Seat"]


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent declares about itself.

    Attributes:
        id: ``name`` or ``family/name``.
        summary: One sentence.
        needs_expert: It plays `Seat.expert`, so only environments with an expert will do.
        deterministic: The same seat, seed and steps give the same actions.
        team: Those that sit in one episode with the same options share `Seat.team`.
        exclusive: It owns the terminal, so episodes run one after the other.
        extra: The extra of this distribution that it needs, if any.
    """

    id: str
    summary: str
    needs_expert: bool = False
    deterministic: bool = True
    team: bool = False
    exclusive: bool = False
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """The place that an agent takes in one episode.

    Attributes:
        agent: The seat's name.
        env: The environment's declaration.
        spec: What the seat sees and can do.
        task: The task; an agent that learns must not read the answer from it.
        seed: The episode's root seed; draw from `rng`, which is the stream ``agent:<seat>``.
        expert: Returns a good action for this seat now; only for agents that declare `needs_expert`.
        team: What the agents of one team tell each other: empty at first, and theirs to fill; only for agents that
            declare `team`.
    """

    agent: AgentID
    env: EnvSpec
    spec: SeatSpec
    task: Task
    seed: int
    expert: Callable[[], Action] | None = field(default=None, repr=False)
    team: dict[str, Any] | None = field(default=None, repr=False)

    def rng(self) -> np.random.Generator:
        """Return a fresh generator of this seat's own stream."""
        return stream(self.seed, f"agent:{self.agent}")


class Agent(abc.ABC):
    """Who plays one seat, one episode at a time.

    Attributes:
        spec: The declaration, set by `arena.register_agent`.
        Options: The options' model.
        expert_kind: Which of the environment's experts `Seat.expert` asks; None for the first one.
    """

    spec: ClassVar[AgentSpec]
    Options: ClassVar[type[Options]] = Options
    expert_kind: str | None = None

    def __init__(self, options: Any = None) -> None:
        self.options: Any = self.Options() if options is None else options

    def begin(self, seat: Seat) -> None:
        """Take a seat in a new episode and forget the last one.

        Raises:
            UsageError: The agent cannot play this seat; the message says why.
            PrerequisiteError: Something that it needs is missing.
        """
        self.seat = seat

    @abc.abstractmethod
    def act(self, step: SeatStep) -> Action | Decision | Awaitable[Action | Decision]:
        """Return the action for this step; an agent that waits for something makes this a coroutine.

        Raises:
            AgentError, ModelError: It cannot; recorded on the episode, never counted as a score. `details["usage"]`,
                a `Usage` as plain data, says what it had spent on this decision.
        """

    def observe(self, step: SeatStep) -> None:  # noqa: B027 - optional: most agents only act
        """Take note of a step to which this seat does not answer."""

    def refuse(self, error: InvalidActionError) -> None:  # noqa: B027 - optional
        """Take note that the last action was refused; `act` follows with the same step."""

    async def check(self) -> None:  # noqa: B027 - optional
        """Find out, once before a run, whether the agent can play at all: an endpoint answers, a key is accepted.

        Raises:
            PrerequisiteError: It cannot; the message says what to do.
        """

    async def close(self) -> None:  # noqa: B027 - optional: most agents hold nothing
        """Free everything that the agent holds; safe to call twice."""

"""One seat as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from arena.env import EnvSpec, SeatSpec
from arena.errors import InvalidActionError, ResetNeededError, UnsupportedError, UsageError
from arena.rendering import observation_text
from arena.types import AgentID, SeatStep
from arena.views.sessions import OpenSession, Portable, ViewedSession, copied, seat_info

__all__ = ["GymnasiumView"]


class GymnasiumView(Portable, gymnasium.Env[Any, Any]):
    """A single-seat environment, in process or on a server, with Gymnasium's interface.

    A reset with a seed begins the episode of that root seed, the task included unless it was fixed; one without draws
    the next seed from the last one. A refused action changes nothing: the same observation comes again with reward 0,
    and ``info["refused"]`` says what is legal; too many in a row truncate the episode. At the end ``info`` holds
    ``ending``, and ``score`` and ``success`` where there is a verdict, ``error`` where there is none.

    Args:
        spec: What the environment declares.
        seats: Its one seat.
        open_session: Begins an episode.

    Raises:
        UsageError: There are several seats.
        UnsupportedError: The seat acts through tools only.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 - Gymnasium declares it so

    def __init__(self, spec: EnvSpec, seats: Mapping[AgentID, SeatSpec], open_session: OpenSession) -> None:
        if len(seats) != 1:
            raise UsageError(f"{spec.id} has the seats {', '.join(seats)}; use its PettingZoo view")
        ((self._seat, seat),) = seats.items()
        if seat.action_space is None:
            raise UnsupportedError(f"{spec.id} acts through tools only, for which Gymnasium has no action space")
        self.observation_space, self.action_space = seat.observation_space, seat.action_space
        self.instructions, self.declared = seat.instructions, spec
        self.render_mode = "ansi"
        self._open_session = open_session
        self._session: ViewedSession | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; options are ignored."""
        super().reset(seed=seed)
        root = int(self.np_random.integers(2**31)) if seed is None else seed
        self._let_go()
        self._session = self._open_session(root)
        step = self._latest(self._session)
        return self._observation(step), seat_info(step, self.action_space)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step.

        Raises:
            ResetNeededError: No episode is running.
            BoundaryError: The environment or the server failed.
        """
        session = self._session
        if session is None:
            raise ResetNeededError("no episode has begun; call reset first")
        further: dict[str, Any] = {}
        try:
            session.step(len(session.journal), {self._seat: action})
        except InvalidActionError as error:
            further = {"refused": str(error)}
        step = self._latest(session)
        reward = 0.0 if further else step.reward
        if step.is_last:
            further |= _verdict(session)
        info = seat_info(step, self.action_space, **further)
        return self._observation(step), reward, step.terminated, step.truncated, info

    def render(self) -> str:
        """Return the latest observation as text."""
        return "" if self._session is None else observation_text(self._latest(self._session).observation)

    def close(self) -> None:
        """End the episode."""
        self._let_go()

    def _observation(self, step: SeatStep) -> Any:
        return copied(self.observation_space, step.observation)

    def _latest(self, session: ViewedSession) -> SeatStep:
        return session.journal[-1].time_step.seats[self._seat]

    def _let_go(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _verdict(session: ViewedSession) -> dict[str, Any]:
    end = session.end()
    if end.score is None:
        return {} if end.error is None else {"error": end.error.message}
    return {"score": end.score.value, "success": end.score.success}

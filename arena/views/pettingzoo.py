"""Several seats as a PettingZoo environment: in turns (AEC), or all at once (parallel).

The legal choices of a discrete action space come as ``infos[agent]["action_mask"]``. A refused action raises
`InvalidActionError` and changes nothing. A reset with a seed begins the episode of that root seed, one without draws
the next seed from the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

from arena.env import EnvSpec, SeatSpec
from arena.errors import ResetNeededError, UnsupportedError
from arena.trace import StepRecord
from arena.types import AgentID
from arena.views.sessions import OpenSession, ViewedSession, observation_of, seat_info

Transition: TypeAlias = tuple[
    dict[AgentID, Any], dict[AgentID, float], dict[AgentID, bool], dict[AgentID, bool], dict[AgentID, dict[str, Any]]
]
"""Observations, rewards, terminations, truncations and infos of the seats that were alive before a step."""

__all__ = ["ParallelView", "TurnsView", "view"]


def view(spec: EnvSpec, seats: Mapping[AgentID, SeatSpec], open_session: OpenSession) -> TurnsView | ParallelView:
    """Return the view that fits: parallel where seats act at once, else in turns.

    Raises:
        UnsupportedError: A seat acts through tools only.
    """
    kind = ParallelView if spec.play == "simultaneous" else TurnsView
    return kind(spec, seats, open_session)


class _Seats:
    """What both views share: spaces, seeds, and the session that is being played."""

    def __init__(self, spec: EnvSpec, seats: Mapping[AgentID, SeatSpec], open_session: OpenSession) -> None:
        self.metadata: dict[str, Any] = {"name": spec.id, "render_modes": []}
        self.render_mode: str | None = None
        self.declared = spec
        self.possible_agents = list(seats)
        self.agents: list[AgentID] = []
        self.observation_spaces = {agent: seat.observation_space for agent, seat in seats.items()}
        self.action_spaces = {agent: _action_space(spec, agent, seat) for agent, seat in seats.items()}
        self._open_session = open_session
        self._session: ViewedSession | None = None
        self._rng = np.random.default_rng()

    def observation_space(self, agent: AgentID) -> spaces.Space[Any]:
        """Return the space of a seat's observations: always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: AgentID) -> spaces.Space[Any]:
        """Return the space of a seat's actions: always the same object."""
        return self.action_spaces[agent]

    def close(self) -> None:
        """End the episode."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _begin(self, seed: int | None) -> StepRecord:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        root = int(self._rng.integers(2**31)) if seed is None else seed
        self.close()
        self._session = self._open_session(root)
        first = self._session.journal[0]
        self.agents = [agent for agent in self.possible_agents if agent in first.time_step.seats]
        return first

    def _take(self, actions: Mapping[AgentID, Any]) -> StepRecord:
        if self._session is None:
            raise ResetNeededError("no episode has begun; call reset first")
        return self._session.step(len(self._session.journal), actions)

    def _observations(self, record: StepRecord) -> dict[AgentID, Any]:
        return {agent: observation_of(step) for agent, step in record.time_step.seats.items()}

    def _infos(self, record: StepRecord) -> dict[AgentID, dict[str, Any]]:
        return {agent: seat_info(step, self.action_spaces[agent]) for agent, step in record.time_step.seats.items()}


class ParallelView(_Seats, ParallelEnv[AgentID, Any, Any]):  # type: ignore[misc]
    """An environment whose seats act at once, with PettingZoo's parallel interface."""

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[AgentID, Any], dict[AgentID, dict[str, Any]]]:
        """Begin an episode; options are ignored."""
        first = self._begin(seed)
        return self._observations(first), self._infos(first)

    def step(self, actions: dict[AgentID, Any]) -> Transition:
        """Take a step with an action of every live seat.

        Raises:
            InvalidActionError: An action is missing or not legal; nothing has changed.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        record = self._take(actions)
        steps = record.time_step.seats
        self.agents = [agent for agent in self.agents if agent in steps and not steps[agent].is_last]
        return (
            self._observations(record),
            {agent: step.reward for agent, step in steps.items()},
            {agent: step.terminated for agent, step in steps.items()},
            {agent: step.truncated for agent, step in steps.items()},
            self._infos(record),
        )


class TurnsView(_Seats, AECEnv[AgentID, Any, Any]):  # type: ignore[misc]
    """An environment whose seats act one after the other, with PettingZoo's agent-environment-cycle interface."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin an episode; options are ignored."""
        first = self._begin(seed)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self._skip_agent_selection = None
        self._seen: dict[AgentID, Any] = {}
        self.terminations: dict[AgentID, bool] = {}
        self.truncations: dict[AgentID, bool] = {}
        self.infos: dict[AgentID, dict[str, Any]] = {}
        self._show(first)

    def step(self, action: Any) -> None:
        """Play the seat in `agent_selection`; a seat that is over takes None and leaves.

        Raises:
            InvalidActionError: The action is not legal; nothing has changed.
        """
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        record = self._take({agent: action})
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        self._show(record)
        self._accumulate_rewards()
        self._deads_step_first()

    def observe(self, agent: AgentID) -> Any:
        """Return a seat's latest observation."""
        return observation_of(self._seen[agent])

    def render(self) -> None:
        """Show nothing."""

    def _show(self, record: StepRecord) -> None:
        for agent, step in record.time_step.seats.items():
            self._seen[agent] = step
            self.rewards[agent] = step.reward
            self.terminations[agent], self.truncations[agent] = step.terminated, step.truncated
        self.infos |= self._infos(record)
        if record.time_step.acting:
            self.agent_selection = record.time_step.acting[0]


def _action_space(spec: EnvSpec, agent: AgentID, seat: SeatSpec) -> spaces.Space[Any]:
    if seat.action_space is None:
        raise UnsupportedError(f"{agent} in {spec.id} acts through tools only, for which there is no action space")
    return seat.action_space

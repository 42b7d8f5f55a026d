"""Several seats as a PettingZoo environment: one after the other (AEC), or all at once (parallel).

Every environment has both forms. Where seats act at once, the AEC form collects their actions and steps when all have
acted. Where they act in turn, all act in the parallel form and only the action of the seat whose turn it is counts;
``infos[agent]["active_agent"]`` says whose turn comes next.

Where an environment lists all legal actions of a discrete space, a seat's observation is PettingZoo's dictionary of
``observation`` and ``action_mask``; nothing is legal for a seat that is not to act. Lists of legal actions are always
in ``infos[agent]``, too. A refused action changes nothing: the same observations come again with reward 0, the same
seats are to act, and ``infos[agent]["refused"]`` says why; too many in a row truncate the episode.

A reset with a seed begins the episode of that root seed, one without draws the next seed from the last one. There is no
`state()`: an environment shows what its seats see, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

from arena.env import EnvSpec, SeatSpec
from arena.errors import InvalidActionError, ResetNeededError, UnsupportedError, UsageError
from arena.rendering import observation_text
from arena.types import AgentID, SeatStep
from arena.views.sessions import OpenSession, Portable, ViewedSession, copied, mask_of, seat_info

Transition: TypeAlias = tuple[
    dict[AgentID, Any], dict[AgentID, float], dict[AgentID, bool], dict[AgentID, bool], dict[AgentID, dict[str, Any]]
]
"""Observations, rewards, terminations, truncations and infos of the seats that were alive before a step."""

Api: TypeAlias = Literal["aec", "parallel"]

__all__ = ["Api", "ParallelView", "TurnsView", "view"]


def view(
    spec: EnvSpec, seats: Mapping[AgentID, SeatSpec], open_session: OpenSession, api: Api | None = None
) -> TurnsView | ParallelView:
    """Return a view.

    Args:
        spec: What the environment declares.
        seats: Its seats.
        open_session: Begins an episode.
        api: ``aec`` or ``parallel``; where None, parallel where seats act at once, else in turns.

    Raises:
        UnsupportedError: A seat acts through tools only.
        UsageError: There is no such form.
    """
    api = api or ("parallel" if spec.play == "simultaneous" else "aec")
    if api not in ("aec", "parallel"):
        raise UsageError(f"api is {api!r}; allowed are 'aec' and 'parallel'")
    return (ParallelView if api == "parallel" else TurnsView)(spec, seats, open_session)


class _Shown:
    """How a seat's steps are shown.

    Args:
        spec: What the environment declares.
        agent: The seat.
        seat: Its spaces.
    """

    def __init__(self, spec: EnvSpec, agent: AgentID, seat: SeatSpec) -> None:
        if seat.action_space is None:
            raise UnsupportedError(f"{agent} in {spec.id} acts through tools only, for which there is no action space")
        self.action_space = space = seat.action_space
        self._space = self.observation_space = seat.observation_space
        self._masked = spec.legal_actions == "all" and isinstance(space, spaces.Discrete)
        if self._masked:
            mask: spaces.Box[Any] = spaces.Box(0, 1, (int(space.n),), np.int8)  # type: ignore[attr-defined,arg-type]
            self.observation_space = spaces.Dict({"observation": self._space, "action_mask": mask})

    def observation(self, step: SeatStep, acts: bool) -> Any:
        """Return what the seat observes, its reader's own."""
        shown = copied(self._space, step.observation)
        if not self._masked:
            return shown
        legal = step.legal_actions or () if acts else ()
        return {"observation": shown, "action_mask": mask_of(legal, self.action_space)}  # type: ignore[arg-type]

    def info(self, step: SeatStep, **further: Any) -> dict[str, Any]:
        """Return the seat's info dictionary."""
        return seat_info(step, self.action_space, **further)


class _Seats(Portable):
    """What both views share: spaces, seeds, and the session that is being played."""

    def __init__(self, spec: EnvSpec, seats: Mapping[AgentID, SeatSpec], open_session: OpenSession) -> None:
        self._shown = {agent: _Shown(spec, agent, seat) for agent, seat in seats.items()}
        self.metadata: dict[str, Any] = {
            "name": spec.id,
            "render_modes": ["ansi"],
            "is_parallelizable": spec.play == "simultaneous",
        }
        self.render_mode: str | None = "ansi"
        self.declared = spec
        self.possible_agents = list(seats)
        self.agents: list[AgentID] = []
        self.observation_spaces = {agent: shown.observation_space for agent, shown in self._shown.items()}
        self.action_spaces = {agent: shown.action_space for agent, shown in self._shown.items()}
        self._open_session = open_session
        self._session: ViewedSession | None = None
        self._rng = np.random.default_rng()

    def observation_space(self, agent: AgentID) -> spaces.Space[Any]:
        """Return the space of a seat's observations: always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: AgentID) -> spaces.Space[Any]:
        """Return the space of a seat's actions: always the same object."""
        return self.action_spaces[agent]

    def render(self) -> str:
        """Return the latest observations as text, a seat each line."""
        if self._session is None:
            return ""
        return "\n".join(f"{agent}: {observation_text(step.observation)}" for agent, step in self._latest().items())

    def close(self) -> None:
        """End the episode."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _begin(self, seed: int | None) -> None:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        root = int(self._rng.integers(2**31)) if seed is None else seed
        self.close()
        self._session = self._open_session(root)
        seats = self._latest()
        self.agents = [agent for agent in self.possible_agents if agent in seats]

    def _running(self) -> ViewedSession:
        if self._session is None:
            raise ResetNeededError("no episode has begun; call reset first")
        return self._session

    def _latest(self) -> Mapping[AgentID, SeatStep]:
        return self._running().journal[-1].time_step.seats

    def _take(self, actions: Mapping[AgentID, Any]) -> dict[AgentID, str]:
        """Take a step and return why it was refused, for the seat whose action was at fault; empty if it was not."""
        session = self._running()
        due = session.acting
        try:
            session.step(len(session.journal), actions)
        except InvalidActionError as error:
            return dict.fromkeys([agent] if (agent := error.details.get("agent")) else due, str(error))
        return {}

    def _infos(self, agents: list[AgentID], refused: Mapping[AgentID, str]) -> dict[AgentID, dict[str, Any]]:
        latest, further = self._latest(), self._whose_turn()
        return {
            agent: self._shown[agent].info(
                latest[agent], **further, **({"refused": refused[agent]} if agent in refused else {})
            )
            for agent in agents
        }

    def _observation(self, agent: AgentID) -> Any:
        session = self._running()
        return self._shown[agent].observation(self._latest()[agent], agent in session.acting)

    def _whose_turn(self) -> dict[str, Any]:
        return {}


class ParallelView(_Seats, ParallelEnv[AgentID, Any, Any]):  # type: ignore[misc]
    """An environment with PettingZoo's parallel interface."""

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[AgentID, Any], dict[AgentID, dict[str, Any]]]:
        """Begin an episode; options are ignored."""
        self._begin(seed)
        return {agent: self._observation(agent) for agent in self.agents}, self._infos(self.agents, {})

    def step(self, actions: dict[AgentID, Any]) -> Transition:
        """Take a step with an action of every live seat.

        Raises:
            InvalidActionError: The action of a seat that is to act is missing; nothing has changed.
        """
        alive = self.agents
        if not alive:
            return {}, {}, {}, {}, {}
        due = self._running().acting
        missing = [agent for agent in due if agent not in actions]
        if missing:
            raise InvalidActionError(f"actions came from {', '.join(actions) or 'nobody'}; due are {', '.join(due)}")
        refused = self._take({agent: actions[agent] for agent in due})
        latest = self._latest()
        self.agents = [agent for agent in alive if not latest[agent].is_last]
        return (
            {agent: self._observation(agent) for agent in alive},
            {agent: 0.0 if refused else latest[agent].reward for agent in alive},
            {agent: latest[agent].terminated for agent in alive},
            {agent: latest[agent].truncated for agent in alive},
            self._infos(alive, refused),
        )

    def _whose_turn(self) -> dict[str, Any]:
        acting = self._running().acting
        return {"active_agent": acting[0]} if acting and self.declared.play == "turns" else {}


class TurnsView(_Seats, AECEnv[AgentID, Any, Any]):  # type: ignore[misc]
    """An environment with PettingZoo's agent-environment-cycle interface."""

    agent_selection: AgentID

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin an episode; options are ignored."""
        self._begin(seed)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self._skip_agent_selection = None
        self._actions: dict[AgentID, Any] = {}
        self._last: dict[AgentID, Any] = {}
        self.terminations: dict[AgentID, bool] = {}
        self.truncations: dict[AgentID, bool] = {}
        self.infos: dict[AgentID, dict[str, Any]] = {}
        self._show({})

    def step(self, action: Any) -> None:
        """Play the seat in `agent_selection`; a seat that is over takes None and leaves."""
        session = self._running()
        if not self.agents:
            raise ResetNeededError("the episode is over; call reset first")
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        self._actions[agent] = action
        waiting = [other for other in session.acting if other not in self._actions]
        if waiting:
            self.agent_selection = waiting[0]
            return
        actions, self._actions = self._actions, {}
        refused = self._take(actions)
        self._show(refused)
        self._accumulate_rewards()
        self._deads_step_first()

    def observe(self, agent: AgentID) -> Any:
        """Return a seat's latest observation: a new one each time."""
        step, acts = self._last[agent]
        return self._shown[agent].observation(step, acts)

    def _show(self, refused: Mapping[AgentID, str]) -> None:
        """Show the latest step, without rewards where it is the one before a refused action."""
        acting, latest = self._running().acting, self._latest()
        alive = [agent for agent in self.agents if agent in latest]
        for agent in alive:
            step = latest[agent]
            self._last[agent] = step, agent in acting
            self.rewards[agent] = 0.0 if refused else step.reward
            self.terminations[agent], self.truncations[agent] = step.terminated, step.truncated
        self.infos |= self._infos(alive, refused)
        if acting:
            self.agent_selection = acting[0]

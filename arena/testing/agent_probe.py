"""What the clauses of the agent contract examine: an agent, and episodes that it plays in an environment's seats."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from arena.agent import Agent, AgentSpec, Seat
from arena.env import Environment
from arena.errors import InvalidActionError
from arena.session import Session
from arena.testing.verdicts import broken
from arena.types import Action, AgentID, Decision, Limits, SeatStep, Task, as_action, encode_msgpack

__all__ = ["AgentProbe", "Play"]

T = TypeVar("T")


@dataclass(slots=True)
class Play:
    """An episode that agents played.

    Attributes:
        decisions: What they returned, in order, seat by seat.
        actions: The actions in it, encoded.
        asked: How often the expert was asked.
        refusals: Why actions were refused.
        changed: Seats whose agent changed the step that it was given.
        told: Index of the latest step that the seats which do not act were told.
    """

    decisions: list[Action | Decision] = field(default_factory=list)
    actions: list[bytes] = field(default_factory=list)
    asked: int = 0
    refusals: list[str] = field(default_factory=list)
    changed: list[AgentID] = field(default_factory=list)
    told: int = 0

    def note(self, decision: Action | Decision) -> Action:
        """Take note of a decision and return its action."""
        self.decisions.append(decision)
        action = as_action(decision.action if isinstance(decision, Decision) else decision)
        self.actions.append(encode_msgpack(action))
        return action


class AgentProbe:
    """Factories of an agent and of an environment, and episodes played with them.

    Args:
        agent: Returns a new agent.
        env: Returns a new environment.
        seeds: Seeds of the episodes.
        max_steps: Most steps of one episode.
    """

    def __init__(
        self, agent: Callable[[], Agent], env: Callable[[], Environment], seeds: Sequence[int], max_steps: int
    ) -> None:
        self._agent, self._env = agent, env
        self.seeds, self.max_steps = tuple(seeds), max_steps
        self._runner = asyncio.Runner()
        self._agents: list[Agent] = []
        self._sessions: list[Session] = []
        self.spec: AgentSpec = self.fresh().spec

    def fresh(self) -> Agent:
        """Return a new agent, closed by the next `sweep`."""
        agent = self._agent()
        self._agents.append(agent)
        return agent

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine; all run in one event loop."""
        return self._runner.run(coroutine)

    def sweep(self) -> None:
        """Close what was made."""
        while self._agents:
            self.run(self._agents.pop().close())
        while self._sessions:
            self._sessions.pop().close()

    def close(self) -> None:
        """Close the event loop."""
        self._runner.close()

    @cached_property
    def task(self) -> Task:
        """The task that is played."""
        env = self._env()
        try:
            return env.taskset(env.spec.splits[0]).sample(1, self.seeds[0])[0]
        finally:
            env.close()

    @cached_property
    def plays(self) -> list[Play]:
        """An episode of every seed, each played by new agents."""
        return [self.play(seed) for seed in self.seeds]

    def open(self, seed: int) -> Session:
        """Return a session after its first step, closed by the next `sweep`."""
        session = Session(self._env(), self.task, seed, limits=Limits(steps=self.max_steps, invalid_actions=3))
        self._sessions.append(session)
        session.open()
        return session

    def seats(self, session: Session, play: Play) -> dict[AgentID, Seat]:
        """Return the seats of a session; the expert is at hand exactly where the agent declares that it needs one."""
        return {agent: self._seat(session, play, agent) for agent in session.env.possible_agents}

    def _seat(self, session: Session, play: Play, agent: AgentID) -> Seat:
        def expert() -> Action:
            play.asked += 1
            if not self.spec.needs_expert:
                broken("the agent asked the expert and does not declare needs_expert")
            return session.expert_action(agent)

        env = session.env
        return Seat(agent, env.spec, env.seat(agent), session.task, session.seed, expert)

    def play(self, seed: int, agents: Mapping[AgentID, Agent] | None = None, stop: int | None = None) -> Play:
        """Play an episode.

        Args:
            seed: The seed.
            agents: Who sits where; new agents where None.
            stop: Leave after so many steps; play to the end where None.
        """
        session, play = self.open(seed), Play()
        seats = self.seats(session, play)
        agents = {agent: self.fresh() for agent in seats} if agents is None else agents
        for agent, seat in seats.items():
            agents[agent].begin(seat)
        while session.status == "running" and (stop is None or len(session.journal) <= stop):
            self.step(session, agents, play)
        if session.status == "over":
            for agent, step in session.journal[-1].time_step.seats.items():
                agents[agent].observe(step)
        return play

    def step(self, session: Session, agents: Mapping[AgentID, Agent], play: Play) -> None:
        """Ask every acting agent, tell every other one, and take the step."""
        index, now = len(session.journal), session.journal[-1].time_step
        for agent, step in now.seats.items():
            if agent not in now.acting and play.told < index:
                agents[agent].observe(step)
        play.told = index
        actions = {agent: self.ask(agents[agent], agent, now.seats[agent], play) for agent in now.acting}
        try:
            session.step(index, actions)
        except InvalidActionError as error:
            play.refusals.append(str(error))
            for agent in now.acting:
                agents[agent].refuse(error)

    def ask(self, agent: Agent, name: AgentID, step: SeatStep, play: Play) -> Action:
        """Return an agent's action, waiting for it where need be."""
        before = encode_msgpack(step)
        action = play.note(self.run(_decide(agent, step)))
        if encode_msgpack(step) != before:
            play.changed.append(name)
        return action


async def _decide(agent: Agent, step: SeatStep) -> Action | Decision:
    decision = agent.act(step)
    return await decision if inspect.isawaitable(decision) else decision

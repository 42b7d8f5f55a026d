"""The agent contract as a runnable suite.

`check_agent` runs every promise of `arena.agent` on any agent, in the seats of an environment that it can play. Each
clause is one function, named for the promise whose sentence is its docstring, as in `arena.testing.env_contract`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from arena.agent import Agent, AgentSpec, Seat
from arena.env import Environment
from arena.errors import ConfigError, InvalidActionError
from arena.registry import make_agent, parse_options
from arena.session import Session
from arena.testing.env_contract import (
    EnvFactory,
    NotApplicable,
    Report,
    broken,
    global_rng_seeded,
    global_rng_state,
    refuses_unknown_option,
    resolve_env,
    run_clauses,
)
from arena.types import (
    Action,
    AgentID,
    Decision,
    Limits,
    SeatStep,
    Task,
    Usage,
    as_action,
    decode_json,
    encode_json,
    encode_msgpack,
)

__all__ = ["CLAUSES", "AgentFactory", "check_agent"]

AgentFactory: TypeAlias = str | Callable[[], Agent]
"""An id, a class, or a function that returns a new agent every time."""

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


class Probe:
    """What the clauses examine: factories of an agent and of an environment, and episodes played with them.

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
            self._step(session, agents, play)
        if session.status == "over":
            for agent, step in session.journal[-1].time_step.seats.items():
                agents[agent].observe(step)
        return play

    def _step(self, session: Session, agents: Mapping[AgentID, Agent], play: Play) -> None:
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

    def need(self, declared: bool, why: str) -> None:
        """Declare the clause not applicable unless something is declared."""
        if not declared:
            raise NotApplicable(why)


async def _decide(agent: Agent, step: SeatStep) -> Action | Decision:
    decision = agent.act(step)
    return await decision if inspect.isawaitable(decision) else decision


def check_agent(
    agent_id_or_factory: AgentFactory,
    *,
    env: EnvFactory,
    options: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 40,
) -> Report:
    """Return the report of running every clause of the agent contract.

    It runs an event loop of its own, so call it from synchronous code.

    Args:
        agent_id_or_factory: An id, a class, or a function without arguments that returns a new agent every time.
        env: What it plays, in every seat: an environment's id, a class, or a function that makes one.
        options: The agent's options, for an id or a class.
        seeds: The seeds to play, at least one.
        max_steps: Most steps of one episode.

    Raises:
        UnknownIdError: No such agent or environment.
        ConfigError: The options are wrong.
    """
    probe = Probe(_resolve_agent(agent_id_or_factory, options), resolve_env(env, None), seeds, max_steps)
    try:
        return run_clauses(probe.spec.id, CLAUSES, probe)
    finally:
        probe.close()


def _resolve_agent(agent_id_or_factory: AgentFactory, options: Mapping[str, Any] | None) -> Callable[[], Agent]:
    if isinstance(agent_id_or_factory, str):
        agent_id = agent_id_or_factory
        return lambda: make_agent(agent_id, options)
    if isinstance(agent_id_or_factory, type):
        cls: type[Agent] = agent_id_or_factory
        return lambda: cls(parse_options(cls.spec.id, cls.Options, options or {}))
    if options is not None:
        raise ConfigError("options go with an id or a class; a function makes its agent with options of its own")
    return agent_id_or_factory


CLAUSES: dict[str, Callable[[Probe], None]] = {}
"""The clauses of the agent contract by name, in order."""


def _clause(function: Callable[[Probe], None]) -> Callable[[Probe], None]:
    CLAUSES[function.__name__] = function
    return function


# -- the declaration --------------------------------------------------------------------------------------------------


@_clause
def summary_is_one_sentence(probe: Probe) -> None:
    """One sentence."""
    summary = probe.spec.summary
    if not summary.strip() or "\n" in summary or not summary.endswith("."):
        broken(f"the summary is {summary!r}; it must be one sentence on one line, with a full stop")


@_clause
def options_are_described(probe: Probe) -> None:
    """The options' model: each field described."""
    for name, info in probe.fresh().Options.model_fields.items():
        if not (info.description or "").strip():
            broken(f"option {name!r} has no description")


@_clause
def unknown_option_is_refused(probe: Probe) -> None:
    """Unknown names refused."""
    refuses_unknown_option(probe.spec.id, probe.fresh().Options)


@_clause
def options_survive_json(probe: Probe) -> None:
    """An agent by id and options, as a trace holds it."""
    agent = probe.fresh()
    again = parse_options(probe.spec.id, agent.Options, agent.options.model_dump(mode="json"))
    if again != agent.options:
        broken(f"the options {agent.options!r} came back from JSON as {again!r}")


# -- acting -----------------------------------------------------------------------------------------------------------


@_clause
def actions_are_legal(probe: Probe) -> None:
    """Return the action for this step."""
    for play in probe.plays:
        if not play.actions:
            broken("the agent was never asked for an action")
        if play.refusals:
            broken(f"an action was refused: {play.refusals[0]}")


@_clause
def decisions_can_be_recorded(probe: Probe) -> None:
    """Recorded in the trace: the raw completion, log-probabilities, the reasoning."""
    for play in probe.plays:
        for decision in play.decisions:
            if isinstance(decision, Decision) and decode_json(encode_json(decision.info)) != decision.info:
                broken(f"the decision's info does not come back from JSON as it was: {decision.info!r:.300}")


@_clause
def usage_is_not_negative(probe: Probe) -> None:
    """What deciding cost."""
    for play in probe.plays:
        for decision in play.decisions:
            if isinstance(decision, Decision) and decision.usage is not None:
                _check_usage(decision.usage)


def _check_usage(usage: Usage) -> None:
    for name in usage.__struct_fields__:
        value = getattr(usage, name)
        if not (math.isfinite(value) and value >= 0):
            broken(f"usage has {name} {value}; it must be 0 or more")


@_clause
def same_seat_seed_and_steps_give_same_actions(probe: Probe) -> None:
    """The same seat, seed and steps give the same actions."""
    _need_deterministic(probe)
    for seed, play in zip(probe.seeds, probe.plays, strict=True):
        _same("new agents", play, probe.play(seed))


def _need_deterministic(probe: Probe) -> None:
    probe.need(probe.spec.deterministic, "it is not deterministic")


def _same(what: str, expected: Play, got: Play) -> None:
    for index, (a, b) in enumerate(zip(expected.actions, got.actions, strict=False)):
        if a != b:
            broken(f"{what} chose {b!r:.100} as action {index}, where {a!r:.100} was chosen before")
    if len(expected.actions) != len(got.actions):
        broken(f"{what} chose {len(got.actions)} actions, where {len(expected.actions)} were chosen before")


@_clause
def step_is_not_changed(probe: Probe) -> None:
    """What one seat is given at one time step: frozen."""
    for play in probe.plays:
        if play.changed:
            broken(f"the agent in seat {play.changed[0]!r} changed the step that it was given")


@_clause
def task_is_not_changed(probe: Probe) -> None:
    """The task: frozen."""
    before = encode_msgpack(probe.task)
    probe.play(probe.seeds[0])
    if encode_msgpack(probe.task) != before:
        broken("the agent changed the task's data")


# -- one episode after the other --------------------------------------------------------------------------------------


@_clause
def begin_forgets_the_last_episode(probe: Probe) -> None:
    """Take a seat in a new episode and forget the last one."""
    _need_deterministic(probe)
    agents = {agent: probe.fresh() for agent in probe.open(probe.seeds[0]).env.possible_agents}
    for seed, play in [*zip(probe.seeds, probe.plays, strict=True), (probe.seeds[0], probe.plays[0])]:
        _same("agents that have played before", play, probe.play(seed, agents))


@_clause
def begin_leaves_an_unfinished_episode(probe: Probe) -> None:
    """Take a seat in a new episode: the last one need not be over."""
    _need_deterministic(probe)
    agents = {agent: probe.fresh() for agent in probe.open(probe.seeds[0]).env.possible_agents}
    for seed in probe.seeds:
        probe.play(seed, agents, stop=1)
    _same("agents that left an episode", probe.plays[0], probe.play(probe.seeds[0], agents))


@_clause
def instances_are_independent(probe: Probe) -> None:
    """Who plays one seat, one episode at a time: another instance's episode does not enter it."""
    _need_deterministic(probe)
    session, play = probe.open(probe.seeds[0]), Play()
    agents = {}
    for name, seat in probe.seats(session, play).items():
        agents[name] = probe.fresh()
        agents[name].begin(seat)
    while session.status == "running":
        probe.play(probe.seeds[-1], stop=2)
        probe._step(session, agents, play)
    _same("agents beside others", probe.plays[0], play)


@_clause
def refused_agent_acts_again(probe: Probe) -> None:
    """Take note that the last action was refused; `act` follows with the same step."""
    session, play = probe.open(probe.seeds[0]), Play()
    name = session.acting[0]
    agent, step = probe.fresh(), session.journal[-1].time_step.seats[name]
    agent.begin(probe.seats(session, play)[name])
    probe.ask(agent, name, step, play)
    for _ in range(2):
        agent.refuse(InvalidActionError("that is not legal now (legal: something else)"))
        probe.ask(agent, name, step, play)


@_clause
def observe_is_accepted_at_any_time(probe: Probe) -> None:
    """Take note of a step to which this seat does not answer."""
    session, play = probe.open(probe.seeds[0]), Play()
    name = session.acting[0]
    agent, step = probe.fresh(), session.journal[-1].time_step.seats[name]
    agent.begin(probe.seats(session, play)[name])
    agent.observe(step)
    probe.ask(agent, name, step, play)
    session.truncate("wall_time", 1.0, 1.0)
    agent.observe(session.journal[-1].time_step.seats[name])


@_clause
def needs_expert_is_honest(probe: Probe) -> None:
    """It plays `Seat.expert`, so only environments with an expert will do; nobody else may call it."""
    asked = sum(play.asked for play in probe.plays)
    if probe.spec.needs_expert and not asked:
        broken("needs_expert is declared, and the expert was never asked")
    if asked and not probe.spec.needs_expert:
        broken("the agent asked the expert and does not declare needs_expert")


# -- care -------------------------------------------------------------------------------------------------------------


@contextmanager
def _left_alone() -> Iterator[None]:
    before = global_rng_state()
    yield
    if global_rng_state() != before:
        broken("an episode changed the state of the global generators `random` or `numpy.random`")


@_clause
def global_generators_are_left_alone(probe: Probe) -> None:
    """Draw from `rng`, which is the stream ``agent:<seat>``: not from a global generator."""
    with _left_alone():
        for seed in probe.seeds:
            probe.play(seed)


@_clause
def global_generators_decide_nothing(probe: Probe) -> None:
    """Draw from `rng`, which is the stream ``agent:<seat>``: seeding the global generators changes nothing."""
    _need_deterministic(probe)
    for seed in (1, 2):
        with global_rng_seeded(seed):
            _same("with other seeds of the global generators, agents", probe.plays[0], probe.play(probe.seeds[0]))


@_clause
def close_is_safe_twice(probe: Probe) -> None:
    """Free everything that the agent holds; safe to call twice."""
    for stop in (None, 1):
        agents = {agent: probe.fresh() for agent in probe.open(probe.seeds[0]).env.possible_agents}
        if stop is not None:
            probe.play(probe.seeds[0], agents, stop=stop)
        for agent in agents.values():
            probe.run(agent.close())
            probe.run(agent.close())

"""The clauses of the agent contract: the declaration, acting, one episode after the other, and care."""

from __future__ import annotations

import math

from arena.agent import Agent
from arena.errors import InvalidActionError
from arena.session import Session
from arena.testing.agent_probe import AgentProbe, Play
from arena.testing.declaration_clauses import (
    options_are_described,
    options_survive_json,
    summary_is_one_sentence,
    unknown_option_is_refused,
)
from arena.testing.global_generators import generators_left_alone, generators_seeded
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, need_deterministic
from arena.types import AgentID, Decision, Usage, decode_json, encode_json, encode_msgpack

__all__ = ["CLAUSES"]

CLAUSES = Clauses[AgentProbe]()
"""The clauses of the agent contract by name, in order."""

CLAUSES.add(summary_is_one_sentence)
CLAUSES.add(options_are_described)
CLAUSES.add(unknown_option_is_refused)
CLAUSES.add(options_survive_json)


# -- acting -----------------------------------------------------------------------------------------------------------


@CLAUSES.add
def actions_are_legal(probe: AgentProbe) -> None:
    """Return the action for this step."""
    for play in probe.plays:
        if not play.actions:
            broken("the agent was never asked for an action")
        if play.refusals:
            broken(f"an action was refused: {play.refusals[0]}")


@CLAUSES.add
def decisions_can_be_recorded(probe: AgentProbe) -> None:
    """Recorded in the trace: the raw completion, log-probabilities, the reasoning."""
    for play in probe.plays:
        for decision in play.decisions:
            if isinstance(decision, Decision) and decode_json(encode_json(decision.info)) != decision.info:
                broken(f"the decision's info does not come back from JSON as it was: {decision.info!r:.300}")


@CLAUSES.add
def usage_is_not_negative(probe: AgentProbe) -> None:
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


@CLAUSES.add
def same_seat_seed_and_steps_give_same_actions(probe: AgentProbe) -> None:
    """The same seat, seed and steps give the same actions."""
    need_deterministic(probe.spec)
    for seed, play in zip(probe.seeds, probe.plays, strict=True):
        _same("new agents", play, probe.play(seed))


def _same(what: str, expected: Play, got: Play) -> None:
    for index, (a, b) in enumerate(zip(expected.actions, got.actions, strict=False)):
        if a != b:
            broken(f"{what} chose {b!r:.100} as action {index}, where {a!r:.100} was chosen before")
    if len(expected.actions) != len(got.actions):
        broken(f"{what} chose {len(got.actions)} actions, where {len(expected.actions)} were chosen before")


@CLAUSES.add
def step_is_not_changed(probe: AgentProbe) -> None:
    """What one seat is given at one time step: frozen."""
    for play in probe.plays:
        if play.changed:
            broken(f"the agent in seat {play.changed[0]!r} changed the step that it was given")


@CLAUSES.add
def task_is_not_changed(probe: AgentProbe) -> None:
    """The task: frozen."""
    before = encode_msgpack(probe.task)
    probe.play(probe.seeds[0])
    if encode_msgpack(probe.task) != before:
        broken("the agent changed the task's data")


# -- one episode after the other --------------------------------------------------------------------------------------


def _one_for_each_seat(probe: AgentProbe) -> dict[AgentID, Agent]:
    """Return a new agent for every seat."""
    return {agent: probe.fresh() for agent in probe.open(probe.seeds[0]).env.possible_agents}


@CLAUSES.add
def begin_forgets_the_last_episode(probe: AgentProbe) -> None:
    """Take a seat in a new episode and forget the last one."""
    need_deterministic(probe.spec)
    agents = _one_for_each_seat(probe)
    for seed, play in [*zip(probe.seeds, probe.plays, strict=True), (probe.seeds[0], probe.plays[0])]:
        _same("agents that have played before", play, probe.play(seed, agents))


@CLAUSES.add
def begin_leaves_an_unfinished_episode(probe: AgentProbe) -> None:
    """Take a seat in a new episode: the last one need not be over."""
    need_deterministic(probe.spec)
    agents = _one_for_each_seat(probe)
    for seed in probe.seeds:
        probe.play(seed, agents, stop=1)
    _same("agents that left an episode", probe.plays[0], probe.play(probe.seeds[0], agents))


@CLAUSES.add
def instances_are_independent(probe: AgentProbe) -> None:
    """Who plays one seat, one episode at a time: another instance's episode does not enter it."""
    need_deterministic(probe.spec)
    session, play = probe.open(probe.seeds[0]), Play()
    agents = {}
    for name, seat in probe.seats(session, play).items():
        agents[name] = probe.fresh()
        agents[name].begin(seat)
    while session.status == "running":
        probe.play(probe.seeds[-1], stop=2)
        probe.step(session, agents, play)
    _same("agents beside others", probe.plays[0], play)


@CLAUSES.add
def refused_agent_acts_again(probe: AgentProbe) -> None:
    """Take note that the last action was refused; `act` follows with the same step."""
    session, name, agent = _seated(probe)
    step = session.journal[-1].time_step.seats[name]
    probe.ask(agent, name, step, Play())
    for _ in range(2):
        agent.refuse(InvalidActionError("that is not legal now (legal: something else)"))
        probe.ask(agent, name, step, Play())


@CLAUSES.add
def observe_is_accepted_at_any_time(probe: AgentProbe) -> None:
    """Take note of a step to which this seat does not answer."""
    session, name, agent = _seated(probe)
    step = session.journal[-1].time_step.seats[name]
    agent.observe(step)
    probe.ask(agent, name, step, Play())
    session.truncate("wall_time", 1.0, 1.0)
    agent.observe(session.journal[-1].time_step.seats[name])


def _seated(probe: AgentProbe) -> tuple[Session, AgentID, Agent]:
    """Return a session, the seat that acts first, and a new agent in it."""
    session = probe.open(probe.seeds[0])
    name, agent = session.acting[0], probe.fresh()
    agent.begin(probe.seats(session, Play())[name])
    return session, name, agent


@CLAUSES.add
def needs_expert_is_honest(probe: AgentProbe) -> None:
    """It plays `Seat.expert`, so only environments with an expert will do; nobody else may call it."""
    asked = sum(play.asked for play in probe.plays)
    if probe.spec.needs_expert and not asked:
        broken("needs_expert is declared, and the expert was never asked")
    if asked and not probe.spec.needs_expert:
        broken("the agent asked the expert and does not declare needs_expert")


# -- care -------------------------------------------------------------------------------------------------------------


@CLAUSES.add
def global_generators_are_left_alone(probe: AgentProbe) -> None:
    """Draw from `rng`, which is the stream ``agent:<seat>``: not from a global generator."""
    with generators_left_alone():
        for seed in probe.seeds:
            probe.play(seed)


@CLAUSES.add
def global_generators_decide_nothing(probe: AgentProbe) -> None:
    """Draw from `rng`, which is the stream ``agent:<seat>``: seeding the global generators changes nothing."""
    need_deterministic(probe.spec)
    for seed in (1, 2):
        with generators_seeded(seed):
            _same("with other seeds of the global generators, agents", probe.plays[0], probe.play(probe.seeds[0]))


@CLAUSES.add
def close_is_safe_twice(probe: AgentProbe) -> None:
    """Free everything that the agent holds; safe to call twice."""
    for stop in (None, 1):
        agents = _one_for_each_seat(probe)
        if stop is not None:
            probe.play(probe.seeds[0], agents, stop=stop)
        for agent in agents.values():
            probe.run(agent.close())
            probe.run(agent.close())

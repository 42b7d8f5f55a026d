"""The expert, where there is one."""

from __future__ import annotations

from typing import Any

from arena.env import Environment
from arena.errors import UnsupportedError
from arena.legality import check_action
from arena.testing.env_clauses.score import scored
from arena.testing.env_probe import EnvProbe
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, must_refuse, need, need_deterministic, short
from arena.types import AgentID, TimeStep, encode_msgpack

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def expert_gives_legal_actions(probe: EnvProbe) -> None:
    """Return a good action for the seat now."""
    need(probe.spec.expert, "no expert is declared")
    seats = probe.seats()
    for run in probe.expert_runs:
        if run.refused:
            broken(f"the expert's action {short(run.refused[0][1])} was refused")
        for now, actions in zip(run.steps, run.actions, strict=False):
            for agent, action in actions.items():
                check_action(agent, seats[agent], now.seats[agent], action, listed=probe.spec.legal_actions)


@CLAUSES.add
def expert_does_no_worse_than_chance(probe: EnvProbe) -> None:
    """Return a good action: over all episodes a lone expert's score is at least that of random play."""
    need(probe.spec.expert, "no expert is declared")
    need(probe.spec.play == "single", "the score is not one seat's alone")
    expert, chance = (sum(scored(run).value for run in runs) for runs in (probe.expert_runs, probe.runs))
    if expert < chance:
        broken(f"the expert's scores add up to {expert}, those of random play to {chance}")


@CLAUSES.add
def expert_changes_nothing(probe: EnvProbe) -> None:
    """Return a good action for the seat now, without changing anything."""
    need(probe.spec.expert, "no expert is declared")
    need_deterministic(probe.spec)
    for run in probe.runs:
        env = probe.fresh()
        answers = [encode_msgpack(now := env.reset(run.task, run.seed))]
        for index, actions in enumerate(run.actions):
            asked = [_ask(env, now) for _ in range(2)]
            if asked[0] != asked[1]:
                broken(f"the expert was asked twice before step {index + 1} and said {asked[0]}, then {asked[1]}")
            answers.append(encode_msgpack(now := env.step(actions)))
        run.must_equal("with the expert asked before each step", answers, env)


def _ask(env: Environment, now: TimeStep) -> list[Any]:
    """Return the expert's action for every acting seat; None where it does not know how to go on."""

    def one(agent: AgentID) -> Any:
        try:
            return env.expert_action(agent)
        except UnsupportedError:
            return None

    return [one(agent) for agent in now.acting]


@CLAUSES.add
def experts_are_told_apart_by_name(probe: EnvProbe) -> None:
    """Names of its experts where there are several; the first one is asked where none is named."""
    names = probe.spec.experts
    need(bool(names), "no names of experts are declared")
    if not probe.spec.expert or len(names) < 2 or len(set(names)) != len(names) or not all(names):
        broken(f"experts is {names} and expert is {probe.spec.expert}; name several experts, each once, or none")
    env, now = probe.begun()
    agent = now.acting[0]
    if env.expert_action(agent) != env.expert_action(agent, names[0]):
        broken(f"the expert that is asked where none is named is not the first one, {names[0]!r}")


@CLAUSES.add
def undeclared_expert_is_refused(probe: EnvProbe) -> None:
    """Raises UnsupportedError: there is no expert."""
    need(not probe.spec.expert, "an expert is declared")
    env, now = probe.begun()
    with must_refuse(UnsupportedError, "expert_action"):
        env.expert_action(now.acting[0])

"""What is legal is listed as declared and accepted; what is not is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from arena.env import Environment
from arena.errors import InvalidActionError, ResetNeededError
from arena.legality import check_action
from arena.sampling import sample_element
from arena.seeding import stream
from arena.session import Session
from arena.testing.env_probe import MAX_DRAWS, EnvProbe, Run, Seats, at_random, take_steps
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, must_refuse, need, need_deterministic, short
from arena.types import Action, AgentID, Limits, Task, TimeStep, ToolCall

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def legal_actions_are_listed_as_declared(probe: EnvProbe) -> None:
    """``none`` are listed, ``some`` are (others are accepted too), or ``all`` (others are refused)."""
    listed = probe.spec.legal_actions
    for run in probe.seen:
        for index, now in enumerate(run.steps):
            for agent in now.acting:
                legal = now.seats[agent].legal_actions
                if (legal is not None) != (listed == "all") and not (listed == "some" and legal):
                    broken(f"legal_actions is {listed!r}; at step {index} {agent} is given {short(legal)}")
                if legal is not None and (not legal or len(set(legal)) != len(legal)):
                    broken(f"at step {index} the list of {agent}'s legal actions is empty or repeats: {short(legal)}")


@CLAUSES.add
def listed_actions_are_legal(probe: EnvProbe) -> None:
    """Text actions or discrete choices that are legal now, where the environment lists them."""
    need(probe.spec.legal_actions != "none", "none are listed")
    seats = probe.seats()
    for run in probe.seen:
        for now in run.steps:
            for agent in now.acting:
                for action in now.seats[agent].legal_actions or ():
                    check_action(agent, seats[agent], now.seats[agent], action, listed=probe.spec.legal_actions)


@CLAUSES.add
def listed_actions_are_accepted(probe: EnvProbe) -> None:
    """Text actions or discrete choices that are legal now: `step` accepts each of them."""
    need(probe.spec.legal_actions != "none", "none are listed")
    for run in probe.runs:
        for now, actions in run.refused:
            if all(action in (now.seats[agent].legal_actions or ()) for agent, action in actions.items()):
                broken(f"{short(actions)} was refused although listed")
    run = probe.longest
    agent = run.steps[0].acting[0]
    for action in (run.steps[0].seats[agent].legal_actions or ())[:MAX_DRAWS]:
        env = probe.fresh()
        now = env.reset(run.task, run.seed)
        others = {a: (now.seats[a].legal_actions or (None,))[0] for a in now.acting if a != agent}
        if None not in others.values():
            env.step({**others, agent: action})  # type: ignore[dict-item]


@CLAUSES.add
def unlisted_action_is_refused(probe: EnvProbe) -> None:
    """``all`` (others are refused)."""
    need(probe.spec.legal_actions == "all", "not all are listed")
    tried = 0
    for session, script in _at_every_step(probe):
        for agent, action in _unlisted(session, stream(len(session.journal), "policy")):
            tried += 1
            with must_refuse(InvalidActionError, f"{short(action)} of {agent}, which is not listed,"):
                session.step(len(session.journal), {**script, agent: action})
    need(tried > 0, "every element of the action space was listed")


def _at_every_step(probe: EnvProbe) -> Iterator[tuple[Session, dict[AgentID, Action]]]:
    """Yield a session before each step of the longest run, with the actions that will be taken."""
    run = probe.longest
    session = probe.session(run.task, run.seed, Limits(invalid_actions=None))
    for actions in run.actions[:MAX_DRAWS]:
        if session.status == "running" and set(actions) == set(session.acting):
            yield session, actions
            session.step(len(session.journal), actions)


def _unlisted(session: Session, rng: np.random.Generator) -> Iterator[tuple[AgentID, Action]]:
    """Yield elements of the acting seats' action spaces that are not listed now."""
    for agent in session.acting:
        seat, legal = session.env.seat(agent), session.journal[-1].time_step.seats[agent].legal_actions or ()
        if seat.action_space is None:
            continue
        for action in (sample_element(rng, seat) for _ in range(5)):
            if action not in legal:
                yield agent, action


@CLAUSES.add
def illegal_action_is_refused(probe: EnvProbe) -> None:
    """Raises InvalidActionError: an action is not legal; the message says what is legal."""
    junk: tuple[Any, ...] = (None, 1.5, True, [], {}, b"x", ToolCall("no-such-tool"), "\ud800", -(2**70))
    for session, script in _at_every_step(probe):
        index = len(session.journal)
        for agent in session.acting:
            for action in junk:
                with must_refuse(InvalidActionError, f"{action!r} of {agent}"):
                    session.step(index, {**script, agent: action})
        for actions in ({}, {**script, "no-such-seat": "x"}):
            with must_refuse(InvalidActionError, f"actions of {sorted(actions)}"):
                session.step(index, actions)


@CLAUSES.add
def refused_action_changes_nothing(probe: EnvProbe) -> None:
    """Raises InvalidActionError: an action is not legal; nothing has changed."""
    refusals = 0
    for task, seed in probe.episodes:
        pestered = _pester(probe, task, seed)
        refusals += len(pestered.refused)
        if pestered.refused and probe.spec.deterministic:
            env = probe.fresh()
            pestered.must_equal("without the refused actions", probe.follow(pestered, env=env), env)
    need(refusals > 0, "the environment refused no action")
    need_deterministic(probe.spec)


def _pester(probe: EnvProbe, task: Task, seed: int) -> Run:
    """Play an episode in which most actions are tried without regard to what is legal."""
    draws = iter(range(10**9))

    def mostly_junk(env: Environment, seats: Seats, now: TimeStep, rng: np.random.Generator) -> dict[AgentID, Action]:
        legal = at_random(env, seats, now, rng)
        if next(draws) % 4 == 3:
            return legal
        agent = now.acting[int(rng.integers(len(now.acting)))]
        return {**legal, agent: sample_element(rng, seats[agent])}

    return probe.play(task, seed, chooser=mostly_junk, limit=MAX_DRAWS)


@CLAUSES.add
def step_after_the_end_is_refused(probe: EnvProbe) -> None:
    """Raises ResetNeededError: the episode is over."""
    run = probe.longest
    session = probe.session(run.task, run.seed, Limits(steps=len(run.actions)))
    take_steps(session, run)
    with must_refuse(ResetNeededError, "a step after the end"):
        session.step(len(session.journal), run.actions[-1])

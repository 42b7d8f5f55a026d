"""The score, at the end or before it."""

from __future__ import annotations

import math

from arena.testing.env_probe import EnvProbe, Run, take_steps
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, need, short
from arena.types import Limits, Score, decode_json, encode_json

__all__ = ["CLAUSES", "scored"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def score_lies_in_its_range(probe: EnvProbe) -> None:
    """The score, in the range that the environment declares."""
    low, high = probe.spec.score_range
    for run in probe.seen:
        score = scored(run)
        for value in (score.value, *score.seats.values()):
            if not low <= value <= high:
                broken(f"task {run.task.id!r} has score {value}, outside {probe.spec.score_range}")


def scored(run: Run) -> Score:
    """Return a run's score; fail unless it is one."""
    if not isinstance(run.score, Score):
        broken(f"score() returned {short(run.score)}; it must return a Score")
    return run.score


@CLAUSES.add
def score_has_declared_metrics(probe: EnvProbe) -> None:
    """Further numbers by declared name; the score of each seat."""
    agents = probe.fresh().possible_agents
    for run in probe.seen:
        score = scored(run)
        if not set(score.metrics) <= set(probe.spec.metrics) or not set(score.seats) <= set(agents):
            broken(f"the score names {sorted(score.metrics)} and {sorted(score.seats)}, which are not all declared")
        if not all(math.isfinite(value) for value in score.metrics.values()):
            broken(f"a metric is not finite: {score.metrics}")
        if decode_json(encode_json(score), Score) != score:
            broken(f"the score {score} does not come back from JSON as it was")


@CLAUSES.add
def score_stays_when_asked_again(probe: EnvProbe) -> None:
    """Return the verdict on the episode as it stands."""
    run = probe.longest
    env = probe.fresh()
    probe.follow(run, env=env)
    verdicts = [env.score() for _ in range(3)]
    if any(verdict != verdicts[0] for verdict in verdicts):
        broken(f"score() gave {verdicts[0]} and then {verdicts[1:]}")


@CLAUSES.add
def unfinished_episode_has_a_score(probe: EnvProbe) -> None:
    """Return the verdict on the episode as it stands; a limit may end it anywhere."""
    session = probe.session(probe.tasks[0], probe.seeds[0])
    session.truncate("wall_time", 1.0, 1.0)
    end = session.end()
    if end.score is None:
        broken(f"an episode that a limit ended has no score: {end.error}")


@CLAUSES.add
def session_plays_it_to_the_end(probe: EnvProbe) -> None:
    """`reset` first; then `step` with exactly the seats in `acting`; no step after the end; then a score."""
    for run in probe.seen:
        session = probe.session(run.task, run.seed, Limits(steps=max(1, len(run.actions))))
        take_steps(session, run)
        if run.actions and session.end().score != run.score:
            broken(f"a session ends with {session.end()}; the score was {run.score}")


@CLAUSES.add
def shared_reward_is_honest(probe: EnvProbe) -> None:
    """Every seat always gets the same reward."""
    need(probe.spec.shared_reward, "it is not declared")
    for run in probe.seen:
        for index, now in enumerate(run.steps):
            rewards = {agent: step.reward for agent, step in now.seats.items()}
            if len(set(rewards.values())) > 1:
                broken(f"shared_reward is declared, and step {index} gives {rewards}")

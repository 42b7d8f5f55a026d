"""What an operator relies on: closing and preparing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from arena.testing.env_probe import EnvProbe
from arena.testing.report import Clauses
from arena.testing.verdicts import must_be_same

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def close_is_safe_twice(probe: EnvProbe) -> None:
    """Free everything that the environment holds; safe to call twice."""
    for began in (False, True):
        env = probe.fresh()
        if began:
            env.reset(probe.tasks[0], probe.seeds[0])
        env.close()
        env.close()


@CLAUSES.add
def prepare_is_safe_twice_at_once(probe: EnvProbe) -> None:
    """Do the slow one-time work of a task and cache it on disk; safe to call twice at once."""
    run = probe.runs[0]
    env = probe.fresh()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(one.prepare, run.task) for one in (env, probe.fresh())]:
            done.result()
    env.prepare(run.task)
    answers = probe.follow(run, env=env)
    if probe.spec.deterministic:
        must_be_same("after prepare", run.encoded, answers)

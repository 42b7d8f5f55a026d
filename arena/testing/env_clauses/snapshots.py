"""Snapshots, restored states and forks."""

from __future__ import annotations

from arena.env import Environment
from arena.errors import UnsupportedError
from arena.testing.env_probe import EnvProbe, Run, go_on, take_steps
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, must_refuse, need, need_deterministic
from arena.types import Limits

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def undeclared_snapshots_are_refused(probe: EnvProbe) -> None:
    """`snapshot` and `restore` work, so that forks need no replay; else they raise UnsupportedError."""
    need(not probe.spec.snapshots, "snapshots are declared")
    env, _ = probe.begun()
    with must_refuse(UnsupportedError, "snapshot"):
        env.snapshot()
    with must_refuse(UnsupportedError, "restore"):
        env.restore(None)


def _halfway(probe: EnvProbe) -> tuple[Environment, Run]:
    """Return an environment in the middle of the longest run, and the run."""
    need(probe.spec.snapshots, "snapshots are not declared")
    need_deterministic(probe.spec)
    run = probe.longest
    env = probe.fresh()
    probe.follow(run, env=env, stop=run.middle)
    return env, run


def _goes_on_as(run: Run, env: Environment, what: str) -> None:
    """Fail unless an environment goes on from the middle of a run as the run did."""
    run.must_equal(what, go_on(env, run.actions[run.middle :]), env, start=run.middle + 1)


@CLAUSES.add
def snapshot_changes_nothing(probe: EnvProbe) -> None:
    """Return the episode's state."""
    env, run = _halfway(probe)
    env.snapshot()
    _goes_on_as(run, env, "after a snapshot")


@CLAUSES.add
def restore_continues(probe: EnvProbe) -> None:
    """Continue from a state that `snapshot` returned."""
    env, run = _halfway(probe)
    state = env.snapshot()
    go_on(env, run.actions[run.middle :])
    env.restore(state)
    _goes_on_as(run, env, "after a restore")


@CLAUSES.add
def state_is_restored_many_times(probe: EnvProbe) -> None:
    """One state can be restored many times."""
    env, run = _halfway(probe)
    state = env.snapshot()
    for times in range(1, 4):
        env.restore(state)
        _goes_on_as(run, env, f"restored for time {times}")
        probe.play(run.task, run.seed, env=env, choices=times)


@CLAUSES.add
def state_is_restored_into_another_instance(probe: EnvProbe) -> None:
    """To be given to `restore` of an environment with the same options, in this process."""
    env, run = _halfway(probe)
    state = env.snapshot()
    others = [probe.fresh(), probe.fresh()]
    for other in others:
        other.restore(state)
    for other in [*others, env]:
        _goes_on_as(run, other, "restored into another instance")


@CLAUSES.add
def fork_equals_its_parent(probe: EnvProbe) -> None:
    """Return a new session that stands where this one stood after step `at`; this one is untouched."""
    need_deterministic(probe.spec)
    run = probe.longest
    parent = probe.session(run.task, run.seed, Limits(steps=len(run.actions) + 1))
    take_steps(parent, run, run.middle)
    twin = parent.fork(probe.fresh())
    take_steps(twin, run)
    take_steps(parent, run)
    again = parent.fork(probe.fresh(), at=run.middle)
    take_steps(again, run)
    for fork in (twin, again):
        if [record.digest for record in fork.journal] != [record.digest for record in parent.journal]:
            broken("a fork that was given its parent's actions had other answers")

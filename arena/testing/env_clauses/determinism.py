"""The task, the seed and the actions decide an episode, and nothing else does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from arena.testing.env_probe import MAX_DRAWS, EnvProbe, go_on
from arena.testing.global_generators import generators_left_alone, generators_seeded
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, must_be_same, need, need_deterministic
from arena.types import encode_msgpack

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def same_task_seed_and_actions_give_same_steps(probe: EnvProbe) -> None:
    """The same task, seed and actions give the same time steps, so journals can be replayed."""
    need_deterministic(probe.spec)
    for run in probe.runs:
        env = probe.fresh()
        run.must_equal("in a new environment", probe.follow(run, env=env), env)


@CLAUSES.add
def reset_forgets_the_last_episode(probe: EnvProbe) -> None:
    """An environment hosts one episode at a time."""
    need_deterministic(probe.spec)
    env = probe.fresh()
    for run in [*probe.runs, probe.runs[0]]:
        run.must_equal("in an environment that has played before", probe.follow(run, env=env), env)


@CLAUSES.add
def instances_are_independent(probe: EnvProbe) -> None:
    """One episode of a task: another instance's episode does not enter it."""
    need_deterministic(probe.spec)
    for run, other in zip(probe.runs, [*probe.runs[1:], probe.runs[0]], strict=True):
        mine, theirs = probe.fresh(), probe.fresh()
        mine_got = [encode_msgpack(mine.reset(run.task, run.seed))]
        theirs_got = [encode_msgpack(theirs.reset(other.task, other.seed))]
        for index in range(max(len(run.actions), len(other.actions))):
            mine_got += go_on(mine, run.actions[index : index + 1])
            theirs_got += go_on(theirs, other.actions[index : index + 1])
        run.must_equal("beside another instance", mine_got, mine)
        other.must_equal("beside another instance", theirs_got, theirs)


@CLAUSES.add
def episodes_that_wait_go_side_by_side(probe: EnvProbe) -> None:
    """Episodes are then driven on threads of their own, side by side: calls of two may overlap."""
    need(probe.spec.blocking, "it does not declare that it waits")
    envs = [probe.fresh() for _ in probe.runs]
    with ThreadPoolExecutor(len(envs)) as pool:
        if not probe.spec.deterministic:
            list(pool.map(lambda run, env: probe.play(run.task, run.seed, env=env), probe.runs, envs))
            return
        told = list(pool.map(lambda run, env: probe.follow(run, env=env), probe.runs, envs))
    for run, env, answers in zip(probe.runs, envs, told, strict=True):
        run.must_equal("on a thread beside others", answers, env)


@CLAUSES.add
def global_generators_are_left_alone(probe: EnvProbe) -> None:
    """The environment draws from its stream ``env`` only: it neither draws from nor seeds a global generator."""
    for task, seed in probe.episodes[:3]:
        with generators_left_alone():
            probe.play(task, seed)


@CLAUSES.add
def global_generators_decide_nothing(probe: EnvProbe) -> None:
    """The environment draws from its stream ``env`` only: seeding the global generators changes nothing."""
    need_deterministic(probe.spec)
    for run in probe.runs[:3]:
        for seed in (1, 2):
            with generators_seeded(seed):
                answers = probe.follow(run)
            must_be_same("with other seeds of the global generators", run.encoded, answers)


@CLAUSES.add
def seed_is_honest(probe: EnvProbe) -> None:
    """The seed changes episodes of the same task; when false every seed gives the same episode."""
    need_deterministic(probe.spec)
    seeds = [*probe.seeds, *range(1000, 1005)]
    for task in probe.tasks if probe.spec.seeded else probe.tasks[:2]:
        played = [tuple(probe.play(task, seed, choices=0, limit=MAX_DRAWS).encoded) for seed in seeds]
        if len(set(played)) > 1 and not probe.spec.seeded:
            broken(f"seeded is false, and seeds {seeds} give different episodes of task {task.id!r}")
        if len(set(played)) > 1:
            return
    if probe.spec.seeded:
        broken(f"seeded is true, and seeds {seeds} all give the same episodes")

"""The tasks: numbered, named, sampled, found and sent."""

from __future__ import annotations

import re
from collections.abc import Iterator

from arena.env import Taskset
from arena.errors import UnknownIdError, UsageError
from arena.testing.env_probe import EnvProbe
from arena.testing.report import Clauses
from arena.testing.verdicts import broken, must_refuse
from arena.types import Task, decode_json, decode_msgpack, encode_json, encode_msgpack

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()

_MOST_TASKS = 300
"""Most tasks of one split that are looked at one by one."""


def _tasksets(probe: EnvProbe) -> Iterator[tuple[str, Taskset]]:
    """Yield every split and its tasks, each from an environment of its own."""
    for split in probe.spec.splits:
        yield split, probe.fresh().taskset(split)


def _first_tasks(probe: EnvProbe) -> Iterator[tuple[str, Task]]:
    """Yield the first tasks of every split."""
    for split, taskset in _tasksets(probe):
        for index in range(min(len(taskset), _MOST_TASKS)):
            yield split, taskset.task(index)


@CLAUSES.add
def every_split_has_tasks(probe: EnvProbe) -> None:
    """Names of the task splits."""
    if not probe.spec.splits or len(set(probe.spec.splits)) != len(probe.spec.splits):
        broken(f"the splits are {probe.spec.splits}; at least one, each named once")
    for split, taskset in _tasksets(probe):
        if taskset.split != split or len(taskset) < 1:
            broken(f"taskset({split!r}) has split {taskset.split!r} and {len(taskset)} tasks")


@CLAUSES.add
def length_matches_iteration(probe: EnvProbe) -> None:
    """Return the number of tasks."""
    for split, taskset in _tasksets(probe):
        if len(taskset) <= _MOST_TASKS and len(list(taskset)) != len(taskset):
            broken(f"split {split!r} says that it has {len(taskset)} tasks and yields {len(list(taskset))}")
        taskset.task(len(taskset) - 1)


@CLAUSES.add
def task_number_is_always_the_same(probe: EnvProbe) -> None:
    """Return task number `index`, from 0 to `len - 1`: always the same one."""
    for (split, one), (_, other) in zip(_first_tasks(probe), _first_tasks(probe), strict=True):
        if one != other:
            broken(f"a task of split {split!r} was {one} and is {other}")


@CLAUSES.add
def tasks_belong_to_their_split(probe: EnvProbe) -> None:
    """The split that it belongs to."""
    for split, task in _first_tasks(probe):
        if task.split != split:
            broken(f"task {task.id!r} of split {split!r} says that it belongs to {task.split!r}")


@CLAUSES.add
def task_ids_are_unique(probe: EnvProbe) -> None:
    """Unique within the environment; what a client names. Never a path."""
    splits: dict[str, str] = {}
    for split, task in _first_tasks(probe):
        if task.id in splits:
            broken(f"task {task.id!r} is in split {splits[task.id]!r} and again in {split!r}")
        if not task.id.isprintable() or not task.id.strip() or re.search(r"^[/~]|\\|(^|/)\.\.?(/|$)", task.id):
            broken(f"the task id {task.id!r} is empty, not printable, or a path")
        splits[task.id] = split


@CLAUSES.add
def sample_is_deterministic_and_distinct(probe: EnvProbe) -> None:
    """Return `count` different tasks drawn with `seed`; all of them, shuffled, when there are not so many."""
    for split, taskset in _tasksets(probe):
        for count in (1, 2, 5, min(len(taskset), 50) + 1):
            drawn = taskset.sample(count, 7)
            if drawn != probe.fresh().taskset(split).sample(count, 7):
                broken(f"sample({count}, seed=7) of split {split!r} gave different tasks the second time")
            if len({task.id for task in drawn}) != min(count, len(taskset)):
                broken(f"sample({count}) of split {split!r} gave {[task.id for task in drawn]}")


@CLAUSES.add
def task_is_found_by_id(probe: EnvProbe) -> None:
    """Return the task with this id."""
    for _, taskset in _tasksets(probe):
        for task in taskset.sample(3, 0):
            if taskset.get(task.id) != task:
                broken(f"get({task.id!r}) gave {taskset.get(task.id)}, not {task}")


@CLAUSES.add
def unknown_task_id_is_refused(probe: EnvProbe) -> None:
    """Raises UnknownIdError: there is none."""
    for split, taskset in _tasksets(probe):
        for task_id in ("no such task", "", "../no-such-task"):
            with must_refuse(UnknownIdError, f"get({task_id!r}) of split {split!r}"):
                taskset.get(task_id)


@CLAUSES.add
def tasks_survive_the_wire(probe: EnvProbe) -> None:
    """What the environment needs to build it, JSON-serialisable."""
    for _, task in _first_tasks(probe):
        if decode_json(encode_json(task), Task) != task or decode_msgpack(encode_msgpack(task), Task) != task:
            broken(f"task {task.id!r} does not come back from JSON or MessagePack as it was")


@CLAUSES.add
def foreign_task_is_refused(probe: EnvProbe) -> None:
    """Raises UsageError: the task is not one of this environment's."""
    env = probe.fresh()
    with must_refuse(UsageError, "reset with a foreign task"):
        env.reset(Task("no-such-task", probe.spec.splits[0], {"no_such_field": None}), probe.seeds[0])
    env.reset(probe.tasks[0], probe.seeds[0])

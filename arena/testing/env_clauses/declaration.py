"""What an environment declares about itself."""

from __future__ import annotations

import math
import re
from itertools import islice

from arena.testing.declaration_clauses import (
    options_are_described,
    options_survive_json,
    summary_is_one_sentence,
    unknown_option_is_refused,
)
from arena.testing.env_probe import EnvProbe
from arena.testing.report import Clauses
from arena.testing.verdicts import broken

__all__ = ["CLAUSES"]

CLAUSES = Clauses[EnvProbe]()


@CLAUSES.add
def id_names_family_name_and_version(probe: EnvProbe) -> None:
    """``family/name-vN``."""
    if not re.fullmatch(r"[a-z0-9_]+/[a-z0-9_-]+-v\d+", probe.spec.id):
        broken(f"the id is {probe.spec.id!r}; it must look like 'family/name-v0'")


CLAUSES.add(summary_is_one_sentence)


@CLAUSES.add
def ranges_are_finite_and_ordered(probe: EnvProbe) -> None:
    """Smallest and largest reward of one step; smallest and largest score."""
    for name in ("reward_range", "score_range"):
        low, high = getattr(probe.spec, name)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            broken(f"{name} is {low}, {high}; it must be two finite numbers, the smaller first")


@CLAUSES.add
def endings_and_metrics_are_declared(probe: EnvProbe) -> None:
    """Every name an ending can have, and whether it ends the task or only the watching; name and meaning of metrics."""
    spec = probe.spec
    if not spec.endings:
        broken("no ending is declared")
    for name, kind in spec.endings.items():
        if not name.isidentifier() or kind not in ("termination", "truncation"):
            broken(f"ending {name!r} is declared as {kind!r}; name it like a variable, as termination or truncation")
    for name, meaning in spec.metrics.items():
        if not name or not meaning.strip():
            broken(f"metric {name!r} has no meaning")


@CLAUSES.add
def groups_are_declared_and_kept(probe: EnvProbe) -> None:
    """Name and meaning of the fields of `Task.data` by which results can be broken down; every task has them."""
    spec = probe.spec
    for name, meaning in spec.groups.items():
        if not name or not meaning.strip() or name in spec.metrics:
            broken(f"group {name!r} has no meaning, or is a metric too")
    for split in spec.splits:
        for task in islice(probe.fresh().taskset(split), 3):
            for name in spec.groups:
                if not isinstance(task.data.get(name), str | int | float):
                    broken(f"task {task.id!r} has no plain value for the group {name!r}: {task.data.get(name)!r}")


@CLAUSES.add
def max_steps_is_positive(probe: EnvProbe) -> None:
    """Steps after which a session truncates the episode unless its limits say otherwise."""
    if probe.spec.max_steps is not None and probe.spec.max_steps < 1:
        broken(f"max_steps is {probe.spec.max_steps}; it must be positive, or absent")


CLAUSES.add(options_are_described)
CLAUSES.add(unknown_option_is_refused)
CLAUSES.add(options_survive_json)

"""The environment contract as a runnable suite.

`check_env` runs every promise of `arena.env` and `arena.types` on any environment. Each clause in
`arena.testing.env_clauses` is one function, named for the promise whose sentence is its docstring: it passes by
returning, fails by raising, and declares itself not applicable where the environment does not make the promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arena.testing.env_clauses import CLAUSES
from arena.testing.env_probe import EnvProbe
from arena.testing.factories import EnvFactory, resolve_env
from arena.testing.report import Report, run_clauses
from arena.types import Task

__all__ = ["CLAUSES", "check_env"]


def check_env(
    env_id_or_factory: EnvFactory,
    *,
    options: Mapping[str, Any] | None = None,
    tasks: Sequence[Task] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 60,
) -> Report:
    """Return the report of running every clause of the environment contract.

    Args:
        env_id_or_factory: An id, a class, or a function without arguments that returns a new environment every time.
        options: The environment's options, for an id or a class.
        tasks: The tasks to play; where None, two of every split.
        seeds: The seeds to play, at least one.
        max_steps: Most steps of one episode.

    Raises:
        UnknownIdError: No such environment.
        ConfigError: The options are wrong.
    """
    probe = EnvProbe(resolve_env(env_id_or_factory, options), tasks, seeds, max_steps)
    return run_clauses(probe.spec.id, CLAUSES, probe)

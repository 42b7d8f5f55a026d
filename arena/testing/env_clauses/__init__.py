"""The clauses of the environment contract, one module for each group."""

from __future__ import annotations

from collections.abc import Callable

from arena.testing.env_clauses import (
    care,
    declaration,
    determinism,
    expert,
    legal_actions,
    score,
    seats,
    snapshots,
    steps,
    tasks,
    travel,
)
from arena.testing.env_probe import EnvProbe

__all__ = ["CLAUSES"]

_GROUPS = (
    declaration,
    tasks,
    seats,
    steps,
    legal_actions,
    determinism,
    travel,
    score,
    expert,
    snapshots,
    care,
)

CLAUSES: dict[str, Callable[[EnvProbe], None]] = {
    name: clause for group in _GROUPS for name, clause in group.CLAUSES.items()
}
"""The clauses of the environment contract by name, in order."""

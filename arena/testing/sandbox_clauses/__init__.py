"""The clauses of the sandbox contract, one module for each group; the promise is each one's docstring."""

from __future__ import annotations

from collections.abc import Callable

from arena.testing.sandbox_clauses import (
    commands,
    ending,
    files,
    guarantees,
    isolation,
    limits,
    shells,
    snapshots,
    time_outs,
)
from arena.testing.sandbox_probe import SandboxProbe

__all__ = ["CLAUSES"]

_GROUPS = (guarantees, commands, time_outs, shells, files, snapshots, isolation, limits, ending)

CLAUSES: dict[str, Callable[[SandboxProbe], None]] = {
    name: clause for group in _GROUPS for name, clause in group.CLAUSES.items()
}
"""The clauses of the sandbox contract by name, in order."""

"""The sandbox contract as a runnable suite.

`check_sandbox` runs every promise of `arena.sandbox.contract` on any back end. Each clause in
`arena.testing.sandbox_clauses` is one function, whose docstring is the promise.
"""

from __future__ import annotations

from functools import partial

from arena.sandbox import Sandbox, SandboxSettings, Snapshot, open_sandbox
from arena.testing.report import Report, run_clauses
from arena.testing.sandbox_clauses import CLAUSES
from arena.testing.sandbox_probe import Open, SandboxProbe

__all__ = ["CLAUSES", "check_sandbox"]


def check_sandbox(backend: str | Open = "bubblewrap", *, settings: SandboxSettings | None = None) -> Report:
    """Return the report of running every clause of the sandbox contract.

    Args:
        backend: The name of a back end, or a function that starts a sandbox from settings and a snapshot or None.
        settings: What every sandbox has, beside what a clause asks for; limits are the suite's own.

    Raises:
        UnknownIdError: There is no such back end.
        PrerequisiteError: Something has to be installed first.
        SandboxError: No sandbox can be started at all.
    """
    start = partial(_start, backend) if isinstance(backend, str) else backend
    probe = SandboxProbe(start, settings or SandboxSettings())
    try:
        probe.fresh()
        probe.sweep()
        return run_clauses(backend if isinstance(backend, str) else "sandbox", CLAUSES, probe)
    finally:
        probe.close()


def _start(backend: str, settings: SandboxSettings, snapshot: Snapshot | None) -> Sandbox:
    return open_sandbox(settings, backend=backend, snapshot=snapshot)

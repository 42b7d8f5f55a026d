"""Sandboxes: places in which programs of strangers run. `open_sandbox` starts one; the contract is `Sandbox`."""

from arena.sandbox.backends import BACKENDS, open_sandbox
from arena.sandbox.contract import (
    GUARANTEES,
    ExecResult,
    Guarantee,
    Mount,
    Sandbox,
    SandboxLimits,
    SandboxSettings,
    Shell,
    Snapshot,
)

__all__ = [
    "BACKENDS",
    "GUARANTEES",
    "ExecResult",
    "Guarantee",
    "Mount",
    "Sandbox",
    "SandboxLimits",
    "SandboxSettings",
    "Shell",
    "Snapshot",
    "open_sandbox",
]

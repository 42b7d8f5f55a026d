"""The back ends by name."""

from __future__ import annotations

from arena.errors import UnknownIdError, did_you_mean
from arena.sandbox.contract import Sandbox, SandboxSettings, Snapshot

__all__ = ["BACKENDS", "open_sandbox"]

BACKENDS = ("bubblewrap", "docker")
"""What a sandbox can be made of; the first is the default."""


def open_sandbox(
    settings: SandboxSettings | None = None, *, backend: str = BACKENDS[0], snapshot: Snapshot | None = None
) -> Sandbox:
    """Start a sandbox, which its caller stops.

    Args:
        settings: What it is to be.
        backend: What it is made of.
        snapshot: What its workspace begins with, in place of the settings' folder.

    Raises:
        UnknownIdError: There is no such back end.
        UsageError: The settings make no sense for it, or the snapshot is closed or of another one.
        PrerequisiteError: Something has to be installed first.
        SandboxError: It does not start, or cannot guarantee what it must.
    """
    if backend == "bubblewrap":
        from .bubblewrap import BubblewrapSandbox

        return BubblewrapSandbox(settings or SandboxSettings(), snapshot)
    if backend == "docker":
        from .docker import DockerSandbox

        return DockerSandbox(settings or SandboxSettings(), snapshot)
    raise UnknownIdError(f"no sandbox back end {backend!r}{did_you_mean(backend, BACKENDS)}")

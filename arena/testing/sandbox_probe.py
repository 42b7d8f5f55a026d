"""What the clauses of the sandbox contract work with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from arena.sandbox import Sandbox, SandboxLimits, SandboxSettings, Snapshot
from arena.testing.verdicts import broken

__all__ = ["PROCESSES", "SMALL", "Open", "SandboxProbe", "output", "same", "texts"]

Open: TypeAlias = Callable[[SandboxSettings, Snapshot | None], Sandbox]
"""Starts a sandbox."""

SMALL = SandboxLimits(
    memory_bytes=256 << 20, cpus=1.0, processes=64, disk_bytes=32 << 20, file_bytes=16 << 20, open_files=128
)

"""Limits of every sandbox that a clause opens."""
PROCESSES = "for p in /proc/[0-9]*; do tr '\\0\\n' '  ' < $p/cmdline 2> /dev/null; echo; done | grep -v '^$'"
"""A command that writes the command line of every process that it sees."""


class SandboxProbe:
    """Opens sandboxes, and stops those that a clause leaves.

    Args:
        open: Starts a sandbox.
        settings: What they have beside what a clause asks for.
    """

    def __init__(self, open: Open, settings: SandboxSettings) -> None:
        self._open, self.settings = open, settings
        self._opened: list[Sandbox] = []
        self._snapshots: list[Snapshot] = []
        self.folder = Path(tempfile.mkdtemp(prefix="arena-sandbox-probe-"))

    def fresh(self, snapshot: Snapshot | None = None, **changes: Any) -> Sandbox:
        """Return a new sandbox with small limits."""
        found = {name: getattr(self.settings, name) for name in SandboxSettings.__dataclass_fields__}
        sandbox = self._open(SandboxSettings(**{**found, "limits": SMALL, **changes}), snapshot)
        self._opened.append(sandbox)
        return sandbox

    def snapshot(self, sandbox: Sandbox) -> Snapshot:
        """Return a snapshot, which is closed after the clause."""
        self._snapshots.append(sandbox.snapshot())
        return self._snapshots[-1]

    def workspace(self) -> Path:
        """Return a folder of this machine with a file and a folder in it."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)  # the commands' user may be another one
        (folder / "kept.txt").write_text("kept\n")
        (folder / "sub").mkdir()
        (folder / "sub" / "deep.txt").write_text("deep\n")
        return folder

    def sweep(self) -> None:
        """Stop and close what the last clause has left."""
        for snapshot in self._snapshots:
            snapshot.close()
        for sandbox in self._opened:
            sandbox.stop()
        self._snapshots.clear()
        self._opened.clear()

    def close(self) -> None:
        """Delete everything."""
        self.sweep()
        shutil.rmtree(self.folder, ignore_errors=True)


def output(sandbox: Sandbox, command: str, **changes: Any) -> str:
    """Return what a command that must succeed has written."""
    done = sandbox.exec(command, **changes)
    if not done.ok:
        broken(f"{command!r} ended with {done.exit_code}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout.decode(errors="replace")


def same(what: str, expected: object, got: object) -> None:
    """Fail the clause that is running unless two values are equal."""
    if expected != got:
        broken(f"{what}: {got!r}, not {expected!r}")


def texts(folder: Path) -> dict[str, str]:
    """Return the content of every file below a folder, by name."""
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}

"""Folders that workspaces lie over, and snapshots, which are such folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from arena.errors import SandboxError, UsageError
from arena.sandbox._scratch import delete, scratch
from arena.sandbox.bubblewrap._command_lines import interpreter
from arena.sandbox.contract import SandboxSettings, Snapshot

__all__ = ["BubblewrapSnapshot", "Layer", "base_layers", "copy_changes", "flattened"]


class Layer:
    """A folder that workspaces lie over; one of our own is deleted when nobody needs it any more."""

    def __init__(self, folder: Path, *, owned: bool) -> None:
        self.folder = folder
        self._owned, self._users, self._guard = owned, 1, threading.Lock()

    def hold(self) -> Layer:
        with self._guard:
            self._users += 1
        return self

    def release(self) -> None:
        with self._guard:
            self._users -= 1
            is_free = self._owned and self._users == 0
        if is_free:
            delete(self.folder)


class BubblewrapSnapshot(Snapshot):
    """Folders that lie over each other, the uppermost first."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers: Sequence[Layer] | None = layers

    def layers(self) -> list[Layer]:
        """Return its folders, held for the caller.

        Raises:
            UsageError: It is closed.
        """
        if self._layers is None:
            raise UsageError("the snapshot is closed")
        return [layer.hold() for layer in self._layers]

    def close(self) -> None:
        """Delete what nobody else needs."""
        layers, self._layers = self._layers, None
        for layer in layers or ():
            layer.release()


def base_layers(settings: SandboxSettings, snapshot: Snapshot | None) -> list[Layer]:
    """Return what the workspace is to lie over."""
    if (
        not settings.directory.startswith("/")
        or "\0" in settings.directory
        or settings.directory in ("/", "/tmp", "/usr", "/proc", "/dev", "/etc")
    ):
        raise UsageError(f"the workspace's directory is an absolute path of its own, not {settings.directory!r}")
    if isinstance(snapshot, BubblewrapSnapshot):
        return snapshot.layers()
    if snapshot is not None:
        raise UsageError(f"a bubblewrap sandbox begins with a snapshot of its own kind, not {snapshot!r}")
    if settings.workspace is None:
        return [Layer(scratch().new("empty"), owned=True)]
    folder = settings.workspace.resolve()
    if not folder.is_dir():
        raise UsageError(f"the workspace begins with a folder, and {settings.workspace} is none")
    return [Layer(folder, owned=False)]


def flattened(layers: Sequence[Layer], bubblewrap: Path) -> Layer:
    """Return one folder with what several that lie over each other show; lets those go."""
    folder = scratch().new("snapshot")
    command = [str(bubblewrap), "--unshare-user", "--uid", "0", "--gid", "0", "--ro-bind", "/", "/"]
    for layer in reversed(layers):
        command += ["--overlay-src", str(layer.folder)]
    command += ["--ro-overlay", "/mnt", "--bind", str(folder), str(folder), "--cap-add", "CAP_DAC_OVERRIDE"]
    try:
        _copy([*command, "--die-with-parent", "--"], "/mnt", folder, "user.overlay.", parent=None)
    except BaseException:
        delete(folder)
        raise
    for layer in layers:
        layer.release()
    return Layer(folder, owned=True)


def copy_changes(upper: str, first: int, folder: Path) -> None:
    """Copy what was changed in a workspace into a folder.

    It is read in the outer bubblewrap's namespaces, where also what nobody may read can be, by what follows no link:
    whoever runs inside may exchange files while they are read.

    Args:
        upper: Where it is in these namespaces.
        first: A process in them.
        folder: Where it goes.

    Raises:
        SandboxError: It cannot be copied.
    """
    if shutil.which("nsenter") is None:
        raise SandboxError("a snapshot needs the program 'nsenter', of util-linux")
    enter = ["nsenter", "--target", str(first), "--user", "--mount", "--preserve-credentials", "--"]
    _copy(enter, upper, folder, "user.overlay.origin", parent=os.getpid())


def _copy(within: Sequence[str], source: str, target: Path, left_out: str, *, parent: int | None) -> None:
    """Copy a folder, in the namespaces that a command enters, without the attributes that are left out."""
    program = [*interpreter(), str(Path(__file__).parents[1] / "_copying.py")]
    command = [*within, *program, source, str(target), left_out, str(parent or "")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise SandboxError(f"the workspace cannot be copied: {done.stderr.decode(errors='replace').strip()[:300]}")

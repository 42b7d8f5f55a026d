"""Folders that workspaces lie over, and snapshots, which are such folders."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from arena.errors import SandboxError, UsageError
from arena.sandbox._scratch import delete, scratch
from arena.sandbox.contract import SandboxSettings, Snapshot

__all__ = ["BubblewrapSnapshot", "Layer", "base_layers", "copy_changes", "flattened"]

_TAR = ("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse", "--warning=no-file-ignored")


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
    lower = [word for layer in reversed(layers) for word in ("--overlay-src", str(layer.folder))]
    command = [str(bubblewrap), "--unshare-user", "--uid", "0", "--gid", "0", "--ro-bind", "/", "/", *lower]
    command += ["--ro-overlay", "/mnt", "--cap-add", "CAP_DAC_OVERRIDE", "--"]
    command += [*_TAR, "--xattrs-exclude=user.overlay.*", "-C", "/mnt", "-cf", "-", "."]
    try:
        _copy_packed(command, folder)
    except BaseException:
        delete(folder)
        raise
    for layer in layers:
        layer.release()
    return Layer(folder, owned=True)


def copy_changes(upper: str, first: int, folder: Path) -> None:
    """Copy what was changed in a workspace into a folder.

    It is read in the outer bubblewrap's namespaces, where also what nobody may read can be, and by `tar`, which
    follows no link: whoever runs inside may exchange files while they are read.

    Args:
        upper: Where it is in these namespaces.
        first: A process in them.
        folder: Where it goes.

    Raises:
        SandboxError: It cannot be copied.
    """
    enter = ["nsenter", "--target", str(first), "--user", "--mount", "--preserve-credentials", "--"]
    packing = [*_TAR, "--xattrs-exclude=user.overlay.origin", "-C", upper, "-cf", "-", "."]
    _copy_packed([*enter, *packing], folder, enter)


def _copy_packed(packing: Sequence[str], folder: Path, enter: Sequence[str] = ()) -> None:
    """Unpack what a command packs into a folder, in the namespaces that are entered first.

    Raises:
        SandboxError: One of them fails.
    """
    unpacking = [*enter, "tar", "--xattrs", "--xattrs-include=*", "-C", str(folder), "-xpf", "-"]
    for program in (packing[0], unpacking[0]):
        if shutil.which(program) is None:
            raise SandboxError(f"a snapshot needs the program {program!r}, of util-linux or GNU tar")
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(packing, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as packer:
            unpacked = subprocess.run(unpacking, stdin=packer.stdout, stderr=errors, check=False)
        errors.seek(0)
        # 1 is a file that changed while it was read.
        if packer.returncode not in (0, 1) or unpacked.returncode:
            raise SandboxError(f"the workspace cannot be copied: {errors.read(300).decode(errors='replace').strip()}")

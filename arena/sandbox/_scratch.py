"""Where a process keeps what its sandboxes need on this machine, and what is done about processes that were killed.

A process has one folder below the temporary one, and holds a lock on a file in it for as long as it lives. A folder
whose lock is free belongs to nobody, and is removed, with its control groups, by whoever opens a sandbox next.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import os
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Protocol

from arena.sandbox._cgroups import remove_groups

__all__ = ["Scratch", "delete", "scratch"]

_PREFIX, _NEW, _LOCK = "arena-sandbox-", ".arena-sandbox-new-", "lock"
_guard = threading.Lock()
_own: dict[int, Scratch] = {}


class Scratch:
    """The folder of one process.

    Attributes:
        folder: Where it is.
        token: What its control groups' names begin with.
        live: What has to be stopped before the process ends.
    """

    def __init__(self) -> None:
        new = Path(tempfile.mkdtemp(prefix=_NEW))  # it gets its name when it is locked, and is not swept before
        self._lock = (new / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.token = new.name.removeprefix(_NEW)
        self.folder = new.with_name(_PREFIX + self.token)
        new.rename(self.folder)
        self.live: weakref.WeakSet[Stoppable] = weakref.WeakSet()
        self._numbers = itertools.count()

    def new(self, what: str) -> Path:
        """Return a new folder."""
        folder = self.folder / f"{what}-{next(self._numbers)}"
        folder.mkdir(mode=0o755)
        return folder

    def close(self) -> None:
        """Stop what is live, and remove everything."""
        for one in list(self.live):
            with contextlib.suppress(Exception):
                one.stop()
        remove_groups(self.token)
        _empty(self.folder)
        self._lock.close()


class Stoppable(Protocol):
    """What can be stopped."""

    def stop(self) -> None:
        """End it."""


def scratch() -> Scratch:
    """Return this process's folder; the first call also removes what dead processes have left."""
    with _guard:
        found = _own.get(os.getpid())
        if found is None:
            _sweep()
            found = _own[os.getpid()] = Scratch()
            atexit.register(_leave, os.getpid())
        return found


def delete(path: Path) -> None:
    """Delete a folder, however deep and whatever its modes, without following links."""
    remove = ["rm", "-rf", "--", str(path)]
    if subprocess.run(remove, stderr=subprocess.DEVNULL, check=False).returncode:
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(path)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(remove, stderr=subprocess.DEVNULL, check=False)


def _empty(folder: Path) -> None:
    """Delete a process's folder; its lock goes last, so that what is interrupted is swept again."""
    with contextlib.suppress(OSError):
        for inner in folder.iterdir():
            if inner.name != _LOCK:
                delete(inner)
    delete(folder)


def _leave(pid: int) -> None:
    if pid == os.getpid() and pid in _own:
        _own.pop(pid).close()


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_groups(folder.name.removeprefix(_PREFIX))
                _empty(folder)
            finally:
                os.close(lock)

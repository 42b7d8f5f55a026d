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
import shutil
import tempfile
import threading
from pathlib import Path

from arena.sandbox._cgroups import remove_groups

__all__ = ["Scratch", "scratch"]

_PREFIX, _LOCK = "arena-sandbox-", "lock"
_guard = threading.Lock()
_own: dict[int, Scratch] = {}


class Scratch:
    """The folder of one process.

    Attributes:
        folder: Where it is.
        token: What its control groups' names begin with.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.token = self.folder.name.removeprefix(_PREFIX)
        self._numbers = itertools.count()
        self._lock = (self.folder / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def new(self, what: str) -> Path:
        """Return a new folder."""
        folder = self.folder / f"{what}-{next(self._numbers)}"
        folder.mkdir(mode=0o755)
        return folder

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def scratch() -> Scratch:
    """Return this process's folder; the first call also removes what dead processes have left."""
    with _guard:
        found = _own.get(os.getpid())
        if found is None:
            _sweep()
            found = _own[os.getpid()] = Scratch()
            atexit.register(_leave, os.getpid())
        return found


def _leave(pid: int) -> None:
    if pid == os.getpid() and pid in _own:
        _own.pop(pid).close()


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (folder / _LOCK).open("rb") as lock:
            if folder.lstat().st_uid != os.geteuid():
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_groups(folder.name.removeprefix(_PREFIX))
            shutil.rmtree(folder, ignore_errors=True)

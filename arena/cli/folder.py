"""A folder of results, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from arena.errors import UsageError

__all__ = ["LOCK_FILE", "hold_folder", "is_used"]

LOCK_FILE = ".lock"


def is_used(folder: Path) -> bool:
    """Return whether a path is something else than a folder to begin in; a killed process may have left its lock."""
    return folder.exists() and (not folder.is_dir() or any(path.name != LOCK_FILE for path in folder.iterdir()))


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; afterwards it is there only if something was written to it.

    Raises:
        UsageError: Another process holds it, or it cannot be written to.
    """
    made = [path for path in [folder, *folder.parents] if not path.exists()]
    with _lock(folder):
        try:
            yield
        finally:
            (folder / LOCK_FILE).unlink(missing_ok=True)
            with suppress(OSError):  # not empty, as it should be
                for path in made:
                    path.rmdir()


def _lock(folder: Path) -> BinaryIO:
    """Return the lock file, locked; closing it, or dying, lets go."""
    path = folder / LOCK_FILE
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = path.open("ab")
        except OSError as error:
            raise UsageError(f"cannot write results to {folder}: {error.strerror or error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise UsageError(f"another process is writing to {folder}") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()  # the file was removed by its last holder between opening and locking

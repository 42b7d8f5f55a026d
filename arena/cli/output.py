"""Where the command line writes: a terminal, a pipe, a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from arena.errors import UsageError

__all__ = ["make_console", "require_writable"]


class _PatientConsole(Console):
    """A console that falls silent when its reader has gone (``| head``), instead of ending the process."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def make_console(*, stderr: bool = False) -> Console:
    """Return a console; where nobody watches (a file, a pipe), lines are 120 characters wide."""
    watched = (sys.stderr if stderr else sys.stdout).isatty()
    return _PatientConsole(stderr=stderr, highlight=False, width=None if watched else 120)


def require_writable(path: Path) -> None:
    """Refuse a file or folder that cannot be made or written to, before anything is played for it.

    Raises:
        UsageError: The message names what is in the way.
    """
    if path.is_symlink() and not path.exists():
        raise UsageError(f"cannot write to {path}: it is a link that leads nowhere")
    nearest = next(found for found in [path, *path.absolute().parents] if found.exists())
    wanted = os.W_OK | (os.X_OK if nearest.is_dir() else 0)
    if (nearest != path and not nearest.is_dir()) or not os.access(nearest, wanted):
        raise UsageError(f"cannot write to {path}: {nearest} is not a folder that you may write to")

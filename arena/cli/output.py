"""Where the command line writes for people."""

from __future__ import annotations

import sys

from rich.console import Console

__all__ = ["make_console"]


def make_console(*, stderr: bool = False) -> Console:
    """Return a console; where nobody watches (a file, a pipe), lines are 120 characters wide."""
    watched = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if watched else 120)

"""Holding all processes of a control group at once, by the freezer of version 2 or 1.

What is frozen is woken by no signal but, in version 2, one that ends it. In version 1 not even that ends it: a process
of our own lets it go when this one is killed.

Sources: the kernel's ``Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst`` and ``cgroup-v2.rst``.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["frozen", "thaw"]

_FREEZE_S, _PAUSE_S = 2.0, 0.002
_LET_GO = 'read -r _; echo THAWED > "$1"'


@contextlib.contextmanager
def frozen(folder: Path | None) -> Iterator[bool]:
    """Hold the processes of a group meanwhile.

    Args:
        folder: The group's; None if there is none.

    Yields:
        Whether they are held: the kernel may not manage at once.
    """
    if folder is None:
        yield False
        return
    with contextlib.ExitStack() as entered:
        entered.callback(thaw, folder)
        try:
            if (state := folder / "freezer.state").exists():
                entered.enter_context(_released_if_killed(state))
            is_frozen = _freeze(folder)
        except OSError:
            is_frozen = False
        if not is_frozen:
            thaw(folder)
        yield is_frozen


def thaw(folder: Path) -> None:
    """Let the processes of a group go."""
    for file, value in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
        if (folder / file).exists():
            with contextlib.suppress(OSError):
                (folder / file).write_text(value)


def _freeze(folder: Path) -> bool:
    deadline = time.monotonic() + _FREEZE_S
    while not _is_frozen(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def _is_frozen(folder: Path) -> bool:
    """Ask for it, and return whether it is done: version 1 wants to be asked again."""
    if (file := folder / "cgroup.freeze").exists():
        if file.read_text().strip() != "1":
            file.write_text("1")
        return "frozen 1" in (folder / "cgroup.events").read_text().splitlines()
    (folder / "freezer.state").write_text("FROZEN")
    return (folder / "freezer.state").read_text().strip() == "FROZEN"


@contextlib.contextmanager
def _released_if_killed(state: Path) -> Iterator[None]:
    """Have a process that lets the group go as soon as this one has ended."""
    command = ["/bin/sh", "-c", _LET_GO, "arena-sandbox", str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        try:
            yield
        finally:
            assert watcher.stdin is not None
            watcher.stdin.close()  # it lets go, and ends

"""Which session a worker died at, where several were at work in it.

One death says little: whoever was at work is rebuilt, and goes on beside the others. A session that was at work at a
second one in a row is on trial: those that are go on one after the other, so that the next death tells whose fault it
is. Work that is answered acquits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Suspect", "Trials"]

_MOST_DEATHS = 4
"""A session at whose work this many workers died in a row is given up; one death says little, when all were killed."""
_MOST_SHARED = 2


class Suspect:
    """What is held against a session.

    Attributes:
        deaths: Workers that died, one after the other, at its work alone or while it was on trial.
        shared: Workers that died at its work and at that of others.
    """

    __slots__ = ("deaths", "shared")

    def __init__(self) -> None:
        self.deaths = self.shared = 0

    @property
    def is_on_trial(self) -> bool:
        """Whether it goes on beside no other suspect."""
        return self.shared >= _MOST_SHARED

    @property
    def is_guilty(self) -> bool:
        """Whether it is to be given up."""
        return self.deaths >= _MOST_DEATHS

    def blame(self, at_work: int) -> None:
        """Note that a worker died with so many jobs at work, this session's among them; none is said by 0."""
        if at_work == 1 or (at_work and self.is_on_trial):
            self.deaths += 1
        elif at_work:
            self.shared += 1


class Trials:
    """The sessions that are on trial, and whose turn it is."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Suspect, Callable[[], None]]] = deque()
        self._now: Suspect | None = None

    def enter(self, suspect: Suspect, go_on: Callable[[], None]) -> None:
        """Call `go_on`: at once, or, where another one is on trial, when it is this one's turn."""
        if suspect.is_on_trial and self._now not in (None, suspect):
            self._waiting.append((suspect, go_on))
            return
        if suspect.is_on_trial:
            self._now = suspect
        go_on()

    def leave(self, suspect: Suspect) -> None:
        """Let the next one have its turn: this one was acquitted, or given up."""
        suspect.shared = 0
        if self._now is suspect:
            self._now = None
            if self._waiting:
                self.enter(*self._waiting.popleft())

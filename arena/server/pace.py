"""How fast something may be done."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["TokenBucket"]


class TokenBucket:
    """A limit of a rate, which may be exceeded in bursts.

    Args:
        rate_per_s: What comes back each second; more than 0.
        burst: What can be taken at once; more than 0.
        clock: Monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_clock", "_left", "_rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate_per_s > 0 and burst > 0):
            raise ValueError(f"a bucket needs a rate and a burst above 0, not {rate_per_s} and {burst}")
        self._rate_per_s, self._burst, self._clock = rate_per_s, burst, clock
        self._left, self._at = burst, clock()

    def take(self, count: float = 1.0) -> float:
        """Take `count` and return 0, or take nothing and return the seconds until it could be taken.

        More than a burst is given when the bucket is full, and is paid back before anything else is given.
        """
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate_per_s)
        self._at = now
        missing = min(count, self._burst) - self._left
        if missing > 1e-6:  # what rounding costs must not make an exact wait too short
            return missing / self._rate_per_s
        self._left -= count
        return 0.0

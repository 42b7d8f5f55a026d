"""The global random generators, `random` and `numpy.random`: whether they were used, and what they decide."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from arena.testing.verdicts import broken

__all__ = ["generators_left_alone", "generators_seeded"]


@contextmanager
def generators_left_alone() -> Iterator[None]:
    """Fail the running clause if the block draws from a global generator or seeds one."""
    before = _state()
    yield
    if _state() != before:
        broken("an episode changed the state of the global generators `random` or `numpy.random`")


def _state() -> tuple[Any, ...]:
    """Return the states of the global generators, comparable."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, np.asarray(keys).tobytes(), tuple(rest)


@contextmanager
def generators_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators for a block and put their states back."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])

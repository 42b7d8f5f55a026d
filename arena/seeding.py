"""Randomness: one root seed an episode, split into named streams.

Sharing one integer between an environment and a policy silently makes them agree (a random policy then guesses the
environment's secret at its first try); a stream's name enters its seed, so streams are independent.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np

from arena.errors import UsageError

__all__ = ["MAX_SEED", "derive_seed", "python_stream", "stream"]

MAX_SEED = 2**53 - 1
"""Largest seed: every JSON reader holds it exactly."""


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a seed in [0, `MAX_SEED`] that depends on `seed` and on every part of `path`.

    Raises:
        UsageError: `seed` is not an integer in [0, `MAX_SEED`].
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UsageError(f"a seed is an integer from 0 to {MAX_SEED}, not {seed!r}")
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MAX_SEED


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the NumPy generator of the stream `name` (``env``, ``agent:<seat>``) of an episode."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, name)))


def python_stream(seed: int, name: str) -> random.Random:
    """Return the standard library generator of the stream `name`: cheaper to make and to draw one number from."""
    return random.Random(derive_seed(seed, name))

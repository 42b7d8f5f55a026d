"""Many episodes of a game on arrays, played by a policy: what the reference values are compared with."""

import math

import numpy as np

from arena import make_vector


def simulate(id, policy, *, episodes=20_000, seed=1, **options):
    """Return the metrics of as many episodes, an array each.

    Args:
        id: The environment.
        policy: Returns the actions (B, n), given the batch, its last answer, the number of the step and a generator.
        episodes: How many, all at once.
        seed: Of the batch; the policy's numbers come from another stream.
        options: Of the environment.
    """
    batch = make_vector(id, options, seeds=[seed], per_seed=episodes)
    rng, answer, step = np.random.default_rng([seed, 1]), batch.reset(), 0
    found, waits = {}, np.ones(episodes, bool)
    while waits.any():
        answer = batch.step(policy(batch, answer, step, rng))
        for name, values in answer.metrics.items():
            first = waits & answer.over
            found.setdefault(name, np.full(episodes, np.nan))[first] = values[first]
        waits &= ~answer.over
        step += 1
    return found


def at_random(batch, answer, step, rng):
    """A policy: all actions alike."""
    return rng.integers(0, batch.actions, (len(batch), len(batch.agents)))


def by_expert(kind=None):
    """The policy of an expert team."""
    return lambda batch, answer, step, rng: batch.expert(kind)


def standard_error(values):
    """The standard error of a mean."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))

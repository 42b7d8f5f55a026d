"""Means with intervals: what may be said about a number that was measured on some episodes.

Every interval is two-sided at 95% unless another `level` is given.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist

__all__ = ["mean_interval", "rate_interval", "wilson_interval"]

Interval = tuple[float, float]


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval | None:
    """Return Wilson's score interval of a success rate, in [0, 1]; None without trials.

    It neither leaves [0, 1] nor shrinks to a point at 0% and 100%, as the usual formula does.

    Source:
        Wilson 1927, JASA 22(158), 209-212.
    """
    if trials == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def rate_interval(verdicts: Sequence[bool], clusters: Sequence[Hashable], *, level: float = 0.95) -> Interval | None:
    """Return an interval of a success rate, in [0, 1]; None where the data allow none.

    Wilson's where every verdict is of a cluster (a task, say) of its own; else that of `mean_interval`, because
    episodes of one task are not independent. If all succeeded or all failed, each cluster counts as one trial.

    Args:
        verdicts: The outcomes, shape (N,).
        clusters: The cluster of each, shape (N,).
        level: Confidence level, in (0, 1).
    """
    groups = len(set(clusters))
    if groups == len(verdicts):
        return wilson_interval(sum(verdicts), len(verdicts), level=level)
    if groups >= 2 and len(set(verdicts)) == 1:
        return wilson_interval(groups * verdicts[0], groups, level=level)
    return mean_interval([float(verdict) for verdict in verdicts], clusters, bounds=(0.0, 1.0), level=level)


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable], *, bounds: Interval | None = None, level: float = 0.95
) -> Interval | None:
    """Return Student's t interval of the mean; None where the data allow none.

    Where a cluster holds several values, the standard error is that of the clusters' totals. Without any variation
    there is no interval: a width of 0 would say too much.

    Args:
        values: The numbers, shape (N,).
        clusters: The cluster of each, shape (N,).
        bounds: The range in which the mean must lie; the interval is cut to it.
        level: Confidence level, in (0, 1).

    Source:
        Miller 2024, arXiv:2411.00640, section 2.2 (clustered standard errors).
    """
    n = len(values)
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        groups[cluster].append(value)
    g = len(groups)
    if g < 2:
        return None
    from scipy.special import stdtrit

    mean = math.fsum(values) / n
    totals = [math.fsum(group) - len(group) * mean for group in groups.values()]
    error = math.sqrt(math.fsum(total * total for total in totals) * g / (g - 1)) / n
    if error < 1e-12 * max(1.0, abs(mean)):
        return None
    half = float(stdtrit(g - 1, 0.5 + level / 2)) * error
    low, high = bounds or (-math.inf, math.inf)
    return max(low, mean - half), min(high, mean + half)

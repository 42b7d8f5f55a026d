"""Means with intervals: what may be said about a number that was measured on some episodes.

Every interval is two-sided at 95% unless another `level` is given.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist

__all__ = ["mean_interval", "wilson_interval"]

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


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, level: float = 0.95
) -> Interval | None:
    """Return an interval of the mean; None where the data allow none.

    Values that are all 0 or 1, each in a cluster of its own, get Wilson's interval. Others get Student's t; where a
    cluster (a task, say) holds several values, the standard error is that of the clusters' totals, because episodes of
    one task are not independent. If all are 0 or all are 1, the clusters count as trials for Wilson's interval.

    Args:
        values: The numbers, shape (N,).
        clusters: The cluster of each, shape (N,); None where all are independent.
        level: Confidence level, in (0, 1).

    Source:
        Miller 2024, arXiv:2411.00640, section 2.2 (clustered standard errors).
    """
    n = len(values)
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for index, value in enumerate(values):
        groups[index if clusters is None else clusters[index]].append(value)
    if len(groups) == n and all(value in (0, 1) for value in values):
        return wilson_interval(int(sum(values)), n, level=level)
    if len(groups) < 2:
        return None
    from scipy.special import stdtrit

    mean = math.fsum(values) / n
    totals = [math.fsum(group) - len(group) * mean for group in groups.values()]
    g = len(groups)
    error = math.sqrt(math.fsum(total * total for total in totals) * g / (g - 1)) / n
    if error == 0 and mean in (0, 1):
        return wilson_interval(int(mean) * g, g, level=level)
    half = float(stdtrit(g - 1, 0.5 + level / 2)) * error
    return mean - half, mean + half

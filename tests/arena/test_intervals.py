import numpy as np
import pytest
from scipy import stats

from arena.intervals import mean_interval, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (3, 10), (1, 1), (50, 100)])
def test_wilson_equals_scipys(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high))


def test_no_data_no_interval():
    assert wilson_interval(0, 0) is None
    assert mean_interval([]) is None
    assert mean_interval([0.3]) is None


def test_students_t_equals_scipys():
    values = [0.1, 0.7, 0.4, 0.9, 0.35]
    error = stats.sem(values)
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
    assert mean_interval(values) == pytest.approx(expected)


def test_values_of_one_cluster_count_as_one():
    """Ten copies of five values know no more than the five values."""
    values = [0.1, 0.7, 0.4, 0.9, 0.35]
    repeated = mean_interval([v for v in values for _ in range(10)], [i for i in range(5) for _ in range(10)])
    assert repeated == pytest.approx(mean_interval(values))
    solved = mean_interval([1.0] * 30, [i for i in range(3) for _ in range(10)])
    assert solved == pytest.approx(wilson_interval(3, 3))


@pytest.mark.parametrize(
    ("draw", "low"), [(lambda rng: rng.normal(0.5, 0.2, 12), 0.92), (lambda rng: rng.random(12) < 0.5, 0.92)]
)
def test_intervals_cover_the_truth_about_as_often_as_they_claim(draw, low):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        interval = mean_interval([float(v) for v in draw(rng)])
        covered += interval[0] <= 0.5 <= interval[1]
    assert low <= covered / 1000 <= 0.98

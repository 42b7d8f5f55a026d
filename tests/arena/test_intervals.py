import numpy as np
import pytest
from scipy import stats

from arena.intervals import mean_interval, rate_interval, wilson_interval

VALUES = [0.1, 0.7, 0.4, 0.9, 0.35]


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (3, 10), (1, 1), (50, 100)])
def test_wilson_equals_scipys(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high))
    verdicts = [True] * successes + [False] * (trials - successes)
    assert rate_interval(verdicts, range(trials)) == pytest.approx((expected.low, expected.high))


def test_no_data_or_no_variation_no_interval():
    assert wilson_interval(0, 0) is None
    assert rate_interval([], []) is None
    assert rate_interval([True] * 9 + [False], ["one task"] * 10) is None
    assert mean_interval([], []) is None
    assert mean_interval([0.3], [0]) is None
    assert mean_interval([0.5] * 5, range(5)) is None
    assert mean_interval([0.1] * 7, range(7)) is None
    assert mean_interval([0, 1, 0, 1, 0, 1], "aabbcc") is None


def test_students_t_equals_scipys():
    for values in (VALUES, [-2, -1, -2, -1, -2, -2], [1e6, 1e6 + 1, 1e6 + 3]):
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert mean_interval(values, range(len(values))) == pytest.approx(expected)


def test_values_of_one_cluster_count_as_one():
    """Ten copies of five values know no more than the five values."""
    repeated = mean_interval([v for v in VALUES for _ in range(10)], [i for i in range(5) for _ in range(10)])
    assert repeated == pytest.approx(mean_interval(VALUES, range(5)))
    assert rate_interval([True] * 30, [i for i in range(3) for _ in range(10)]) == wilson_interval(3, 3)


def test_intervals_stay_within_the_bounds():
    assert mean_interval([0.0, 1.0], range(2), bounds=(-1.0, 1.0)) == (-1.0, 1.0)
    assert rate_interval([True, True, True, False], "aabb")[1] == 1.0


@pytest.mark.parametrize("kind", ["normal", "rate", "clustered"])
def test_intervals_cover_the_truth_about_as_often_as_they_claim(kind):
    rng, covered, runs = np.random.default_rng(0), 0, 1000
    for _ in range(runs):
        if kind == "normal":
            interval = mean_interval(rng.normal(0.5, 0.2, 12).tolist(), range(12))
        elif kind == "rate":
            interval = rate_interval([bool(v) for v in rng.random(12) < 0.5], range(12))
        else:  # eight tasks whose difficulty differs, five episodes each
            solved = rng.random((8, 5)) < rng.choice([0.2, 0.8], size=(8, 1))
            interval = rate_interval([bool(v) for v in solved.ravel()], [i for i in range(8) for _ in range(5)])
        covered += interval is not None and interval[0] <= 0.5 <= interval[1]
    assert 0.92 <= covered / runs <= 0.98

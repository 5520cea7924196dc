"""Intervals over few values cover what they say, which percentiles of a bootstrap do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from warmkit.evaluation.few_values import student_interval, student_quantile, wilson_interval


@pytest.mark.parametrize(
    ("freedom", "level", "expected"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (4, 0.95, 2.776),
        (9, 0.95, 2.262),
        (30, 0.95, 2.042),
        (120, 0.95, 1.980),
        (1, 0.5, 1.0),
        (4, 0.99, 4.604),
        (9, 0.99, 3.250),
        (5, 0.8, 1.476),
    ],
)
def test_the_quantile_is_that_of_tables(freedom: int, level: float, expected: float) -> None:
    assert student_quantile(freedom, level) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_over_seeds_covers_the_mean_of_normal_values(n: int) -> None:
    values = np.random.default_rng(n).normal(2.0, 3.0, size=(20_000, n))
    ends = student_quantile(n - 1, 0.95) * values.std(1, ddof=1) / math.sqrt(n)
    assert np.mean(abs(values.mean(1) - 2.0) <= ends) == pytest.approx(0.95, abs=0.006)
    found = student_interval(values[0].tolist())
    assert (found.low, found.high) == pytest.approx((values[0].mean() - ends[0], values[0].mean() + ends[0]))


def test_one_value_leaves_its_interval_open_and_equal_values_have_no_width() -> None:
    assert vars(student_interval([0.3])) == {"value": 0.3, "low": -math.inf, "high": math.inf}
    assert vars(student_interval([0.7, 0.7, 0.7])) == {"value": 0.7, "low": 0.7, "high": 0.7}


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0.0, 0.278), (5, 0.237, 0.763), (10, 0.722, 1.0)])
def test_a_share_of_ten_has_the_interval_of_tables(right: int, low: float, high: float) -> None:
    found = wilson_interval(right, 10)
    assert (found.value, found.low, found.high) == pytest.approx((right / 10, low, high), abs=6e-4)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_interval_of_a_share_covers_it(share: float) -> None:
    found = [wilson_interval(int(right), 20) for right in np.random.default_rng(0).binomial(20, share, size=4000)]
    assert np.mean([each.low <= share <= each.high for each in found]) == pytest.approx(0.95, abs=0.035)

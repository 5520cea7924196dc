"""Numbers about scores, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.evaluation.accuracy import (
    Scores,
    agreement,
    calibration_error,
    correlation,
    ensemble,
    interval,
    pairwise_accuracy,
    report,
)


def scores(*margins: float) -> Scores:
    return Scores(np.array(margins, dtype=np.float64), np.zeros(len(margins)))


def test_ties_count_as_right() -> None:
    assert pairwise_accuracy(scores(1, 0, -1, 0)) == 0.75


def test_a_model_that_says_the_same_of_everything_wins_half() -> None:
    assert scores(0, 0, 0).won.tolist() == [0.5, 0.5, 0.5]
    assert scores(1, 0, -1).won.tolist() == [1, 0.5, 0]


def test_ens_is_the_mean_of_the_rewards() -> None:
    mean = ensemble([Scores(np.array([1.0]), np.array([0.0])), Scores(np.array([0.0]), np.array([3.0]))])
    assert (mean.chosen.tolist(), mean.rejected.tolist()) == ([0.5], [1.5])


def test_agreement_is_the_share_of_equal_preferences() -> None:
    assert agreement(scores(1, 2, -1, 0), scores(5, -1, -2, 0)) == 0.75
    assert agreement(scores(1, -1), scores(1, -1)) == 1


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_calibration_error_by_hand() -> None:
    # two bins of ten: confidence 0.6 (bin 2), right half of the time; confidence 0.9 (bin 8), right always
    margins = [logit(0.62), -logit(0.62), logit(0.92), logit(0.92)]
    assert calibration_error(scores(*margins)) == pytest.approx(0.5 * (0.62 - 0.5) + 0.5 * (1 - 0.92))


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not() -> None:
    assert calibration_error(scores(50, 60)) == pytest.approx(0, abs=1e-9)
    assert calibration_error(scores(-50, -60)) == pytest.approx(1, abs=1e-9)
    assert calibration_error(scores(logit(0.75), logit(0.75), logit(0.75), -logit(0.75))) == pytest.approx(0)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 3))
def test_an_interval_contains_its_value_and_stays_in_range(right: list[bool], seed: int) -> None:
    estimate = interval(np.array(right, dtype=np.float64), seed, draws=200, shares=True)
    assert estimate.value == pytest.approx(sum(right) / len(right))
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


def test_the_interval_of_a_share_is_as_wide_as_the_normal_one() -> None:
    estimate = interval(np.repeat([0.0, 1.0], 200))
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)
    assert interval(np.repeat([0.0, 1.0], 200)) == estimate, "the same draws every time"


@pytest.mark.parametrize("n", [4, 16, 40])
def test_an_interval_over_prompts_covers_the_mean_as_often_as_it_says(n: int) -> None:
    draw = np.random.default_rng(0)
    found = [interval(draw.normal(size=n)) for _ in range(4000)]
    covered = np.mean([each.low <= 0 <= each.high for each in found])
    assert covered == pytest.approx(0.95, abs=0.01)


def test_few_that_are_all_right_are_no_certainty() -> None:
    estimate = interval(np.ones(10), shares=True)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.722, abs=1e-3)


def test_correlation_of_a_constant_is_zero() -> None:
    assert correlation(np.ones(4), np.arange(4.0)) == 0
    assert correlation(np.arange(4.0), -np.arange(4.0)) == pytest.approx(-1)


def test_a_report_holds_everything_about_one_model() -> None:
    found = report(scores(1, 0, -1, 2), (np.array([4.0, 1, 1, 8]), np.array([1.0, 1, 1, 1])))
    assert found["pairs"] == 4
    assert found["accuracy"] == 0.75
    assert found["tied"] == 1
    losses = [math.log(1 + math.exp(-margin)) for margin in (1, 0, -1, 2)]
    assert found["loss"] == pytest.approx(sum(losses) / 4)
    assert found["mean"] == pytest.approx(0.25)
    assert found["deviation"] == pytest.approx(np.std([1, 0, -1, 2, 0, 0, 0, 0]))
    assert found["length_correlation"] > 0.5
    assert found["low"] <= found["accuracy"] <= found["high"]

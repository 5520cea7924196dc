"""EMA of checkpoints, WARP section 3.1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.merging.ema import ema

from .properties import deterministic

counts, rates = st.integers(1, 300), st.floats(0, 1)


@deterministic
@given(counts, rates)
def test_closed_form_is_the_recursion(count: int, mu: float) -> None:
    checkpoints = np.random.default_rng(count).normal(size=(count, 4))
    theta = checkpoints[0]
    for checkpoint in checkpoints[1:]:
        theta = (1 - mu) * theta + mu * checkpoint
    np.testing.assert_allclose(ema(count, mu) @ checkpoints, theta, atol=1e-12)


@deterministic
@given(counts, rates)
def test_coefficients_are_an_average(count: int, mu: float) -> None:
    coefficients = ema(count, mu)
    assert coefficients.shape == (count,)
    assert coefficients.dtype == np.float64
    assert coefficients.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(coefficients >= 0)


@deterministic
@given(counts, st.floats(0.001, 0.999))
def test_weight_fades_with_age_except_the_starting_point(count: int, mu: float) -> None:
    assert np.all(np.diff(ema(count, mu)[1:]) >= 0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mu_0_keeps_the_first_and_mu_1_the_last(count: int) -> None:
    np.testing.assert_array_equal(ema(count, 0.0), np.eye(count)[0])
    np.testing.assert_array_equal(ema(count, 1.0), np.eye(count)[-1])


def test_one_checkpoint_is_itself() -> None:
    np.testing.assert_array_equal(ema(1, 0.01), [1])


def test_values_worked_out_by_hand() -> None:
    np.testing.assert_allclose(ema(4, 0.2), [0.512, 0.128, 0.16, 0.2], rtol=1e-15)


def test_mu_1_over_t_is_not_the_mean() -> None:
    """A running mean needs mu = 1/t at step t; a constant mu weighs the late ones more."""
    assert ema(3, 1 / 3).tolist() == pytest.approx([4 / 9, 2 / 9, 1 / 3])

"""LITI, WARP section 3.3."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.merging.liti import liti
from warmkit.merging.slerp import slerp

from .properties import deterministic, gram_of, unit_pair

etas = st.floats(-2, 2)
mixes = st.lists(st.floats(-3, 3), min_size=1, max_size=6).map(np.array)


@deterministic
@given(mixes, etas)
def test_eta_scales_the_task_vector(coefficients: np.ndarray, eta: float) -> None:
    rng = np.random.default_rng(0)
    init, models = rng.normal(size=5), rng.normal(size=(len(coefficients), 5))
    merged = liti(coefficients, eta) @ np.vstack([init, models])
    np.testing.assert_allclose(merged - init, eta * (coefficients @ (models - init)), atol=1e-12)


@deterministic
@given(mixes, etas)
def test_coefficients_of_all_weights_sum_to_one(coefficients: np.ndarray, eta: float) -> None:
    assert liti(coefficients, eta).sum() == pytest.approx(1, abs=1e-13)


@deterministic
@given(mixes)
def test_eta_0_is_the_init(coefficients: np.ndarray) -> None:
    np.testing.assert_array_equal(liti(coefficients, 0.0), [1, *np.zeros(len(coefficients))])


@deterministic
@given(mixes)
def test_eta_1_is_the_merge(coefficients: np.ndarray) -> None:
    np.testing.assert_array_equal(liti(coefficients, 1.0)[1:], coefficients)


def test_eta_1_of_an_average_needs_no_init() -> None:
    np.testing.assert_array_equal(liti(np.array([0.75, 0.25]), 1.0), [0, 0.75, 0.25])


def test_eta_2_goes_as_far_again() -> None:
    init, model = np.array([1.0, 2.0]), np.array([3.0, -1.0])
    np.testing.assert_array_equal(liti(np.ones(1), 2.0) @ np.vstack([init, model]), [5, -4])


@deterministic
@given(st.floats(0, 179), st.floats(0, 1), st.floats(0, 2))
def test_slerp_then_liti_has_eta_times_the_norm(angle: float, share: float, eta: float) -> None:
    vectors = unit_pair(angle)
    rows = liti(slerp(gram_of(vectors), np.array([1 - share, share])), eta)
    assert np.linalg.norm(rows[1:] @ vectors) == pytest.approx(eta, abs=1e-9)


@deterministic
@given(mixes, etas, etas)
def test_two_steps_multiply(coefficients: np.ndarray, first: float, second: float) -> None:
    once = liti(coefficients, first)
    np.testing.assert_allclose(liti(once[1:], second), liti(coefficients, first * second), atol=1e-12)


def test_returns_float64_for_the_init_and_every_model_and_keeps_its_argument() -> None:
    coefficients = np.array([0.5, 0.5])
    rows = liti(coefficients, 0.3)
    assert rows.shape == (3,)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(coefficients, [0.5, 0.5])

"""Norms, angles and the rounding of coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.merging.geometry import GRID, angles, cosines, norms, settle

from .properties import deterministic, gram_of, seeds, unit_pair


def test_norms_are_the_roots_of_the_diagonal() -> None:
    np.testing.assert_array_equal(norms(gram_of(np.array([[3.0, 4.0], [0.0, 0.0]]))), [5, 0])


def test_a_diagonal_below_zero_by_rounding_is_a_zero_vector() -> None:
    np.testing.assert_array_equal(norms(np.array([[-1e-20]])), [0])


@pytest.mark.parametrize("angle", [0, 30, 60, 90, 120, 180])
def test_angle_of_a_pair_is_in_degrees(angle: float) -> None:
    found = angles(gram_of(np.array([[1.0], [5.0]]) * unit_pair(angle)))
    np.testing.assert_allclose(found, [[0, angle], [angle, 0]], atol=2e-6)


@deterministic
@given(st.integers(1, 6), seeds)
def test_cosines_are_those_of_the_vectors(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 9))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(cosines(gram_of(vectors)), units @ units.T, atol=1e-12)


def test_rounding_does_not_carry_a_cosine_past_one() -> None:
    gram = np.array([[1.0, 1 + 1e-15], [1 + 1e-15, 1.0]])
    assert cosines(gram).max() == 1
    assert cosines(-gram + 2 * np.eye(2)).min() == -1
    assert np.isfinite(angles(gram)).all()


def test_a_zero_vector_has_no_angle() -> None:
    found = angles(gram_of(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])))
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    assert found[0, 2] == pytest.approx(90)


@pytest.mark.parametrize("scale", [1e-30, 1e-60, 1e30])
def test_tiny_and_huge_vectors_have_their_angle(scale: float) -> None:
    assert angles(gram_of(scale * unit_pair(60)))[0, 1] == pytest.approx(60)


@deterministic
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=9).map(np.array))
def test_settled_coefficients_are_the_nearest_multiples_of_two_to_the_minus_40(coefficients: np.ndarray) -> None:
    settled = settle(coefficients)
    np.testing.assert_array_equal(settled / 2.0**-40, np.round(settled / 2.0**-40))
    assert np.abs(settled - coefficients).max() <= GRID / 2
    np.testing.assert_array_equal(settle(settled), settled)


def test_settling_keeps_simple_shares() -> None:
    simple = np.array([0.0, 1.0, 0.5, 0.375, -2.0])
    np.testing.assert_array_equal(settle(simple), simple)


def test_noise_in_the_last_bits_does_not_survive_settling() -> None:
    coefficients = np.array([1 / 3, np.sqrt(0.5), 0.7, 1.1547])
    np.testing.assert_array_equal(settle(coefficients * (1 + 4e-16)), settle(coefficients))


def test_settling_moves_a_float32_result_by_far_less_than_one_rounding() -> None:
    assert GRID < 2.0**-24 / 2**15

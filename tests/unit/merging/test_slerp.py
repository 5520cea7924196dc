"""SLERP of task vectors, WARP section 3.2 and appendix B."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.errors import DegenerateError
from warmkit.merging.methods import METHODS
from warmkit.merging.slerp import slerp

from .properties import (
    Vector,
    assert_streams_to_rounding,
    degrees,
    deterministic,
    equal_shares,
    gram_of,
    norms,
    random_shares,
    seeds,
    shares_of_second,
    unit_pair,
)


def angle_between(a: Vector, b: Vector) -> float:
    """Return the angle by Kahan's formula, which loses no digits at 0 or 180 degrees."""
    left, right = a * np.linalg.norm(b), b * np.linalg.norm(a)
    return 2 * np.arctan2(np.linalg.norm(left - right), np.linalg.norm(left + right))


def step(a: Vector, b: Vector, share: float) -> Vector:
    """Return slerp(a, b, share) as WARP writes it, on the vectors themselves."""
    omega = angle_between(a, b)
    if omega == 0:
        return (1 - share) * a + share * b
    return (np.sin((1 - share) * omega) * a + np.sin(share * omega) * b) / np.sin(omega)


def equation_26(vectors: Vector, shares: Vector) -> Vector:
    merged = vectors[0]
    for k in range(1, len(vectors)):
        merged = step(merged, vectors[k], shares[k] / shares[: k + 1].sum())
    return merged


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    return init + equation_26(models - init, shares)


# ---- two models -------------------------------------------------------------------------------------------------------


@deterministic
@given(norms, degrees, shares_of_second)
def test_slerp_keeps_the_norm_of_task_vectors_of_equal_norm(norm: float, angle: float, share: float) -> None:
    vectors = unit_pair(angle, norm)
    merged = slerp(gram_of(vectors), np.array([1 - share, share])) @ vectors
    assert np.linalg.norm(merged) == pytest.approx(norm, rel=1e-9)


@deterministic
@given(norms, degrees, shares_of_second)
def test_share_is_how_far_along_the_arc_it_goes(norm: float, angle: float, share: float) -> None:
    vectors = unit_pair(angle, norm)
    merged = slerp(gram_of(vectors), np.array([1 - share, share])) @ vectors
    assert np.degrees(np.arctan2(merged[1], merged[0])) == pytest.approx(share * angle, abs=1e-5)


@deterministic
@given(norms, norms, st.floats(1, 179), shares_of_second)
def test_coefficients_of_two_are_ratios_of_sines_whatever_the_norms(
    first: float, second: float, angle: float, share: float
) -> None:
    vectors, omega = np.array([[first], [second]]) * unit_pair(angle), np.radians(angle)
    expected = np.sin([(1 - share) * omega, share * omega]) / np.sin(omega)
    np.testing.assert_allclose(slerp(gram_of(vectors), np.array([1 - share, share])), expected, rtol=1e-8, atol=1e-9)


@deterministic
@given(norms, norms, degrees, shares_of_second)
def test_two_models_can_be_swapped_with_their_shares(first: float, second: float, angle: float, share: float) -> None:
    vectors, shares = np.array([[first], [second]]) * unit_pair(angle), np.array([1 - share, share])
    swapped = slerp(gram_of(vectors[::-1]), shares[::-1])
    np.testing.assert_allclose(slerp(gram_of(vectors), shares), swapped[::-1], rtol=1e-9, atol=1e-12)


# ---- more than two: equation 26 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@deterministic
@given(seed=seeds)
def test_equal_shares_match_equation_26_on_the_vectors(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 40))
    merged = slerp(gram_of(vectors), equal_shares(count)) @ vectors
    expected = vectors[0]
    for k in range(1, count):
        expected = step(expected, vectors[k], 1 / (k + 1))
    np.testing.assert_allclose(merged, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@deterministic
@given(seed=seeds)
def test_any_shares_step_by_the_share_among_those_so_far(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 40)) * rng.uniform(0.1, 10, size=(count, 1)) + rng.normal(size=40)
    shares = random_shares(rng, count)
    np.testing.assert_allclose(slerp(gram_of(vectors), shares) @ vectors, equation_26(vectors, shares), rtol=1e-8, atol=1e-9)


@deterministic
@given(st.integers(2, 5), seeds)
def test_equal_norms_are_kept_for_any_number_of_models(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 40))
    vectors *= 3 / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.linalg.norm(slerp(gram_of(vectors), random_shares(rng, count)) @ vectors) == pytest.approx(3, rel=1e-9)


def test_order_matters_for_three_models() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 40)) * np.array([[1.0], [2.0], [3.0]])
    merged = [
        slerp(gram_of(vectors[[*order]]), equal_shares(3)) @ vectors[[*order]] for order in itertools.permutations(range(3))
    ]
    assert np.ptp(merged, axis=0).max() > 1e-3


def test_one_model_is_returned() -> None:
    np.testing.assert_array_equal(slerp(np.array([[4.0]]), np.ones(1)), [1])


# ---- degenerate angles ------------------------------------------------------------------------------------------------


@deterministic
@given(norms, norms, shares_of_second)
def test_slerp_of_parallel_task_vectors_is_lerp(first: float, second: float, share: float) -> None:
    vectors = np.outer([first, second], [0.6, 0.8])
    shares = np.array([1 - share, share])
    np.testing.assert_allclose(slerp(gram_of(vectors), shares), shares, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("angle", [10.0**-power for power in range(3, 10)])
@pytest.mark.parametrize("ratio", [1.0, 7.0])
def test_small_angles_approach_lerp_without_a_step(angle: float, ratio: float) -> None:
    """sin(s w) / sin(w) = s + s (1 - s^2) w^2 / 6 + ..., and s (1 - s^2) is at most 0.385."""
    vectors = np.array([[1.0], [ratio]]) * unit_pair(np.degrees(angle))
    for share in (0.1, 0.5, 0.9):
        shares = np.array([1 - share, share])
        difference = slerp(gram_of(vectors), shares) - shares
        assert np.all(np.abs(difference) <= 0.385 * angle**2 / 6 * 1.01 + 1e-15)


def test_coefficients_grow_steadily_from_lerp_on() -> None:
    halves = [slerp(gram_of(unit_pair(angle)), np.array([0.5, 0.5]))[0] for angle in np.linspace(0, 170, 400)]
    assert halves[0] == pytest.approx(0.5, abs=1e-15)
    assert np.all(np.diff(halves) > 0)
    assert np.diff(halves, 2).min() > -1e-9


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_zero_task_vector_is_a_step_of_lerp(place: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 10))
    vectors[place] = 0
    first = (vectors[0] + vectors[1]) / 2 if place < 2 else step(vectors[0], vectors[1], 1 / 2)
    expected = step(first, vectors[2], 1 / 3) if place < 2 else 2 / 3 * first
    np.testing.assert_allclose(slerp(gram_of(vectors), equal_shares(3)) @ vectors, expected, rtol=1e-9)


def test_zero_task_vectors_alone_are_lerp() -> None:
    np.testing.assert_allclose(slerp(np.zeros((3, 3)), np.array([0.5, 0.3, 0.2])), [0.5, 0.3, 0.2], rtol=1e-15)


@pytest.mark.parametrize("scale", [1e-30, 1e-60, 1e30])
def test_tiny_and_huge_task_vectors_have_their_angle(scale: float) -> None:
    vectors = scale * unit_pair(60)
    np.testing.assert_allclose(slerp(gram_of(vectors), np.array([0.5, 0.5])), [3**-0.5] * 2, rtol=1e-12)


def test_a_tiny_task_vector_beside_a_large_one_has_its_angle() -> None:
    vectors = np.array([[1e-30], [1.0]]) * unit_pair(60)
    np.testing.assert_allclose(slerp(gram_of(vectors), np.array([0.5, 0.5])), [3**-0.5] * 2, rtol=1e-12)


@pytest.mark.parametrize("second", [-1.0, -3.0, -1e-20])
def test_antiparallel_task_vectors_are_an_error(second: float) -> None:
    vectors = np.outer([1, second], [0.6, 0.8])
    with pytest.raises(DegenerateError, match="opposite directions"):
        slerp(gram_of(vectors), np.array([0.5, 0.5]))


@pytest.mark.parametrize("second", [-1.0, -3.0])
def test_antiparallel_task_vectors_are_averaged_straight_on_request(second: float) -> None:
    vectors = np.outer([1, second], [0.6, 0.8])
    np.testing.assert_array_equal(slerp(gram_of(vectors), np.array([0.75, 0.25]), "lerp"), [0.75, 0.25])


def test_end_points_of_antiparallel_task_vectors_need_no_arc() -> None:
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_array_equal(slerp(gram, np.array([1.0, 0.0])), [1, 0])
    np.testing.assert_array_equal(slerp(gram, np.array([0.0, 1.0])), [0, 1])


def test_a_running_merge_opposite_to_the_next_vector_is_an_error() -> None:
    vectors = np.array([[1.0, 1.0], [1.0, -1.0], [-2.0, 0.0]])
    with pytest.raises(DegenerateError):
        slerp(gram_of(vectors), equal_shares(3))
    running = slerp(gram_of(vectors[:2]), equal_shares(2))
    np.testing.assert_allclose(slerp(gram_of(vectors), equal_shares(3), "lerp"), [*(2 / 3 * running), 1 / 3], rtol=1e-12)


def test_only_the_last_tenth_of_a_degree_counts_as_opposite() -> None:
    vectors = unit_pair(179.9)
    assert np.linalg.norm(slerp(gram_of(vectors), np.array([0.5, 0.5])) @ vectors) == pytest.approx(1, rel=1e-6)
    with pytest.raises(DegenerateError):
        slerp(gram_of(unit_pair(179.95)), np.array([0.5, 0.5]))


def test_merge_through_the_kernels_is_equation_26() -> None:
    assert_streams_to_rounding(METHODS["slerp"], reference)
    assert_streams_to_rounding(METHODS["slerp"], reference, eta=1.0)

"""The spherical (Karcher) mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.errors import DegenerateError
from warmkit.merging.karcher import karcher
from warmkit.merging.methods import METHODS
from warmkit.merging.slerp import slerp

from .properties import (
    Vector,
    assert_streams_to_rounding,
    deterministic,
    equal_shares,
    gram_of,
    norms,
    random_shares,
    seeds,
    shares_of_second,
    unit_pair,
)


def units(vectors: Vector) -> Vector:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def log_maps(mean: Vector, directions: Vector) -> Vector:
    """Return the tangent vectors at `mean` that point to `directions`, as long as their angles."""
    across = directions - np.outer(directions @ mean, mean)
    angles = np.arctan2(np.linalg.norm(across, axis=1), directions @ mean)
    return angles[:, None] * units(across)


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    """Descend the sum of squared angles on the vectors themselves, by small steps."""
    vectors = models - init
    directions = units(vectors)
    mean = units((shares @ directions)[None])[0]
    for _ in range(400):
        mean = units((mean + 0.5 * shares @ log_maps(mean, directions))[None])[0] if len(models) > 1 else mean
    return init + shares @ np.linalg.norm(vectors, axis=1) * mean


def cone(rng: np.random.Generator, count: int) -> Vector:
    """Return vectors of any norm whose directions have a common side, as fine-tuned models have."""
    return (rng.normal(size=(count, 12)) + 1.5 * rng.normal(size=12)) * rng.uniform(0.1, 10, size=(count, 1))


@deterministic
@given(st.integers(2, 6), seeds)
def test_weighted_log_maps_cancel_at_the_mean(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, shares = cone(rng, count), random_shares(rng, count)
    merged = karcher(gram_of(vectors), shares) @ vectors
    residue = shares @ log_maps(merged / np.linalg.norm(merged), units(vectors))
    assert np.linalg.norm(residue) < 1e-7


@deterministic
@given(st.integers(2, 6), seeds)
def test_no_direction_nearby_is_closer_to_all(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, shares = cone(rng, count), random_shares(rng, count)

    def cost(direction: Vector) -> float:
        return float(shares @ np.linalg.norm(log_maps(direction, units(vectors)), axis=1) ** 2)

    mean = units((karcher(gram_of(vectors), shares) @ vectors)[None])[0]
    for nearby in units(mean + 0.01 * rng.normal(size=(5, 12))):
        assert cost(nearby) > cost(mean)


@deterministic
@given(st.integers(2, 6), seeds)
def test_length_is_the_mean_norm(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, shares = cone(rng, count), random_shares(rng, count)
    merged = karcher(gram_of(vectors), shares) @ vectors
    assert np.linalg.norm(merged) == pytest.approx(shares @ np.linalg.norm(vectors, axis=1), rel=1e-9)


@deterministic
@given(norms, st.floats(0, 170), shares_of_second)
def test_two_of_equal_norm_are_merged_as_by_slerp(norm: float, angle: float, share: float) -> None:
    vectors, shares = unit_pair(angle, norm), np.array([1 - share, share])
    np.testing.assert_allclose(
        karcher(gram_of(vectors), shares) @ vectors, slerp(gram_of(vectors), shares) @ vectors, rtol=1e-6, atol=1e-7 * norm
    )


@deterministic
@given(st.integers(3, 6), seeds)
def test_mean_does_not_depend_on_the_order(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, shares, order = cone(rng, count), random_shares(rng, count), rng.permutation(count)
    found = karcher(gram_of(vectors[order]), shares[order]) @ vectors[order]
    np.testing.assert_allclose(found, karcher(gram_of(vectors), shares) @ vectors, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("angle", [10.0**-power for power in range(3, 10)])
def test_small_angles_approach_lerp_of_equal_norms(angle: float) -> None:
    vectors, shares = unit_pair(np.degrees(angle)), np.array([0.7, 0.3])
    np.testing.assert_allclose(karcher(gram_of(vectors), shares) @ vectors, shares @ vectors, atol=angle**2)


@pytest.mark.parametrize("scale", [1e-30, 1e-60, 1e30])
def test_tiny_and_huge_task_vectors_have_their_mean(scale: float) -> None:
    vectors = scale * unit_pair(60)
    np.testing.assert_allclose(karcher(gram_of(vectors), np.array([0.5, 0.5])), [3**-0.5] * 2, rtol=1e-12)


def test_a_zero_task_vector_shortens_the_mean_and_does_not_turn_it() -> None:
    vectors = np.vstack([np.random.default_rng(0).normal(size=(2, 9)) + 1, np.zeros(9)])
    with_zero = karcher(gram_of(vectors), equal_shares(3)) @ vectors
    without = karcher(gram_of(vectors[:2]), equal_shares(2)) @ vectors[:2]
    np.testing.assert_allclose(with_zero, 2 / 3 * without, rtol=1e-12)


def test_zero_task_vectors_alone_keep_their_shares() -> None:
    np.testing.assert_array_equal(karcher(np.zeros((2, 2)), np.array([0.7, 0.3])), [0.7, 0.3])


def test_many_orthogonal_task_vectors_converge() -> None:
    for count in (2, 5, 10, 40):
        np.testing.assert_allclose(karcher(np.eye(count), equal_shares(count)), np.full(count, count**-0.5), rtol=1e-9)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.3), (0.01, 0.99)])
def test_opposite_directions_are_an_error_or_lerp(shares: tuple[float, float]) -> None:
    gram = np.outer([1.0, -2.0], [1.0, -2.0])
    with pytest.raises(DegenerateError, match="no spherical mean"):
        karcher(gram, np.array(shares))
    np.testing.assert_array_equal(karcher(gram, np.array(shares), "lerp"), shares)


def test_directions_that_cancel_are_an_error_or_lerp() -> None:
    thirds = np.array([[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]])  # 120 degrees apart in a plane
    with pytest.raises(DegenerateError):
        karcher(thirds, equal_shares(3))
    np.testing.assert_array_equal(karcher(thirds, equal_shares(3), "lerp"), equal_shares(3))


@pytest.mark.parametrize("count", [3, 4, 6])
def test_task_vectors_in_fewer_dimensions_than_models_have_their_mean(count: int) -> None:
    """A tensor of two numbers: the angles to the mean, which is their average, add up to zero."""
    angles = np.random.default_rng(count).uniform(-80, 80, count)
    vectors = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)
    merged = karcher(gram_of(vectors), equal_shares(count)) @ vectors
    assert np.degrees(np.arctan2(merged[1], merged[0])) == pytest.approx(angles.mean(), abs=1e-7)
    assert np.linalg.norm(merged) == pytest.approx(1, rel=1e-9)


@deterministic
@given(st.integers(3, 6), st.integers(2, 3), seeds)
def test_directions_all_around_have_a_mean_of_their_length_or_none(count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, shares = units(rng.normal(size=(count, size))), random_shares(rng, count)
    try:
        coefficients = karcher(gram_of(vectors), shares)
    except DegenerateError:
        return
    merged = coefficients @ vectors
    assert np.linalg.norm(merged) == pytest.approx(1, rel=1e-6)
    assert np.linalg.norm(shares @ log_maps(merged, vectors)) < 1e-5


def test_merge_through_the_kernels_is_the_mean_found_on_the_vectors() -> None:
    assert_streams_to_rounding(METHODS["karcher"], reference)
    assert_streams_to_rounding(METHODS["karcher"], reference, eta=1.0)

"""Model stock, Jang et al. 2024."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.merging.methods import METHODS
from warmkit.merging.model_stock import model_stock

from .properties import Vector, assert_streams_to_rounding, deterministic, gram_of, seeds


def ratio(vectors: Vector) -> float:
    """Return t of equation 6, from the mean cosine over all pairs of vectors."""
    count = len(vectors)
    pairs = list(itertools.combinations(vectors, 2))
    cosine = max(0.0, sum(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs) / len(pairs))
    return count * cosine / (1 + (count - 1) * cosine)


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    return init + ratio(models - init) * (models.mean(axis=0) - init)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@deterministic
@given(seed=seeds)
def test_coefficients_are_those_of_equation_6(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(count, 12)) + rng.normal() * rng.normal(size=12)) * rng.uniform(0.1, 10, size=(count, 1))
    np.testing.assert_allclose(model_stock(gram_of(vectors)), np.full(count, ratio(vectors) / count), rtol=1e-9, atol=1e-12)


@deterministic
@given(st.floats(0, 90))
def test_two_models_follow_equation_2(angle: float) -> None:
    cosine = np.cos(np.radians(angle))
    found = model_stock(np.array([[1, cosine], [cosine, 1]]))
    np.testing.assert_allclose(found, np.full(2, cosine / (1 + cosine)), rtol=1e-12, atol=1e-15)


@deterministic
@given(st.integers(2, 5), st.floats(0, 1))
def test_every_task_vector_is_orthogonal_to_the_way_from_another_to_the_merge(count: int, cosine: float) -> None:
    """The geometry behind the formula, for equal norms and angles."""
    gram = np.full((count, count), cosine) + (1 - cosine) * np.eye(count)
    merged = model_stock(gram)
    for one in range(count):
        other = (one + 1) % count
        assert gram[one, other] - gram[one] @ merged == pytest.approx(0, abs=1e-12)


def test_it_stays_between_the_init_and_the_mean() -> None:
    for cosine in np.linspace(-0.99, 1, 50):
        found = model_stock(np.array([[1, cosine], [cosine, 1]]))
        assert 0 <= found[0] == found[1] <= 0.5


@pytest.mark.parametrize("cosine", [0.0, -1e-9, -0.5, -1.0])
def test_without_a_common_direction_it_is_the_init(cosine: float) -> None:
    np.testing.assert_array_equal(model_stock(np.array([[1, cosine], [cosine, 1]])), [0, 0])


def test_more_models_at_the_same_angle_stay_closer_to_their_mean() -> None:
    ratios = [model_stock(np.full((m, m), 0.3) + 0.7 * np.eye(m)).sum() for m in range(2, 8)]
    assert np.all(np.diff(ratios) > 0)


def test_pairs_with_a_zero_task_vector_count_as_orthogonal() -> None:
    vectors = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)], [0.0, 0.0]])  # mean cosine (1/2 + 0 + 0) / 3
    np.testing.assert_allclose(model_stock(gram_of(vectors)), np.full(3, (3 / 6) / (1 + 2 / 6) / 3))


@pytest.mark.parametrize("scale", [1e-30, 1e-60, 1e30])
def test_tiny_and_huge_task_vectors_have_their_angle(scale: float) -> None:
    gram = scale**2 * np.array([[1, 0.5], [0.5, 1]])
    np.testing.assert_allclose(model_stock(gram), [1 / 3, 1 / 3])


def test_merge_through_the_kernels_is_the_formula() -> None:
    assert_streams_to_rounding(METHODS["model-stock"], reference)
    assert_streams_to_rounding(METHODS["model-stock"], reference, eta=1.0)

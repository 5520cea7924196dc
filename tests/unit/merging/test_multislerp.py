"""Multi-SLERP: the normalised mean of directions, at the mean length."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.errors import DegenerateError
from warmkit.merging.karcher import karcher
from warmkit.merging.methods import METHODS
from warmkit.merging.multislerp import multislerp

from .properties import Vector, assert_streams_to_rounding, gram_of, random_shares, siblings, unit_pair


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    vectors = models - init
    lengths = np.linalg.norm(vectors, axis=1)
    mean = shares @ (vectors / lengths[:, None])
    return init + shares @ lengths * mean / np.linalg.norm(mean)


def in_the_tangent_space(vectors: Vector, shares: Vector) -> Vector:
    """Go to the plane that touches the sphere at the mean direction, average there, and go back."""
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / lengths[:, None]
    mean = shares @ units / np.linalg.norm(shares @ units)
    step = shares @ (units - np.outer(units @ mean, mean))
    size = np.linalg.norm(step) + 1e-8
    return shares @ lengths * (np.cos(size) * mean + np.sin(size) / size * step)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_mean_in_the_tangent_space_stays_where_it_starts(count: int) -> None:
    rng = np.random.default_rng(count)
    vectors, shares = siblings(rng, count), random_shares(rng, count)
    expected = in_the_tangent_space(vectors, shares)
    np.testing.assert_allclose(multislerp(gram_of(vectors), shares) @ vectors, expected, rtol=1e-12, atol=1e-13)


def test_two_of_one_length_and_share_are_a_spherical_mean() -> None:
    gram = gram_of(unit_pair(100.0, 3.0))
    np.testing.assert_allclose(multislerp(gram, np.full(2, 0.5)), karcher(gram, np.full(2, 0.5)), rtol=1e-12)


def test_directions_that_cancel_have_no_mean() -> None:
    fan = np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    for vectors in (fan, unit_pair(180.0)):
        shares = np.full(len(vectors), 1 / len(vectors))
        with pytest.raises(DegenerateError, match="cancel"):
            multislerp(gram_of(vectors), shares)
        np.testing.assert_array_equal(multislerp(gram_of(vectors), shares, "lerp"), shares)


def test_merge_through_the_kernels_is_the_mean_of_directions() -> None:
    assert_streams_to_rounding(METHODS["multislerp"], reference)

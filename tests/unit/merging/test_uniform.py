"""Uniform soup, WARM equation 2."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.merging.lerp import lerp
from warmkit.merging.methods import METHODS
from warmkit.merging.uniform import uniform

from .properties import Vector, assert_streams_to_rounding


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    return models.mean(axis=0)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_uniform_is_lerp_of_equal_shares(count: int) -> None:
    shares = np.full(count, 1 / count)
    np.testing.assert_array_equal(uniform(len(shares)), lerp(shares))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 49])
def test_coefficients_sum_to_one(count: int) -> None:
    assert uniform(count).sum() == pytest.approx(1, abs=1e-15 * count)


def test_norm_of_orthogonal_task_vectors_shrinks_by_the_root_of_their_number() -> None:
    for count in range(1, 9):
        assert np.linalg.norm(uniform(count) @ np.eye(count)) == pytest.approx(count**-0.5)


def test_merge_through_the_kernels_is_the_mean() -> None:
    assert_streams_to_rounding(METHODS["uniform"], reference)
    assert_streams_to_rounding(METHODS["uniform"], reference, eta=1.0)

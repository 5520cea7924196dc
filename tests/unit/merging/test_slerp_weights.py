"""SLERP of full weights, WARP appendix C.2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from warmkit.errors import DegenerateError
from warmkit.merging.methods import METHODS
from warmkit.merging.slerp_weights import slerp_weights

from .properties import (
    Vector,
    assert_streams_to_rounding,
    deterministic,
    equal_shares,
    gram_of,
    merge,
    norms,
    seeds,
    shares_of_second,
    unit_pair,
)
from .test_slerp import equation_26


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    return equation_26(models, shares)


def test_the_init_does_not_enter() -> None:
    models, shares = np.random.default_rng(0).normal(size=(3, 9)), np.array([0.5, 0.3, 0.2])
    first, second = (merge(METHODS["slerp-weights"], init, models, shares) for init in (np.zeros(9), np.full(9, 7.0)))
    np.testing.assert_array_equal(first, second)


def test_it_is_slerp_of_task_vectors_from_zero_and_from_nowhere_else() -> None:
    models, shares = np.random.default_rng(0).normal(size=(2, 9)), np.array([0.5, 0.5])
    weights = merge(METHODS["slerp-weights"], np.zeros(9), models, shares)
    np.testing.assert_allclose(weights, merge(METHODS["slerp"], np.zeros(9), models, shares))
    assert np.abs(weights - merge(METHODS["slerp"], np.ones(9), models, shares)).max() > 1e-2


@deterministic
@given(norms, shares_of_second)
def test_norm_of_the_weights_is_kept(norm: float, share: float) -> None:
    vectors = unit_pair(30, norm)
    assert np.linalg.norm(slerp_weights(gram_of(vectors), np.array([1 - share, share])) @ vectors) == pytest.approx(norm)


@pytest.mark.parametrize("angle", [0.1, 1, 2.3])
def test_nearly_collinear_weights_are_nearly_averaged(angle: float) -> None:
    found = slerp_weights(gram_of(unit_pair(angle)), np.array([0.7, 0.3]))
    np.testing.assert_allclose(found, [0.7, 0.3], rtol=np.radians(angle) ** 2 / 6)


@deterministic
@given(seeds)
def test_coefficients_sum_to_more_than_one_where_there_is_an_angle(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(2, 9))
    assert slerp_weights(gram_of(vectors), np.array([0.5, 0.5])).sum() > 1


def test_opposite_weights_are_an_error_or_lerp() -> None:
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    with pytest.raises(DegenerateError):
        slerp_weights(gram, equal_shares(2))
    np.testing.assert_array_equal(slerp_weights(gram, equal_shares(2), "lerp"), equal_shares(2))


def test_merge_through_the_kernels_is_equation_26_on_the_weights() -> None:
    assert_streams_to_rounding(METHODS["slerp-weights"], reference)
    assert_streams_to_rounding(METHODS["slerp-weights"], reference, eta=1.0)

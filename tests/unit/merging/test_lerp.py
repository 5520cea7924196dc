"""LERP, WARP appendix B."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from warmkit.merging.lerp import lerp
from warmkit.merging.methods import METHODS

from .properties import Vector, assert_streams_to_rounding, degrees, deterministic, norms, shares_of_second, unit_pair


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    return (shares[:, None] * models).sum(axis=0)


@deterministic
@given(norms, degrees, shares_of_second)
def test_norm_is_that_of_lemma_2(norm: float, angle: float, share: float) -> None:
    vectors = unit_pair(angle, norm)
    merged = lerp(np.array([1 - share, share])) @ vectors
    expected = norm * np.sqrt(1 - 2 * (1 - np.cos(np.radians(angle))) * (share - share**2))
    assert np.linalg.norm(merged) == pytest.approx(expected, rel=1e-9)


@deterministic
@given(norms, degrees, shares_of_second)
def test_lerp_never_lengthens_the_task_vector(norm: float, angle: float, share: float) -> None:
    merged = lerp(np.array([1 - share, share])) @ unit_pair(angle, norm)
    assert np.linalg.norm(merged) <= norm * (1 + 1e-12)


def test_halfway_at_right_angles_the_norm_shrinks_by_the_root_of_two() -> None:
    assert np.linalg.norm(lerp(np.array([0.5, 0.5])) @ unit_pair(90)) == pytest.approx(np.sqrt(0.5))


def test_init_drops_out() -> None:
    models, shares = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([0.25, 0.75])
    for init in (np.zeros(2), np.array([100.0, -7.0])):
        np.testing.assert_allclose(init + lerp(shares) @ (models - init), [2.5, 4.25])


def test_merge_through_the_kernels_is_the_weighted_mean() -> None:
    assert_streams_to_rounding(METHODS["lerp"], reference)
    assert_streams_to_rounding(METHODS["lerp"], reference, eta=1.0)

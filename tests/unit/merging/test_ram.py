"""RAM, Yuan et al. 2026."""

from __future__ import annotations

import numpy as np

from .edits import merged_vector


def test_changes_of_different_weights_are_all_kept_whole() -> None:
    """What a mean would dilute: sparse updates that do not overlap."""
    vectors = np.zeros((3, 90))
    for model in range(3):
        vectors[model, model::3] = np.random.default_rng(model).normal(size=30)
    np.testing.assert_array_equal(merged_vector("ram", vectors), vectors.sum(axis=0))


def test_dense_changes_are_averaged_and_identical_ones_kept() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 90))
    np.testing.assert_allclose(merged_vector("ram", vectors), vectors.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(merged_vector("ram", np.tile(vectors[0], (3, 1))), vectors[0], rtol=1e-14)


def test_what_is_as_small_as_epsilon_does_not_count() -> None:
    vectors = np.array([[0.25, 0.26, 1.0], [1.0, 1.0, -0.25]])
    np.testing.assert_allclose(merged_vector("ram", vectors, epsilon=0.25), [1, 0.63, 1])
    np.testing.assert_allclose(merged_vector("ram", vectors, epsilon=[0.3, 0.0]), [1, 1, 0.375])

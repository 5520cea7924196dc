"""Iso-C, Marczak et al. 2025."""

from __future__ import annotations

import numpy as np

from .edits import merged_vector


def matrix(vectors: np.ndarray, shape: tuple[int, int] = (30, 10)) -> np.ndarray:
    return merged_vector("iso-c", vectors, shape=shape).reshape(shape)


def test_all_singular_values_are_the_mean_of_those_of_the_sum() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 300))
    before = np.linalg.svd(vectors.sum(axis=0).reshape(30, 10), compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(matrix(vectors), compute_uv=False), np.full(10, before.mean()))


def test_the_singular_vectors_stay() -> None:
    """U V^T is the orthogonal matrix nearest to the sum, so their product is symmetric and positive."""
    total = np.random.default_rng(1).normal(size=(12, 12))
    product = matrix(total.reshape(1, -1), (12, 12)).T @ total
    np.testing.assert_allclose(product, product.T, atol=1e-10)
    assert np.linalg.eigvalsh(product).min() > 0


def test_changes_of_low_rank_gain_no_directions() -> None:
    rng = np.random.default_rng(2)
    low = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 10))
    merged = matrix(low.reshape(1, -1))
    values = np.linalg.svd(low, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(merged, compute_uv=False)[:2], np.full(2, values.sum() / 10))
    assert np.linalg.matrix_rank(merged) == 2

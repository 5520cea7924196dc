"""TSV-M, Gargiulo et al. 2025."""

from __future__ import annotations

import numpy as np
import pytest

from .edits import merged_vector

SHAPE = (30, 10)


def low_rank(seed: int, rank: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(30, rank)) @ rng.normal(size=(rank, 10))).ravel()


def test_one_model_is_returned() -> None:
    vector = np.random.default_rng(0).normal(size=(1, 300))
    np.testing.assert_allclose(merged_vector("tsv-m", vector, shape=SHAPE), vector[0], atol=1e-12)


@pytest.mark.parametrize(("models", "rank"), [(2, 5), (3, 3), (20, 1)])
def test_models_that_agree_give_the_best_approximation_of_their_share_of_the_rank(models: int, rank: int) -> None:
    vector = np.random.default_rng(1).normal(size=300)
    u, s, v = np.linalg.svd(vector.reshape(SHAPE), full_matrices=False)
    merged = merged_vector("tsv-m", np.tile(vector, (models, 1)), shape=SHAPE).reshape(SHAPE)
    np.testing.assert_allclose(merged, u[:, :rank] * s[:rank] @ v[:rank], atol=1e-9)


def test_models_without_common_directions_are_kept_whole() -> None:
    vectors = np.zeros((2, *SHAPE))
    vectors[0, :15, :5], vectors[1, 15:, 5:] = np.random.default_rng(2).normal(size=(2, 15, 5))
    merged = merged_vector("tsv-m", vectors.reshape(2, 300), shape=SHAPE)
    np.testing.assert_allclose(merged.reshape(SHAPE), vectors.sum(axis=0), atol=1e-12)


def test_singular_values_are_those_of_the_models() -> None:
    """What orthogonal directions are for: nothing that one model does is made larger or smaller by another."""
    vectors = np.array([low_rank(seed, 2) for seed in range(3)])
    merged = merged_vector("tsv-m", vectors, shape=SHAPE).reshape(SHAPE)
    expected = np.concatenate([np.linalg.svd(each.reshape(SHAPE), compute_uv=False)[:2] for each in vectors])
    np.testing.assert_allclose(np.linalg.svd(merged, compute_uv=False)[:6], np.sort(expected)[::-1], rtol=1e-8)
    assert np.linalg.matrix_rank(merged) == 6

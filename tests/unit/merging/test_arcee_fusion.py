"""Arcee Fusion, as in mergekit."""

from __future__ import annotations

import numpy as np

from warmkit.merging.arcee_fusion import EPSILON, divergences

from .edits import merged_vector


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) + EPSILON


def test_divergences_are_those_of_softmaxes_however_small() -> None:
    rng = np.random.default_rng(0)
    init = rng.normal(size=(40, 25))
    for size in (1.0, 1e-2, 1e-4):
        model = init + size * rng.normal(size=init.shape)
        p, q = softmax(model), softmax(init)
        found = divergences(np.stack([init.ravel(), model.ravel()]), 25)[0]
        np.testing.assert_allclose(found, (p * np.log(p / q)).sum(axis=1), rtol=1e-6 + 1e-14 / size**2)
        assert (found > 0).all()


def test_a_row_that_moves_its_softmax_more_keeps_more_of_the_same_changes() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 50))
    vectors[0] *= 3
    found = merged_vector("arcee-fusion", vectors.reshape(1, 100), shape=(2, 50), cuts=[30, 77]).reshape(2, 50)
    kept = (found != 0).sum(axis=1)
    assert kept[0] > kept[1]
    np.testing.assert_array_equal(found[found != 0], vectors[found != 0])


def test_each_model_has_quartiles_of_its_own() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 100)) * [[1], [0.01]]
    both = merged_vector("arcee-fusion", vectors, [1.0, 2.0], shape=(10, 10))
    first, second = (merged_vector("arcee-fusion", vectors[[m]], shape=(10, 10)) for m in (0, 1))
    np.testing.assert_allclose(both, first + 2 * second, rtol=1e-13)
    assert np.any(first)
    assert np.any(second)

"""DARE by TIES, Yu et al. 2024."""

from __future__ import annotations

import numpy as np

from .edits import merged_vector


def test_of_one_model_it_is_dare() -> None:
    vector = np.random.default_rng(0).normal(size=(1, 200))
    np.testing.assert_array_equal(merged_vector("dare-ties", vector, seed=3), merged_vector("dare-linear", vector, seed=3))


def test_of_one_sign_it_is_dare_and_kept_whole_it_is_ties() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 200))
    same = merged_vector("dare-linear", np.abs(vectors))
    np.testing.assert_allclose(merged_vector("dare-ties", np.abs(vectors)), same)
    for normalize in (False, True):
        trimmed = merged_vector("ties", vectors, density=1.0, normalize=normalize)
        np.testing.assert_array_equal(merged_vector("dare-ties", vectors, density=1.0, normalize=normalize), trimmed)


def test_the_sign_is_elected_after_the_drop() -> None:
    vectors = np.array([[3.0] * 400, [-1.0] * 400])
    found = merged_vector("dare-ties", vectors, density=0.5)
    assert set(np.unique(found)) == {-2.0, 0.0, 6.0}, "-1 wins where 3 was dropped"

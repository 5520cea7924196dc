"""DELLA, Deep et al. 2024."""

from __future__ import annotations

import numpy as np

from .edits import merged_vector


def test_without_a_window_it_is_dare_with_the_election_of_ties() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 60))
    for normalize in (False, True):
        found = merged_vector("della", vectors, shape=(6, 10), epsilon=0.0, normalize=normalize)
        np.testing.assert_array_equal(found, merged_vector("dare-ties", vectors, shape=(6, 10), normalize=normalize))


def test_of_one_model_it_is_what_its_mask_leaves() -> None:
    vector = np.random.default_rng(0).normal(size=(1, 60))
    found = merged_vector("della", vector, shape=(6, 10))
    np.testing.assert_array_equal(found, merged_vector("della-linear", vector, shape=(6, 10)))


def test_the_mean_is_the_default_as_in_the_paper() -> None:
    vectors = np.ones((2, 400))
    found = merged_vector("della", vectors, density=1.0)
    np.testing.assert_array_equal(found, 1)
    np.testing.assert_array_equal(merged_vector("della", vectors, density=1.0, normalize=False), 2)

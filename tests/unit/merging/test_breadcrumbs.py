"""Model breadcrumbs, Davari and Belilovsky 2023."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from .edits import merged_vector
from .properties import deterministic, seeds


@deterministic
@given(seed=seeds, density=st.floats(0.01, 1), gamma=st.floats(0, 0.9), size=st.integers(2, 300), levels=st.integers(1, 20))
def test_the_outliers_and_the_smallest_go_and_exactly_the_share_stays(
    seed: int, density: float, gamma: float, size: int, levels: int
) -> None:
    values = np.random.default_rng(seed).integers(1, levels + 1, size=(1, size)) / 8
    kept = merged_vector("breadcrumbs", values, density=density, gamma=gamma, cuts=[size // 2]) != 0
    count = int(density * size)
    assert kept.sum() == count
    top = min(int(gamma * size), size - count)
    np.testing.assert_array_equal(np.sort(values[0][kept]), np.sort(values[0])[::-1][top : top + count][::-1])


def test_without_outliers_it_is_the_sum_of_what_ties_trims() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 100))
    trimmed = [merged_vector("ties", vector[None], density=0.4) for vector in vectors]
    np.testing.assert_allclose(merged_vector("breadcrumbs", vectors, density=0.4, gamma=0.0), np.sum(trimmed, axis=0))


def test_a_share_and_outliers_for_each_model() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 100))
    both = merged_vector("breadcrumbs", vectors, density=[0.2, 0.9], gamma=[0.1, 0.0])
    alone = [
        merged_vector("breadcrumbs", vector[None], density=density, gamma=gamma)
        for vector, density, gamma in zip(vectors, (0.2, 0.9), (0.1, 0.0))
    ]
    np.testing.assert_allclose(both, np.sum(alone, axis=0))

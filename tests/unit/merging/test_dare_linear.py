"""DARE by task arithmetic, Yu et al. 2024."""

from __future__ import annotations

import numpy as np
import pytest

from .edits import merged_vector


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_the_share_is_kept_and_the_mean_with_it(density: float) -> None:
    size = 100_000
    found = merged_vector("dare-linear", np.ones((1, size)), density=density)
    assert set(np.unique(found)) == {0.0, 1 / density}
    spread = np.sqrt(density * (1 - density) / size)
    assert abs((found != 0).mean() - density) < 4 * spread
    assert abs(found.mean() - 1) < 4 * spread / density


def test_the_mean_over_seeds_is_task_arithmetic() -> None:
    vectors, scales = np.random.default_rng(0).normal(size=(2, 20)), [1.0, -0.5]
    merges = np.array([merged_vector("dare-linear", vectors, scales, density=0.5, seed=seed) for seed in range(2000)])
    deviation = np.sqrt((np.array(scales)[:, None] ** 2 * vectors**2).sum(axis=0) / 2000)
    assert (np.abs(merges.mean(axis=0) - np.array(scales) @ vectors) < 4.5 * deviation).all()


def test_kept_whole_it_is_task_arithmetic() -> None:
    vectors, scales = np.random.default_rng(0).normal(size=(3, 20)), [1.0, -0.5, 2.0]
    np.testing.assert_allclose(merged_vector("dare-linear", vectors, scales, density=1.0), np.array(scales) @ vectors)

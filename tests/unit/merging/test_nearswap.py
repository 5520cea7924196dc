"""NearSwap, alchemonaut 2024."""

from __future__ import annotations

import numpy as np
import pytest

from .edits import merged_vector


@pytest.mark.parametrize("limit", [0.0, 1e-3, 0.1, 10.0])
def test_it_is_an_interpolation_by_nearness(limit: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(1, 200))
    share = np.minimum(limit / np.abs(vectors[0]), 1)
    np.testing.assert_allclose(merged_vector("nearswap", vectors, limit=limit, cuts=[70]), share * vectors[0], rtol=1e-14)


def test_nothing_moves_further_than_the_limit() -> None:
    vectors = np.random.default_rng(1).normal(size=(3, 200))
    assert np.abs(merged_vector("nearswap", vectors, limit=0.01)).max() <= 0.03

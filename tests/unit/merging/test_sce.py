"""SCE, Wan et al. 2024."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.errors import UsageError

from .edits import merged_vector


def test_weights_are_the_shares_of_the_squares() -> None:
    vectors = np.abs(np.random.default_rng(0).normal(size=(3, 200))) * np.array([[1], [2], [4]])
    weights = (vectors**2).sum(axis=1) / (vectors**2).sum()
    np.testing.assert_allclose(merged_vector("sce", vectors), weights @ vectors, rtol=1e-10)


def test_identical_models_are_a_fixed_point_until_something_must_be_selected() -> None:
    vector = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(merged_vector("sce", np.tile(vector, (3, 1))), vector, rtol=1e-11)
    np.testing.assert_array_equal(merged_vector("sce", np.tile(vector, (3, 1)), select_topk=0.9), 0)


@pytest.mark.parametrize("topk", [0.1, 0.5, 0.99])
def test_the_share_of_what_varies_is_selected(topk: float) -> None:
    rng = np.random.default_rng(0)
    vectors = np.abs(rng.normal(size=(3, 100)))
    vectors[:, 60:] = vectors[0, 60:]  # no variance here
    found = merged_vector("sce", vectors, select_topk=topk, cuts=[50])
    assert np.count_nonzero(found) == int(topk * 60)
    spread = vectors.std(axis=0)
    assert spread[found != 0].min() >= np.sort(spread)[-int(topk * 60)]


def test_the_minority_is_judged_without_weights() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [-1.5, 9.0]])  # by weights the third would win
    found = merged_vector("sce", vectors)
    assert found[0] == pytest.approx(1)


def test_coefficients_are_refused() -> None:
    with pytest.raises(UsageError, match="sce weighs the models itself; use lerp"):
        merged_vector("sce", np.ones((2, 3)), [1, 2])

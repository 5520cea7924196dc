"""TIES, Yadav et al. 2023."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warmkit.merging.methods import METHODS

from .edits import merged_vector
from .properties import deterministic, seeds


@deterministic
@given(seed=seeds, density=st.floats(0.001, 1), size=st.integers(1, 300), levels=st.integers(1, 20))
def test_exactly_the_share_is_kept_however_many_tie(seed: int, density: float, size: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(1, levels + 1, size=(1, size)) / 8
    kept = merged_vector("ties", values, density=density, cuts=sorted({1, size // 2, size - 1} - {0, size})) != 0
    assert kept.sum() == max(1, int(density * size))
    assert values[0][kept].min() >= values[0][~kept].max(initial=0)
    border = values[0] == values[0][kept].min()
    assert (np.diff(kept[border].astype(int)) <= 0).all(), "of those that tie, the first are kept"


def test_magnitudes_of_all_sizes_are_ranked_exactly() -> None:
    """From subnormals to the largest float32, so that every half of the bits decides somewhere."""
    rng = np.random.default_rng(0)
    bits = np.sort(rng.choice(0x7F7FFFFF, 3000, replace=False)).astype(np.uint32)
    close = np.arange(0x3F800000 - 1500, 0x3F800000 + 1500, dtype=np.uint32)  # differ in the lower half alone
    for magnitudes in (bits, close):
        values = magnitudes.view(np.float32).astype(np.float64)
        order = rng.permutation(values.size)
        signs = rng.choice([-1.0, 1.0], values.size)
        for keep in (1, 2, 1499, 1500, 1501, 2999):
            found = merged_vector("ties", (signs * values)[order][None], density=(keep + 0.5) / values.size, cuts=[700, 701])
            np.testing.assert_array_equal(np.sort(np.abs(found[found != 0])), values[-keep:])


def test_of_one_sign_and_kept_whole_it_is_the_weighted_mean() -> None:
    vectors, scales = np.abs(np.random.default_rng(0).normal(size=(3, 50))), [1.0, 2.0, 0.5]
    found = merged_vector("ties", vectors, scales, density=1.0)
    np.testing.assert_allclose(found, np.array(scales) @ vectors / 3.5, rtol=1e-14)
    total = merged_vector("ties", vectors, scales, density=1.0, normalize=False)
    np.testing.assert_allclose(total, np.array(scales) @ vectors, rtol=1e-14)


def test_a_model_merged_with_itself_is_trimmed_and_no_more() -> None:
    vector = np.random.default_rng(1).normal(size=50)
    alone = merged_vector("ties", vector[None], density=0.3)
    np.testing.assert_allclose(merged_vector("ties", np.tile(vector, (3, 1)), density=0.3), alone, rtol=1e-14)
    assert np.count_nonzero(alone) == 15


def test_a_negative_weight_votes_against() -> None:
    vectors = np.array([[1.0, 1.0], [2.0, -2.0]])
    np.testing.assert_array_equal(merged_vector("ties", vectors, [1, -1], density=1.0), [-2, 1.5])


def test_the_share_of_the_paper_is_the_default() -> None:
    assert METHODS["ties"].parameters[0].default == 0.2
    assert np.count_nonzero(merged_vector("ties", np.arange(1.0, 11)[None])) == 2

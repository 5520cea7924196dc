"""DELLA without its election, Deep et al. 2024."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.errors import UsageError

from .edits import merged_vector


def test_larger_changes_are_kept_more_often_as_the_window_says() -> None:
    rows, width = 4000, 5
    vectors = np.tile([1.0, -2.0, 3.0, 4.0, -5.0], rows)[None]
    found = merged_vector("della-linear", vectors, shape=(rows, width), density=0.5, epsilon=0.2).reshape(rows, width)
    np.testing.assert_allclose((found != 0).mean(axis=0), [0.3, 0.4, 0.5, 0.6, 0.7], atol=4 * 0.5 / np.sqrt(rows))
    np.testing.assert_allclose(found.max(axis=0)[[0, 2, 3]], np.array([1, 3, 4]) / [0.3, 0.5, 0.6])
    np.testing.assert_allclose(found.mean(axis=0), [1, -2, 3, 4, -5], atol=0.25)


def test_ranks_are_those_of_a_row_wherever_blocks_end() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 7 * 90))
    for shape in ((7, 90), (7, 9, 10), (630,), (630, 1), (1, 630)):
        whole = merged_vector("della-linear", vectors, shape=shape)
        np.testing.assert_array_equal(merged_vector("della-linear", vectors, shape=shape, cuts=[1, 89, 91, 400]), whole)
    flat, rows = (merged_vector("della-linear", vectors, shape=shape) for shape in ((630,), (7, 90)))
    assert not np.array_equal(flat, rows)


def test_without_a_window_it_is_dare() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 60))
    found = merged_vector("della-linear", vectors, shape=(6, 10), epsilon=0.0)
    np.testing.assert_array_equal(found, merged_vector("dare-linear", vectors, shape=(6, 10)))


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.1), (0.9, 0.2), (0.05, 0.15)])
def test_chances_that_leave_the_unit_interval_are_refused(density: float, epsilon: float) -> None:
    with pytest.raises(UsageError, match=f"density {density} and epsilon {epsilon} give chances from .*; lower epsilon"):
        merged_vector("della-linear", np.ones((1, 4)), density=density, epsilon=epsilon)

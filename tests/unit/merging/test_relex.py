"""RELEX, Wei et al. 2026."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from warmkit.merging.methods import METHODS
from warmkit.merging.relex import relex

from .properties import Vector, assert_streams_to_rounding, deterministic, gram_of, seeds


def continued(vectors: Vector, times: float, steps: Vector) -> Vector:
    """Return the task vector at the target step by a singular value decomposition and numpy's own fit."""
    left, values, right = np.linalg.svd(vectors, full_matrices=False)
    coordinates = left[:, 0] * values[0]
    line = np.polynomial.Polynomial.fit(steps, coordinates, 1)
    return line(times * steps.max()) * right[0]


@deterministic
@given(seeds)
def test_the_coefficients_are_those_of_a_decomposition_and_a_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, direction = int(rng.integers(2, 9)), rng.normal(size=30)
    steps = np.sort(rng.choice(500, count, replace=False)) + 1.0
    vectors = np.outer(steps, direction) + 0.2 * rng.normal(size=(count, 30))
    times = float(rng.uniform(0.5, 20))
    found = relex(gram_of(vectors), times, steps.tolist()) @ vectors
    np.testing.assert_allclose(found, continued(vectors, times, steps), rtol=1e-7, atol=1e-7 * np.abs(found).max())


def test_without_steps_checkpoints_are_evenly_spaced() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 9)).cumsum(axis=0)
    np.testing.assert_allclose(relex(gram_of(vectors), 3.0), relex(gram_of(vectors), 3.0, [1, 2, 3, 4]), rtol=1e-12)
    np.testing.assert_allclose(relex(gram_of(vectors), 3.0), relex(gram_of(vectors), 3.0, [20, 40, 60, 80]), rtol=1e-12)


def test_a_straight_run_is_continued_exactly() -> None:
    direction = np.arange(1.0, 6.0)
    vectors = np.outer([100, 200, 300], direction)
    for times in (1.0, 2.0, 10.0):
        merged = relex(gram_of(vectors), times, [100, 200, 300]) @ vectors
        np.testing.assert_allclose(merged, 300 * times * direction, rtol=1e-9)


def test_what_did_not_move_stays() -> None:
    assert relex(np.zeros((3, 3))).tolist() == [0, 0, 0]


def reference(init: Vector, models: Vector, shares: Vector) -> Vector:
    return init + continued(models - init, 2.0, np.arange(1.0, len(models) + 1))


def test_it_streams_to_rounding() -> None:
    assert_streams_to_rounding(METHODS["relex"], reference)

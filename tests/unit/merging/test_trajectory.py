"""Shape of a run, against the same numbers from its weights."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given

from warmkit.merging.trajectory import trajectory

from .properties import deterministic, seeds


@deterministic
@given(seeds)
def test_the_gram_matrix_says_what_the_weights_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 8))
    run = rng.normal(size=(count, 40)).cumsum(axis=0)  # task vectors
    steps = np.sort(rng.choice(1000, count, replace=False)) + 1.0
    moves = np.diff(np.vstack([np.zeros(40), run]), axis=0)
    found = trajectory(run @ run.T, steps.tolist())
    np.testing.assert_allclose(found.distances, np.linalg.norm(run, axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.moves, np.linalg.norm(moves, axis=1), rtol=1e-9)
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.pairwise(moves)]
    np.testing.assert_allclose(found.turns[1:], np.degrees(np.arccos(cosine)), rtol=1e-6)
    assert np.isnan(found.turns[0])
    values = np.linalg.svd(run, compute_uv=True)
    squares = values[1] ** 2
    np.testing.assert_allclose(found.participation, squares.sum() ** 2 / (squares**2).sum(), rtol=1e-9)
    np.testing.assert_allclose(found.first_share, squares[0] / squares.sum(), rtol=1e-9)
    if count > 2:
        along = run @ values[2][0]
        np.testing.assert_allclose(found.linearity, np.corrcoef(steps, along)[0, 1] ** 2, rtol=1e-6, atol=1e-9)
    else:
        assert np.isnan(found.linearity)


def test_directions_at_right_angles_count_as_many() -> None:
    assert trajectory(np.eye(5), [1, 2, 3, 4, 5]).participation == 5


def test_a_run_that_did_not_move_has_no_shape() -> None:
    found = trajectory(np.zeros((3, 3)), [1, 2, 3])
    assert found.distances.tolist() == [0, 0, 0]
    assert np.isnan([found.participation, found.first_share, found.linearity]).all()

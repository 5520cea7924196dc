"""Matrices whose columns lie apart, read row by row: against numpy's own transposes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmkit.merging.turns import BYTES, turn


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "float32", "float64"])
@given(
    rows=st.sampled_from([1, 7, 8, 9, 33, 70]),
    columns=st.sampled_from([1, 5, 8, 15, 16, 17, 64, 131]),
    step=st.integers(1, 3),
    seed=st.integers(0, 9),
    cuts=st.lists(st.floats(0, 1), max_size=3),
)
@settings(max_examples=40)
def test_pieces_of_a_matrix_are_its_own(kind: str, rows: int, columns: int, step: int, seed: int, cuts: list[float]) -> None:
    draw = np.random.default_rng(seed)
    stored = draw.integers(0, 256, (columns, rows * step * np.dtype(kind).itemsize), np.uint8).view(kind)
    order = draw.permutation(columns)
    raw = np.concatenate([stored.ravel(), np.zeros(BYTES, kind)])
    expected = stored[order, ::step].T.ravel()
    edges = sorted({0, expected.size, *(int(cut * expected.size) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        found = np.zeros(stop - start + 2, kind)
        turn(raw, order * stored.shape[1], step, start, found[1:-1])
        assert found[1:-1].tobytes() == expected[start:stop].tobytes()
        assert not found[0]
        assert not found[-1]

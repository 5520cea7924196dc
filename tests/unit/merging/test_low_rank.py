"""Sums of a base and a product of thin factors, against exact arithmetic, in any pieces."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from warmkit.merging import low_rank
from warmkit.merging.low_rank import ROWS, STRIP, WIDTH

STORED = {"uint16": torch.bfloat16, "int16": torch.float16, "float32": torch.float32, "float64": torch.float64}


def matrices(
    rows: int, columns: int, rank: int, storage: str, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a base as stored and as float64, and the factors."""
    draw = np.random.default_rng(seed)
    kind = "float64" if storage == "float64" else "float32"
    base = torch.from_numpy(draw.standard_normal(rows * columns)).to(STORED[storage])
    stored = base.view({2: torch.int16, 4: torch.float32, 8: torch.float64}[base.element_size()]).numpy().view(storage)
    return (
        stored,
        base.double().numpy(),
        draw.standard_normal((rows, rank)).astype(kind),
        draw.standard_normal((rank, columns)).astype(kind),
    )


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize(
    ("rows", "columns", "rank"), [(1, 1, 1), (ROWS, WIDTH, 16), (7, WIDTH - 1, 3), (5, STRIP + 37, 5), (33, 1, 1)]
)
def test_a_sum_is_exact_to_the_rounding_of_its_terms(rows: int, columns: int, rank: int, storage: str) -> None:
    stored, base, left, right = matrices(rows, columns, rank, storage)
    found = np.empty(rows * columns, left.dtype)
    low_rank.add(stored, 0, low_rank.pack(left, right), found)
    exact = base + (left.astype(np.longdouble) @ right.astype(np.longdouble)).ravel().astype(np.float64)
    terms = (np.abs(left).astype(float) @ np.abs(right).astype(float)).ravel()
    unit = np.finfo(left.dtype).eps
    assert np.all(np.abs(found - exact) <= unit * (np.abs(exact) + rank * terms))


def test_every_step_is_a_fused_multiply_add_from_zero_then_one_sum() -> None:
    """The definition, by itself: other orders or separate roundings give other bits, so other machines would too."""
    stored, base, left, right = matrices(6, 40, 9, "float32", seed=4)
    found = np.empty(240, "float32")
    low_rank.add(stored, 0, low_rank.pack(left, right), found)
    expected = np.zeros((6, 40), "float32")
    for k in range(9):  # the product of two float32 is exact in float64; one float64 sum of it is, here, too
        expected = (expected.astype(np.float64) + np.outer(left[:, k].astype(np.float64), right[k].astype(np.float64))).astype(
            "float32"
        )
    np.testing.assert_array_equal(found, (base.astype("float32") + expected.ravel()))


@given(
    rows=st.integers(1, 12),
    columns=st.sampled_from([1, 5, WIDTH, WIDTH + 1, STRIP + 3]),
    rank=st.integers(1, 6),
    by_column=st.booleans(),
    cuts=st.lists(st.floats(0, 1), max_size=4),
)
@settings(max_examples=40)
def test_pieces_make_the_whole(rows: int, columns: int, rank: int, by_column: bool, cuts: list[float]) -> None:
    stored, _, left, right = matrices(rows, columns, rank, "uint16")
    product, size = low_rank.pack(left, right), rows * columns
    factors = np.linspace(0.5, 2, columns if by_column else rows).astype("float32")
    whole = np.empty(size, "float32")
    low_rank.add(stored, 0, product, whole)
    scaled = whole.copy()
    low_rank.scale(scaled, 0, columns, by_column, factors)
    spread = np.tile(factors, rows) if by_column else np.repeat(factors, columns)
    np.testing.assert_array_equal(scaled, whole * spread)
    sums = np.zeros(columns if by_column else rows)
    edges = sorted({0, size, *(math.floor(cut * size) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        piece = np.empty(stop - start, "float32")
        low_rank.add(stored[start:stop], start, product, piece)
        np.testing.assert_array_equal(piece, whole[start:stop])
        low_rank.add_squares(piece, start, columns, by_column, sums)
        low_rank.scale(piece, start, columns, by_column, factors)
        np.testing.assert_array_equal(piece, scaled[start:stop])
    squares = np.square(whole.reshape(rows, columns).astype(float)).sum(axis=0 if by_column else 1)
    np.testing.assert_allclose(sums, squares, rtol=1e-13)

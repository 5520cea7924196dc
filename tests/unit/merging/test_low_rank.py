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
from warmkit.merging.kernels import NumbaKernels, Space
from warmkit.merging.low_rank import ROWS, STRIP, TILE, WIDTH, AddingKernels, LowRank

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


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_product_alone_is_that_of_the_sum_for_any_number_of_rows(kind: str) -> None:
    _, _, left, right = matrices(9, WIDTH + 5, 20, kind, seed=2)
    packed, expected = low_rank.pack(left[:0], right), np.zeros(9 * (WIDTH + 5), left.dtype)
    low_rank.add(np.zeros_like(expected), 0, low_rank.pack(left, right), expected)
    for rows in (slice(0, 9), slice(3, 4), slice(4, 9)):
        found = low_rank.multiply(left[rows], packed)
        np.testing.assert_array_equal(found, expected.reshape(9, -1)[rows])
    assert low_rank.multiply(left[:0], packed).shape == (0, WIDTH + 5)


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


# ---- sums on the way -------------------------------------------------------------------------------------------------


def rows_apart(storage: str, start: int, size: int) -> tuple[np.ndarray, list[LowRank | None], np.ndarray]:
    """Return three 16-bit rows of which the first and last have products, of other ranks, and their sums in float32."""
    products: list[LowRank | None] = []
    inputs, sums = np.empty((3, size), storage), np.empty((3, size), np.float32)
    for row, rank in enumerate((3, 0, 16)):
        stored, base, left, right = matrices(300, 250, max(rank, 1), storage, seed=row)
        product = low_rank.pack(left, right) if rank else None
        inputs[row], sums[row] = stored[start : start + size], base[start : start + size]
        if product is not None:
            low_rank.add(inputs[row], start, product, sums[row])
        products.append(product)
    return inputs, products, sums


@pytest.mark.parametrize("storage", ["uint16", "int16"])
@pytest.mark.parametrize(("start", "size"), [(0, 75_000), (777, 2 * TILE), (1, TILE + 1), (74_999, 1)])
@pytest.mark.parametrize("output", ["float32", "float64"])
@pytest.mark.parametrize("coefficients", [(0.5, 0.25, 0.25), (0, 0, 1), (0.3, 0.7, 0), (0, 1, 0)])
def test_sums_on_the_way_are_those_that_are_stored_first(
    storage: str, start: int, size: int, output: str, coefficients: tuple[float, ...]
) -> None:
    inputs, products, sums = rows_apart(storage, start, size)
    kernels = AddingKernels([each and [each] for each in products], start, np.full((3, TILE), np.nan, np.float32))
    found, expected = np.empty(size, output), np.empty(size, output)
    assert kernels.combine(np.array(coefficients), inputs, found)
    assert NumbaKernels().combine(np.array(coefficients), sums, expected)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("storage", ["uint16", "int16"])
def test_to_16_bits_they_are_rounded_as_finely_as_sums_of_16_bits(storage: str) -> None:
    inputs, products, sums = rows_apart(storage, 5, 40_000)
    kernels = AddingKernels([each and [each] for each in products], 5, np.empty((3, TILE), np.float32))
    coefficients, found = np.array([0.5, 0.3, 0.2]), np.empty(40_000, storage)
    kernels.combine(coefficients, inputs, found)
    exact = coefficients @ sums.astype(np.float64)
    terms = coefficients @ np.abs(sums).astype(np.float64)
    values = torch.from_numpy(found.view(np.int16)).view(STORED[storage]).double().numpy()
    half = {"uint16": 2.0**-9, "int16": 2.0**-12}[storage] * 2
    assert (np.abs(values - exact) <= half / 2 * 2.0 ** np.ceil(np.log2(np.abs(exact))) + 2.0**-23 * terms + 2.0**-25).all()


@pytest.mark.parametrize("space", ["weights", "task vectors", "init and task vectors"])
@pytest.mark.parametrize(("start", "size"), [(0, 75_000), (777, TILE + 3), (74_999, 1)])
def test_their_products_are_those_of_the_sums(space: Space, start: int, size: int) -> None:
    inputs, products, sums = rows_apart("uint16", start, size)
    kernels = AddingKernels([each and [each] for each in products], start, np.full((3, TILE), np.nan, np.float32))
    np.testing.assert_allclose(kernels.gram(inputs, space), NumbaKernels().gram(sums, space), rtol=1e-12)


@pytest.mark.parametrize(("start", "size"), [(0, 8 * 60), (77, 300), (59, 2), (60, 60)])
def test_a_row_may_be_of_several_matrices(start: int, size: int) -> None:
    """Of each its own product, wherever a tile begins and ends: 8 experts of 12 x 5."""
    stacks = [[low_rank.pack(*matrices(12, 5, rank, "uint16", 10 * rank + each)[2:]) for each in range(8)] for rank in (2, 3)]
    base, values, _, _ = matrices(8 * 12, 5, 1, "uint16")
    rows = [stacks[0], None, stacks[1]]
    sums = np.empty((3, 8 * 60), np.float32)
    for row, stack in zip(sums, rows):
        row[:] = values
        for number, product in enumerate(stack or ()):
            part = slice(60 * number, 60 * number + 60)
            low_rank.add(base[part], 0, product, row[part])
    inputs, sums = np.stack([base[start : start + size]] * 3), np.ascontiguousarray(sums[:, start : start + size])
    first = start // 60
    reached = [stack and stack[first : (start + size - 1) // 60 + 1] for stack in rows]
    kernels = AddingKernels(reached, start - 60 * first, np.full((3, TILE), np.nan, np.float32))
    coefficients, found, expected = np.array([0.5, 0.2, 0.3]), np.empty(size, "float32"), np.empty(size, "float32")
    assert kernels.combine(coefficients, inputs, found)
    NumbaKernels().combine(coefficients, sums, expected)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(kernels.gram(inputs, "weights"), NumbaKernels().gram(sums, "weights"), rtol=1e-12)


def test_what_is_not_finite_is_found_in_bases_products_and_rows_without_a_share() -> None:
    for row in range(3):
        inputs, products, _ = rows_apart("uint16", 0, 1000)
        inputs[row, 7] = 0x7F80
        kernels = AddingKernels([each and [each] for each in products], 0, np.empty((3, TILE), np.float32))
        assert not kernels.combine(np.array([0.5, 0.0, 0.5]), inputs, np.empty(1000, np.float32))
    infinite = low_rank.pack(np.full((300, 1), np.inf, np.float32), np.ones((1, 250), np.float32))
    assert not infinite.finite
    kernels = AddingKernels([[infinite], None, None], 0, np.empty((3, TILE), np.float32))
    assert not kernels.combine(np.array([0.5, 0.0, 0.5]), rows_apart("uint16", 0, 1000)[0], np.empty(1000, np.float32))

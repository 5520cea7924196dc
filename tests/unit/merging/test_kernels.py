"""The kernels: combine, gram and convert, in every storage type, against exact arithmetic, numpy and torch."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from warmkit.errors import UsageError
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.kernels_torch import TorchKernels

from .properties import STORAGES, Vector, stored, ulp, widened

SIZES = (1, 7, 2047, 2048, 2049, 5000)  # around the chunk of many rows, which is 2048
NARROW = ("uint16", "int16")
INTEGERS = {"uint16": np.uint16, "int16": np.uint16, "float32": np.uint32, "float64": np.uint64}
LARGEST = {"uint16": 0x7F7F, "int16": 0x7BFF, "float32": 0x7F7FFFFF, "float64": 0x7FEFFFFFFFFFFFFF}
SMALLEST_NORMAL = {"uint16": 0x0080, "int16": 0x0400, "float32": 0x00800000, "float64": 0x0010000000000000}
INFINITY = {storage: bits + 1 for storage, bits in LARGEST.items()}
NAN = {storage: bits + 3 for storage, bits in LARGEST.items()}

storages = pytest.mark.parametrize("storage", STORAGES)
both = pytest.mark.parametrize("kernels", [NumbaKernels(), TorchKernels("cpu")], ids=["numba", "torch"])


def from_bits(bits: object, storage: str) -> NDArray[Any]:
    return np.array(bits, INTEGERS[storage]).view(storage)


def bits_of(block: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(block).view(INTEGERS[block.dtype.name])


def random_rows(storage: str, rows: int, size: int, seed: int = 0) -> NDArray[Any]:
    """Return elements of all magnitudes whose sums are finite, with zeros of both signs and subnormals among them."""
    rng = np.random.default_rng(seed)
    exponents = rng.uniform(-4, 3, size=(rows, size))
    block = stored(rng.normal(size=(rows, size)) * 10.0**exponents, storage)
    subnormal = rng.integers(0, SMALLEST_NORMAL[storage], size=(rows, size), dtype=INTEGERS[storage])
    sign = INTEGERS[storage](1) << (8 * block.itemsize - 1)
    kind = rng.integers(0, 8, size=(rows, size))
    bits = np.where(kind == 0, subnormal, bits_of(block))
    bits = np.where(kind == 1, 0, bits).astype(INTEGERS[storage])
    bits = np.where(rng.integers(0, 2, size=(rows, size)) == 0, bits, bits | sign)
    return bits.astype(INTEGERS[storage]).view(storage)


def random_coefficients(rows: int, seed: int = 0) -> Vector:
    return np.random.default_rng(1000 + seed).normal(size=rows)


def rounded_sum(coefficients: Vector, inputs: NDArray[Any], storage: str) -> NDArray[Any]:
    """Sum row by row, in float32 from 16 bits to 16 bits and else in float64, and round through float32: by numpy and torch."""
    kind = np.float32 if inputs.itemsize == 2 and storage in NARROW else np.float64
    factors, values = coefficients.astype(kind), widened(inputs).astype(kind)
    total = factors[0] * values[0]
    for factor, row in zip(factors[1:], values[1:]):
        total = total + factor * row
    return stored(total, storage) if storage == "float64" else stored_from_float32(total.astype(np.float32), storage)


def stored_from_float32(values: NDArray[np.float32], storage: str) -> NDArray[Any]:
    tensor = torch.from_numpy(values).to(STORAGES[storage])
    return (tensor.view(torch.int16) if storage == "uint16" else tensor).numpy().view(storage)


def combined(kernels: Any, coefficients: Vector, inputs: NDArray[Any], storage: str) -> NDArray[Any]:
    output = from_bits(np.full(inputs.shape[1], NAN[storage]), storage)
    assert kernels.combine(coefficients, inputs, output)
    return output


# ---- combine: the value ----------------------------------------------------------------------------------------------


@storages
@pytest.mark.parametrize("rows", range(1, 10))
def test_combine_is_the_exact_sum_to_half_a_unit_in_the_last_place(storage: str, rows: int) -> None:
    """Exact by rational arithmetic; the sums, of 16-bit types in float32 and of others in float64, add their roundings."""
    inputs, coefficients = random_rows(storage, rows, 65, seed=rows), random_coefficients(rows)
    output, values = widened(combined(NumbaKernels(), coefficients, inputs, storage)), widened(inputs)
    for column in range(inputs.shape[1]):
        terms = [Fraction(c) * Fraction(x) for c, x in zip(coefficients.tolist(), values[:, column].tolist())]
        exact = sum(terms, Fraction(0))
        slack = Fraction(float(ulp(np.array(float(exact)), storage))) / 2
        bits, smallest = (24, 149) if storage in NARROW else (53, 1074)
        slack += sum(map(abs, terms)) * (rows + 2) / 2**bits + Fraction(rows, 2**smallest)
        assert abs(Fraction(float(output[column])) - exact) <= slack


@both
@storages
@pytest.mark.parametrize("size", SIZES)
def test_combine_sums_rows_in_order_and_rounds_through_float32(kernels: Any, storage: str, size: int) -> None:
    for rows in range(1, 10):
        inputs, coefficients = random_rows(storage, rows, size, seed=rows), random_coefficients(rows)
        expected = rounded_sum(coefficients, inputs, storage)
        np.testing.assert_array_equal(bits_of(combined(kernels, coefficients, inputs, storage)), bits_of(expected))


@both
@storages
@pytest.mark.parametrize("output", STORAGES)
def test_combine_writes_any_type_from_any_type(kernels: Any, storage: str, output: str) -> None:
    inputs, coefficients = random_rows(storage, 3, 2500), random_coefficients(3)
    expected = rounded_sum(coefficients, inputs, output)
    np.testing.assert_array_equal(bits_of(combined(kernels, coefficients, inputs, output)), bits_of(expected))


@storages
def test_combine_reads_part_of_a_wider_buffer(storage: str) -> None:
    buffer, coefficients = random_rows(storage, 4, 3000), random_coefficients(4)
    inputs = buffer[:, :2049]
    expected = rounded_sum(coefficients, inputs, storage)
    np.testing.assert_array_equal(bits_of(combined(NumbaKernels(), coefficients, inputs, storage)), bits_of(expected))


@both
@storages
def test_combine_of_the_parts_of_a_block_is_that_of_the_whole(kernels: Any, storage: str) -> None:
    inputs, coefficients = random_rows(storage, 4, 5000), random_coefficients(4)
    cuts = [0, 1, 300, 2048, 4999, 5000]
    parts = [
        combined(kernels, coefficients, np.ascontiguousarray(inputs[:, a:b]), storage) for a, b in itertools.pairwise(cuts)
    ]
    np.testing.assert_array_equal(bits_of(np.concatenate(parts)), bits_of(combined(kernels, coefficients, inputs, storage)))


@both
@storages
def test_inputs_are_left_as_they_were(kernels: Any, storage: str) -> None:
    inputs = random_rows(storage, 3, 2049)
    before = inputs.copy()
    kernels.combine(random_coefficients(3), inputs, np.empty(2049, storage))
    np.testing.assert_array_equal(bits_of(inputs), bits_of(before), err_msg="combine")
    for space in ("weights", "task vectors", "init and task vectors"):
        kernels.gram(inputs, space)
        np.testing.assert_array_equal(bits_of(inputs), bits_of(before), err_msg=f"gram of {space}")
    kernels.convert(inputs[0], np.empty(2049, "float32"))
    np.testing.assert_array_equal(bits_of(inputs), bits_of(before), err_msg="convert")


# ---- combine: rows that take no part ----------------------------------------------------------------------------------


@both
@storages
@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_end_points_return_an_input_bit_for_bit(kernels: Any, storage: str, rows: int) -> None:
    inputs = random_rows(storage, rows, 2049)
    assert (bits_of(inputs) == bits_of(from_bits([0], storage)) + (1 << (8 * inputs.itemsize - 1))).any(), "no -0.0 in the test"
    for row, whole in enumerate(np.eye(rows)):
        np.testing.assert_array_equal(bits_of(combined(kernels, whole, inputs, storage)), bits_of(inputs[row]))


@storages
@pytest.mark.parametrize("coefficients", [(1.0,), (0.0, 1.0), (0.0, 0.0, 1.0)])
def test_end_points_return_even_nan_bit_for_bit(storage: str, coefficients: tuple[float, ...]) -> None:
    payloads = from_bits(INFINITY[storage] + np.arange(1, 100), storage)
    inputs, output = np.stack([payloads] * len(coefficients)), np.empty(payloads.size, storage)
    assert not NumbaKernels().combine(np.array(coefficients), inputs, output)
    np.testing.assert_array_equal(bits_of(output), bits_of(payloads))


@both
@storages
def test_a_coefficient_of_zero_leaves_its_row_out(kernels: Any, storage: str) -> None:
    inputs, coefficients = random_rows(storage, 4, 2049), np.array([0.3, 0.0, -0.5, 0.0])
    expected = combined(kernels, coefficients[[0, 2]], np.ascontiguousarray(inputs[[0, 2]]), storage)
    np.testing.assert_array_equal(bits_of(combined(kernels, coefficients, inputs, storage)), bits_of(expected))


@both
@storages
def test_coefficients_of_zero_alone_give_zeros(kernels: Any, storage: str) -> None:
    np.testing.assert_array_equal(bits_of(combined(kernels, np.zeros(2), random_rows(storage, 2, 100), storage)), 0)


@both
@storages
def test_zeros_keep_their_sign(kernels: Any, storage: str) -> None:
    negative = np.array([-0.0, -0.0, 0.0, 0.0])
    inputs = stored(np.stack([negative, negative]), storage)
    found = widened(combined(kernels, np.array([0.5, 0.5]), inputs, storage))
    np.testing.assert_array_equal(np.signbit(found), [True, True, False, False])


@both
@storages
def test_subnormals_are_averaged_and_not_flushed(kernels: Any, storage: str) -> None:
    inputs = from_bits([[1, 2, 3, 7], [3, 2, 1, 1]], storage)
    np.testing.assert_array_equal(bits_of(combined(kernels, np.array([0.5, 0.5]), inputs, storage)), [2, 2, 2, 4])


# ---- combine: what is not finite --------------------------------------------------------------------------------------


@both
@storages
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", [0, 2500])
def test_overflow_is_reported(kernels: Any, storage: str, rows: int, place: int) -> None:
    for sign in (1.0, -1.0):
        inputs = stored(np.ones((rows, 2501)), storage)
        inputs[:, place] = from_bits(LARGEST[storage], storage)
        output = np.empty(2501, storage)
        assert kernels.combine(np.full(rows, sign / rows), inputs.copy(), output)
        assert not kernels.combine(np.full(rows, sign * 1.01 / rows), inputs, output)
        assert bits_of(output[place : place + 1])[0] & INFINITY[storage] == INFINITY[storage]


@both
@pytest.mark.parametrize(("value", "fits"), [(65519.0, True), (65520.0, False), (-65519.0, True), (-65520.0, False)])
def test_float16_overflows_half_a_unit_past_its_largest_number(kernels: Any, value: float, fits: bool) -> None:
    inputs, output = np.full((2, 3), value, np.float32), np.empty(3, np.int16)
    assert kernels.combine(np.array([0.5, 0.5]), inputs, output) is fits


@both
@storages
@pytest.mark.parametrize("bad", [NAN, INFINITY], ids=["nan", "infinity"])
@pytest.mark.parametrize("coefficients", [(1.0,), (0.5, 0.5), (0.4, 0.3, 0.3), (0.25,) * 4, (0.2,) * 5])
def test_input_that_is_not_finite_is_reported(
    kernels: Any, storage: str, bad: dict[str, int], coefficients: tuple[float, ...]
) -> None:
    for row in range(len(coefficients)):
        for place in (0, 2048, 2499):
            inputs = stored(np.ones((len(coefficients), 2500)), storage)
            inputs[row, place] = from_bits(bad[storage], storage)
            assert not kernels.combine(np.array(coefficients), inputs, np.empty(2500, storage))


@both
@storages
@pytest.mark.parametrize("bad", [NAN, INFINITY], ids=["nan", "infinity"])
@pytest.mark.parametrize("coefficients", [(1.0, 0.0), (0.5, 0.0, 0.5), (0.0, 0.0), (0.3, 0.3, 0.0, 0.4)])
def test_input_that_is_not_finite_is_reported_even_if_its_coefficient_is_zero(
    kernels: Any, storage: str, bad: dict[str, int], coefficients: tuple[float, ...]
) -> None:
    inputs, output = stored(np.ones((len(coefficients), 2500)), storage), np.empty(2500, storage)
    inputs[coefficients.index(0.0), 2400] = from_bits(bad[storage], storage)
    assert not kernels.combine(np.array(coefficients), inputs, output)
    np.testing.assert_allclose(widened(output), sum(coefficients), rtol=1e-2)  # the row takes no part all the same


@both
@storages
def test_infinities_that_cancel_are_reported(kernels: Any, storage: str) -> None:
    inputs = stored(np.ones((2, 10)), storage)
    inputs[:, 3] = from_bits(INFINITY[storage], storage)
    output = np.empty(10, storage)
    assert not kernels.combine(np.array([0.5, -0.5]), inputs, output)
    assert np.isnan(widened(output)[3])


@both
@storages
def test_finite_looks_at_every_element(kernels: Any, storage: str) -> None:
    block = random_rows(storage, 3, 2049)
    assert kernels.finite(block)
    for row in range(3):
        for place in (0, 1000, 2048):
            for bad in (NAN[storage], INFINITY[storage], INFINITY[storage] | 1 << (8 * block.itemsize - 1)):
                spoilt = block.copy()
                spoilt[row, place] = from_bits(bad, storage)
                assert not kernels.finite(spoilt)


# ---- add -------------------------------------------------------------------------------------------------------------


@both
@storages
@pytest.mark.parametrize("output", STORAGES)
def test_add_is_the_sum_rounded_through_float32(kernels: Any, storage: str, output: str) -> None:
    inputs = random_rows(storage, 2, 2500)
    kind = np.float32 if storage in NARROW and output in NARROW else np.float64
    init, vector = inputs[0], (0.1 * widened(inputs[1])).astype(kind)
    total = widened(init).astype(kind) + kind(0.7) * vector
    expected = stored(total, output) if output == "float64" else stored_from_float32(total.astype(np.float32), output)
    found = np.empty(2500, output)
    assert kernels.add(init, 0.7, vector, found)
    untouched = (vector == 0) & (widened(init) == 0)  # adding +0 would lose the sign of -0
    np.testing.assert_array_equal(bits_of(found)[~untouched], bits_of(expected)[~untouched])
    assert (vector == 0).sum() > 100


@both
@storages
def test_add_of_nothing_returns_the_init_bit_for_bit(kernels: Any, storage: str) -> None:
    inputs, found = random_rows(storage, 2, 2500), np.empty(2500, storage)
    assert (np.signbit(widened(inputs[0])) & (widened(inputs[0]) == 0)).any(), "no -0.0 in the test"
    kind = np.float32 if storage in NARROW else np.float64
    for factor, vector in ((0.7, np.zeros(2500)), (-0.7, np.zeros(2500)), (0.0, widened(inputs[1]))):
        assert kernels.add(inputs[0], factor, vector.astype(kind), found)
        np.testing.assert_array_equal(bits_of(found), bits_of(inputs[0]))


@both
@pytest.mark.parametrize("storage", ["uint16", "int16", "float32"])
def test_add_says_where_the_output_overflows(kernels: Any, storage: str) -> None:
    top = from_bits([LARGEST[storage]], storage)
    kind = np.float32 if storage in NARROW else np.float64
    with np.errstate(over="ignore"):
        assert not kernels.add(top, 1.0, widened(top).astype(kind), np.empty(1, storage))


# ---- convert ---------------------------------------------------------------------------------------------------------

SPECIAL_LOWER = (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)  # around the half of a bfloat16 unit


def special_float32() -> NDArray[np.float32]:
    """Return every upper half of a float32 with every tie and its neighbours, and random bits."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    grid = (upper[:, None] | np.array(SPECIAL_LOWER, np.uint32)).reshape(-1)
    ties = ((upper >> 16)[:, None] << 13) + np.array([0x0FFF, 0x1000, 0x1001], np.uint32)  # the same for float16
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    random = np.random.default_rng(0).integers(0, 2**32, 2**18, dtype=np.uint32)
    return np.concatenate([grid, ties.reshape(-1), halves, halves + 0x1000, halves + 0x0FFF, random]).view(np.float32)


@both
@pytest.mark.parametrize("storage", NARROW)
@pytest.mark.parametrize("wide", ["float32", "float64"])
def test_every_16_bit_pattern_survives_a_round_trip(kernels: Any, storage: str, wide: str) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(storage)
    there, back = np.empty(2**16, wide), np.empty(2**16, storage)
    kernels.convert(every, there)
    kernels.convert(there, back)
    numbers = ~np.isnan(widened(every))
    np.testing.assert_array_equal(there[numbers], widened(every)[numbers])
    np.testing.assert_array_equal(bits_of(back)[numbers], bits_of(every)[numbers])
    assert np.isnan(there[~numbers]).all()
    assert np.isnan(widened(back)[~numbers]).all()


@both
@pytest.mark.parametrize("storage", NARROW)
def test_float32_is_rounded_to_16_bits_as_torch_rounds_it(kernels: Any, storage: str) -> None:
    values = special_float32()
    found, expected = np.empty(values.size, storage), stored_from_float32(values, storage)
    kernels.convert(values, found)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(bits_of(found)[numbers], bits_of(expected)[numbers])
    assert np.isnan(widened(found)[~numbers]).all()


@both
@pytest.mark.parametrize("storage", NARROW)
def test_float32_is_rounded_to_the_nearest_16_bit_number_ties_to_even(kernels: Any, storage: str) -> None:
    """Without torch: between two neighbours of every pair the middle goes to the even one, its neighbours to theirs."""
    below = np.arange(LARGEST[storage], dtype=np.uint16)
    low, high = widened(below.view(storage)), widened((below + 1).astype(np.uint16).view(storage))
    middle = ((low + high) / 2).astype(np.float32)
    found = np.empty(below.size, storage)
    for values, expected in (
        (middle, below + (below & 1)),
        (np.nextafter(middle, np.float32(-np.inf)), below),
        (np.nextafter(middle, np.float32(np.inf)), below + 1),
    ):
        kernels.convert(values, found)
        usable = (low < values) & (values < high)  # float32 has no number between its own smallest neighbours
        assert usable.sum() > 0.99 * below.size
        np.testing.assert_array_equal(bits_of(found)[usable], expected[usable])


@both
def test_float64_is_rounded_to_float32_and_back_exactly(kernels: Any) -> None:
    values = np.random.default_rng(0).normal(size=5000) * 10.0 ** np.random.default_rng(1).uniform(-44, 38, 5000)
    found, back = np.empty(5000, np.float32), np.empty(5000)
    kernels.convert(values, found)
    np.testing.assert_array_equal(found, values.astype(np.float32))
    kernels.convert(found, back)
    np.testing.assert_array_equal(back, found.astype(np.float64))


@both
@pytest.mark.parametrize("storage", NARROW)
def test_float64_is_rounded_by_way_of_float32(kernels: Any, storage: str) -> None:
    """A hair above a tie: float32 makes it the tie, which goes to the even neighbour, here down."""
    half = float(ulp(np.array(1.0), storage)) / 2
    values = np.concatenate([[1 + half + 2.0**-40, 1 + half - 2.0**-40], np.random.default_rng(0).normal(size=5000)])
    found = np.empty(values.size, storage)
    kernels.convert(values, found)
    np.testing.assert_array_equal(widened(found)[:2], [1, 1])
    np.testing.assert_array_equal(bits_of(found), bits_of(stored_from_float32(values.astype(np.float32), storage)))


@both
def test_bfloat16_and_float16_convert_into_each_other(kernels: Any) -> None:
    values = np.random.default_rng(0).normal(size=5000)
    for source, target in (NARROW, NARROW[::-1]):
        block, found = stored(values, source), np.empty(5000, target)
        kernels.convert(block, found)
        expected = stored_from_float32(widened(block).astype(np.float32), target)
        np.testing.assert_array_equal(bits_of(found), bits_of(expected))


# ---- gram ------------------------------------------------------------------------------------------------------------


def gram_in_long_double(inputs: NDArray[Any], space: str) -> Vector:
    vectors = widened(inputs).astype(np.longdouble)
    if space != "weights":
        vectors[1:] -= vectors[:1]
    if space == "task vectors":
        vectors = vectors[1:]
    return (vectors @ vectors.T).astype(np.float64)


def assert_gram_close(found: Vector, expected: Vector) -> None:
    """Compare to 1e-12 of the norms of the two vectors: a product may be small by cancellation."""
    lengths = np.sqrt(np.diag(expected))
    assert found.shape == expected.shape
    assert found.dtype == np.float64
    assert np.all(np.abs(found - expected) <= 1e-12 * np.outer(lengths, lengths) + 1e-300)


@both
@storages
@pytest.mark.parametrize("space", ["weights", "task vectors", "init and task vectors"])
@pytest.mark.parametrize("size", [1, 2049, 5000])
def test_gram_is_the_products_of_rows_or_of_their_differences_from_the_first(
    kernels: Any, storage: str, space: str, size: int
) -> None:
    for rows in range(2, 10):
        inputs = random_rows(storage, rows, size, seed=rows)
        found = kernels.gram(inputs.copy(), space)
        assert_gram_close(found, gram_in_long_double(inputs, space))
        np.testing.assert_array_equal(found, found.T)


@both
@storages
def test_gram_of_small_task_vectors_loses_no_digits_to_large_weights(kernels: Any, storage: str) -> None:
    """Products of full weights would cancel: a step of one unit in the last place, 5000 times."""
    init = stored(np.full(5000, 1.0), storage)
    model = from_bits(bits_of(init) + 1, storage)
    step = float(ulp(np.array(1.0), storage))
    found = kernels.gram(np.stack([init, model, model]), "task vectors")
    np.testing.assert_allclose(found, np.full((2, 2), 5000 * step**2), rtol=1e-12)


@both
def test_gram_reads_part_of_a_wider_buffer(kernels: Any) -> None:
    for storage in STORAGES:
        inputs = random_rows(storage, 3, 3000)[:, :2500]
        expected = gram_in_long_double(inputs, "task vectors")
        assert_gram_close(kernels.gram(inputs, "task vectors"), expected)


def test_gram_is_the_same_at_every_call() -> None:
    inputs = random_rows("uint16", 4, 5000)
    first = NumbaKernels().gram(inputs, "task vectors")
    np.testing.assert_array_equal(NumbaKernels().gram(inputs.copy(), "task vectors"), first)


def test_gram_of_input_that_is_not_finite_is_not_finite() -> None:
    inputs = random_rows("uint16", 3, 2500)
    inputs[1, 2400] = NAN["uint16"]
    assert not np.isfinite(NumbaKernels().gram(inputs, "task vectors")).all()


@storages
def test_gram_of_torch_and_numba_agree(storage: str) -> None:
    for rows in (3, 6):
        inputs = random_rows(storage, rows, 5000)
        found = TorchKernels("cpu").gram(inputs.copy(), "task vectors")
        assert_gram_close(found, NumbaKernels().gram(inputs, "task vectors"))


# ---- several sums of the same rows -----------------------------------------------------------------------------------


def some_coefficients(outputs: int, rows: int) -> Vector:
    """Return random ones with a row that takes no part in the first sums, in most, or in any."""
    found = np.random.default_rng(rows).normal(size=(outputs, rows))
    found[: outputs // 3, 0] = 0
    found[outputs // 2 :, -1] = 0
    if rows > 4:
        found[:, 2] = 0
    return found


@both
@storages
@pytest.mark.parametrize("size", [1, 15, 17, 255, 257, 700])  # around vectors of 16 and strips of 256
def test_sums_that_are_taken_together_are_those_taken_alone(kernels: Any, storage: str, size: int) -> None:
    for rows, outputs in itertools.product((1, 2, 3, 7, 20), (1, 4, 5, 6, 7, 13)):
        inputs, coefficients = random_rows(storage, rows, size, seed=rows), some_coefficients(outputs, rows) / rows
        found = from_bits(np.full((outputs, size), NAN[storage]), storage)
        assert kernels.combine_all(coefficients, inputs, found)
        for each, output in zip(coefficients, found):
            used = np.flatnonzero(each)
            expected = rounded_sum(each[used], inputs[used], storage) if used.size else np.zeros(size, storage)
            np.testing.assert_array_equal(bits_of(output), bits_of(expected))


@both
@storages
def test_a_sum_of_one_row_among_others_is_that_row_bit_for_bit(kernels: Any, storage: str) -> None:
    inputs, found = random_rows(storage, 3, 300), np.empty((7, 300), storage)
    assert kernels.combine_all(np.vstack([np.full((5, 3), 0.3), np.eye(3)[1:]]), inputs, found)
    np.testing.assert_array_equal(bits_of(found[5:]), bits_of(inputs[1:]))


@both
@pytest.mark.parametrize("output", STORAGES)
def test_sums_together_write_any_type(kernels: Any, output: str) -> None:
    inputs, coefficients = random_rows("uint16", 4, 300), np.random.default_rng(0).normal(size=(6, 4))
    found = np.empty((6, 300), output)
    assert kernels.combine_all(coefficients, inputs, found)
    for each, values in zip(coefficients, found):
        np.testing.assert_array_equal(bits_of(values), bits_of(rounded_sum(each, inputs, output)))


@both
@storages
@pytest.mark.parametrize("bad", [NAN, INFINITY], ids=["nan", "infinity"])
def test_what_is_not_finite_is_reported_whichever_of_several_sums_it_is_in(
    kernels: Any, storage: str, bad: dict[str, int]
) -> None:
    coefficients = np.random.default_rng(0).normal(size=(8, 5))
    coefficients[:7, 1] = coefficients[:, 2] = coefficients[0, 3] = 0  # in one sum, in none, in all but one
    for row, place in itertools.product(range(5), (0, 299)):
        inputs = stored(np.ones((5, 300)), storage)
        inputs[row, place] = from_bits(bad[storage], storage)
        assert not kernels.combine_all(coefficients, inputs, np.empty((8, 300), storage))


@both
@storages
def test_overflow_of_one_of_several_sums_is_reported(kernels: Any, storage: str) -> None:
    inputs, coefficients = stored(np.ones((3, 300)), storage), np.full((6, 3), 1 / 3)
    inputs[:, 290] = from_bits(LARGEST[storage], storage)
    assert kernels.combine_all(coefficients, inputs, np.empty((6, 300), storage))
    coefficients[4] = 1.01 / 3
    assert not kernels.combine_all(coefficients, inputs, np.empty((6, 300), storage))


# ---- buffers ---------------------------------------------------------------------------------------------------------


@both
@storages
def test_empty_blocks_have_the_shape_and_type_asked_for(kernels: Any, storage: str) -> None:
    block = kernels.empty((3, 50), storage)
    assert block.shape == (3, 50)
    assert block.dtype == storage
    block[:] = 0
    assert kernels.finite(block)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="use --device cpu"):
        TorchKernels("cuda")

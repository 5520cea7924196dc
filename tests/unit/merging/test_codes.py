"""Numbers from codes and scales, against torch and exact arithmetic, in any pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from warmkit.merging.codes import E8M0, FP4, TILE, Grid, decode, decode_fours, unpack

STORED = {"uint16": torch.bfloat16, "int16": torch.float16, "float32": torch.float32}


def grid(shape: tuple[int, int], block: tuple[int, int], matrices: int = 1, zeros: bool = False, seed: int = 0) -> Grid:
    draw = np.random.default_rng(seed)
    count = matrices * -(-shape[0] // block[0]) * -(-shape[1] // block[1])
    scales = draw.uniform(0.001, 0.1, count).astype(np.float32)
    return Grid(shape, block, scales, draw.integers(-128, 128, count).astype(np.float32) * np.float32(zeros))


def spread(values: np.ndarray, shape: tuple[int, int], block: tuple[int, int], matrices: int = 1) -> np.ndarray:
    """Return the value of the block of every element, [matrices, rows, columns]."""
    down, across = -(-shape[0] // block[0]), -(-shape[1] // block[1])
    whole = values.reshape(matrices, down, across).repeat(block[0], 1).repeat(block[1], 2)
    return whole[:, : shape[0], : shape[1]]


def test_every_fp8_code_is_the_number_that_torch_says() -> None:
    codes, found = np.arange(256, dtype=np.uint8), np.empty(256, np.float32)
    decode(codes, 0, Grid((1, 256), (1, 256), np.ones(1, np.float32), np.zeros(1, np.float32)), found)
    expected = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[:255]), np.signbit(expected[:255]))  # -0.0; what sign a NaN has is nothing


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize("codes", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("shape", "block", "matrices"),
    [((1, 1), (1, 1), 1), ((5, 7), (5, 7), 1), ((6, 300), (1, 300), 1), ((9, 20), (4, 8), 1), ((8, 16), (4, 8), 3)],
)
def test_a_number_is_code_less_zero_times_scale_rounded_once(
    shape: tuple[int, int], block: tuple[int, int], matrices: int, codes: str, storage: str
) -> None:
    scaled = grid(shape, block, matrices, zeros=codes == "int8")
    raw = np.random.default_rng(1).integers(0, 126, matrices * shape[0] * shape[1]).astype(np.uint8)
    raw[::3] |= 128  # negative
    number = torch.from_numpy(raw).view(torch.int8 if codes == "int8" else torch.float8_e4m3fn).double().numpy()
    less = number.reshape(matrices, *shape) - spread(scaled.zeros, shape, block, matrices)
    exact = less * spread(scaled.scales, shape, block, matrices)  # of float32 in float64: exact
    expected = torch.from_numpy(exact).float().to(STORED[storage]).reshape(-1)
    found = np.empty(raw.size, storage)
    decode(raw.view(codes), 0, scaled, found)
    assert torch.equal(torch.from_numpy(found.view(np.int16) if found.itemsize == 2 else found).view(STORED[storage]), expected)


@pytest.mark.parametrize("start", [0, 1, 19, 20, 21, 85, 100])
def test_a_piece_is_that_part_of_the_whole(start: int) -> None:
    scaled = grid((9, 20), (4, 8), zeros=True)
    raw = np.random.default_rng(2).integers(-128, 128, 180).astype(np.int8)
    whole = np.empty(180, np.float32)
    decode(raw, 0, scaled, whole)
    for stop in {start + 1, start + 7, start + 41, 180}:
        part = np.empty(stop - start, np.float32)
        decode(raw[start:stop], start, scaled, part)
        np.testing.assert_array_equal(part, whole[start:stop])


def test_nothing_is_decoded_to_nothing() -> None:
    decode(np.empty(0, np.int8), 0, grid((1, 1), (1, 1)), np.empty(0, np.float32))


@pytest.mark.parametrize("rows", [1, 3, TILE, TILE + 5, 3 * TILE + 1])
def test_fours_are_transposed_and_scaled_in_any_part(rows: int) -> None:
    draw = np.random.default_rng(3)
    codes = draw.integers(0, 16, (rows, 64)).astype(np.uint8)
    scales = E8M0[draw.integers(110, 130, (rows, 2))].astype(np.float32)
    exact = (FP4[codes] * scales.repeat(32, 1)).T.reshape(-1)
    packed = (codes[:, ::2] | (codes[:, 1::2] << 4)).reshape(-1).astype(np.uint8)
    for start, stop in ((0, exact.size), (1, 2), (rows // 2, exact.size - 1), (exact.size // 3, exact.size // 2), (5, 5)):
        found = np.empty(stop - start, np.float32)
        decode_fours(packed, scales.reshape(-1), start, (rows, 64), found)
        np.testing.assert_array_equal(found, exact[start:stop])


def test_the_values_of_fp4_and_its_exponents_are_those_of_the_format() -> None:
    assert FP4.tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
    assert (E8M0[127], E8M0[0], E8M0[254], E8M0.size) == (1, 2.0**-127, 2.0**127, 256)
    assert np.isnan(E8M0[255])


@pytest.mark.parametrize(
    ("bits", "packed", "numbers"), [(4, b"\x10\xf8", [-8, -7, 0, 7]), (8, b"\x00\x80\xff", [-128, 0, 127])]
)
def test_packed_numbers_are_less_half_of_their_range(bits: int, packed: bytes, numbers: list[int]) -> None:
    found = np.empty(len(numbers), np.int8)
    unpack(np.frombuffer(packed, np.uint8), 0, bits, found)
    assert found.tolist() == numbers
    unpack(np.frombuffer(packed, np.uint8), 1, bits, found[:-1])
    assert found[:-1].tolist() == numbers[1:]

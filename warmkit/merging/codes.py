"""Numbers from codes and scales: (code - zero) * scale, block by block, compiled.

A code is a whole number of eight bits or an FP8 number (E4M3), exact in float32; so is a code less its zero. Their product
with a scale is rounded once, to float32, and once more where the result is of 16 bits. An element's value depends on nothing
else, so it does not depend on how a tensor is cut into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code


@dataclass(frozen=True)
class Grid:
    """Scales of the blocks of a matrix, or of a stack of matrices of one shape.

    Attributes:
        shape: Rows and columns of a matrix.
        block: Rows and columns of a block; those at the end of a matrix may be cut.
        scales: [matrices * blocks down * blocks across] float32.
        zeros: The same, of the codes that stand for 0.
        order: [columns] the block across of every column, of blocks of one row; None where they follow each other.
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    scales: NDArray[np.float32]
    zeros: NDArray[np.float32]
    order: NDArray[np.int32] | None = None


def decode(codes: NDArray[Any], start: int, grid: Grid, out: NDArray[Any]) -> None:
    """Write what codes stand for.

    Args:
        codes: [n] int8, whole numbers; uint8, FP8 numbers; or float32.
        start: Place of the first element in the matrix, row-major.
        grid: Scales.
        out: [n] in storage type (bfloat16 as uint16, float16 as int16), overwritten.
    """
    if grid.order is not None:
        across = -(-grid.shape[1] // grid.block[1])
        machine_code.codes.decode_ordered(codes, start, across, grid.order, grid.scales, grid.zeros, out)
    elif out.size:
        machine_code.codes.decode(codes, start, *grid.shape, *grid.block, grid.scales, grid.zeros, out)


@cache
def e4m3() -> NDArray[np.float32]:
    """Return what the 256 codes of FP8 (E4M3) stand for."""
    found = np.empty(256, np.float32)
    decode(np.arange(256, dtype=np.uint8), 0, Grid((1, 256), (1, 256), np.ones(1, np.float32), np.zeros(1, np.float32)), found)
    return found


def unpack(packed: NDArray[np.uint8], first: int, bits: int, out: NDArray[np.int8]) -> None:
    """Write whole numbers that lie packed, less half of their range: of 4 bits from 0 to 15 become -8 to 7.

    Args:
        packed: Bytes; of numbers of 4 bits the lower half of a byte comes first.
        first: The first number to unpack.
        bits: 4 or 8.
        out: [n], overwritten.
    """
    if bits == 4:
        machine_code.codes.nibbles(packed, first, out)
    else:
        np.bitwise_xor(packed[first : first + out.size], 0x80, out=out.view(np.uint8))


TILE = 128  # rows of FP4 codes whose bytes stay in the first-level cache
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""What the sixteen codes of FP4 (E2M1) stand for."""
with np.errstate(over="ignore"):
    E8M0 = np.append(np.ldexp(np.float32(1), np.arange(-127, 128)), np.nan).astype(np.float32)
"""What the 256 codes of scales that are exponents (E8M0) stand for."""


def decode_fours(packed: NDArray[np.uint8], scales: NDArray[np.float32], start: int, shape: tuple[int, int], out: Any) -> None:
    """Write what FP4 codes with a scale for every 32 of a row stand for, transposed.

    Args:
        packed: [rows * columns / 2], two codes a byte, the lower half first.
        scales: [rows * columns / 32].
        start: Place of the first element in the transpose, [columns, rows].
        shape: Rows and columns of the codes.
        out: [n] in storage type, overwritten.
    """
    if out.size:
        machine_code.codes.fours(packed, scales, start, *shape, TILE, FP4, out)

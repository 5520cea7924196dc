"""W + B A in float32 or float64, block by block, compiled: what an adapter stands for.

Every element is `w + p`, rounded once, where p = fma(b_k, a_k, ...) runs over the rank in order, from zero. A fused
multiply-add is one rounding on every machine (hardware or library), and an element's value depends on nothing but its own
row of B and column of A; so the bytes depend neither on the machine nor on how a tensor is cut into blocks. BLAS promises
neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code
from warmkit.merging.kernels import INFINITY, Block, NumbaKernels, Space, combine_scratch, gram_scratch, precision
from warmkit.merging.types import Coefficients, Gram

ROWS, LANES, VECTORS = 4, 16, 2
WIDTH = LANES * VECTORS  # columns of a tile: ROWS x VECTORS sums stay in registers, so that a load feeds more than one product
TILE = 1 << 15  # elements whose sums of a few rows stay in the second-level cache
STRIP = 1024  # columns whose sums of ROWS rows stay in the first-level cache


@dataclass(frozen=True)
class LowRank:
    """The product of a [rows, rank] and a [rank, columns] matrix, laid out for the kernels.

    Attributes:
        left: [rows + ROWS, rank], the last rows zero, so that a tile may reach over the end.
        right: [tiles, rank, WIDTH]: the columns of a tile lie together, those past the end are zero.
        rows: Of the product.
        columns: Of the product.
    """

    left: NDArray[Any]
    right: NDArray[Any]
    rows: int
    columns: int

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.left).all() and np.isfinite(self.right).all())


def pack(left: NDArray[Any], right: NDArray[Any]) -> LowRank:
    """Lay out two factors of one floating type.

    Args:
        left: [rows, rank], the scale multiplied into it.
        right: [rank, columns].
    """
    (rows, rank), columns = left.shape, right.shape[1]
    tiles = -(-columns // WIDTH)
    padded_left = np.zeros((rows + ROWS, rank), left.dtype)
    padded_left[:rows] = left
    padded = np.zeros((rank, tiles * WIDTH), left.dtype)
    padded[:, :columns] = right
    packed = np.ascontiguousarray(padded.reshape(rank, tiles, WIDTH).transpose(1, 0, 2))
    return LowRank(padded_left, packed, rows, columns)


def multiply(left: NDArray[Any], right: LowRank) -> NDArray[Any]:
    """Return left right, in the order and with the roundings of `add`.

    Args:
        left: [rows, rank].
        right: A product of any rows whose second factor is [rank, columns].
    """
    padded = np.zeros((len(left) + ROWS, left.shape[1]), left.dtype)
    padded[: len(left)] = left
    found = np.zeros(len(left) * right.columns, left.dtype)
    add(found, 0, LowRank(padded, right.right, len(left), right.columns), found)
    return found.reshape(len(left), right.columns)


def unpack(low_rank: LowRank) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two factors in float64, [rows, rank] and [rank, columns]."""
    right = low_rank.right.transpose(1, 0, 2).reshape(low_rank.left.shape[1], -1)[:, : low_rank.columns]
    return low_rank.left[: low_rank.rows].astype(np.float64), right.astype(np.float64)


def add(base: NDArray[Any], start: int, low_rank: LowRank, out: NDArray[Any]) -> None:
    """Write base + left right for the elements from `start` on, in row-major order.

    Args:
        base: [n] in storage type (bfloat16 as uint16, float16 as int16).
        start: Place of its first element in the matrix.
        low_rank: The factors, in the type of `out`.
        out: [n] float32 or float64, overwritten.
    """
    left, right = low_rank.left.ravel(), low_rank.right.ravel()
    sums = np.empty((ROWS, STRIP), out.dtype)
    machine_code.low_rank.add(base, start, low_rank.columns, left, 0, right, 0, low_rank.left.shape[1], sums, out)


class AddingKernels:
    """Kernels of rows x_v + p_v, products of thin matrices added to 16-bit rows of one matrix or several.

    The sums are formed in float32 a tile at a time and never leave the cache: to write and read them would cost more than to
    form them. They are those of `add`, element by element.

    Args:
        products: [V], of every matrix one, in order, all of one shape; None for a row that nothing is added to.
        start: Place of the first element in the first matrix.
        scratch: [V, TILE] float32, overwritten.
    """

    def __init__(self, products: Sequence[Sequence[LowRank] | None], start: int, scratch: Block) -> None:
        self._added = np.array([product is not None for product in products])
        factors, places = _side_by_side(products)
        one = next(each[0] for each in products if each is not None)
        self._products = start, factors, places, one.rows, one.columns, np.empty((ROWS, STRIP), np.float32)
        self._scratch = scratch

    def combine(self, coefficients: Coefficients, inputs: Block, output: Block) -> bool:
        """Write sum_v c_v (x_v + p_v), rounded to the type of `output`, in float32 to a 16-bit type, else in float64.

        Args:
            coefficients: [V] float64.
            inputs: [V, n], all of one 16-bit type.
            output: [n], overwritten.
        """
        used = np.flatnonzero(coefficients)
        if not self._added[used].any():
            return NumbaKernels().combine(coefficients, inputs, output)
        factors = coefficients[used].astype(precision(inputs, output))
        top = machine_code.low_rank.combine(
            factors, inputs, used, *self._products, combine_scratch(factors), self._scratch, output
        )
        return top < INFINITY[output.dtype.name] and NumbaKernels().finite(np.delete(inputs, used, axis=0))

    def gram(self, inputs: Block, space: Space) -> Gram:
        """Return the float64 inner products of the rows, as `NumbaKernels.gram` of the sums."""
        subtract, first = space != "weights", int(space == "task vectors")
        *scratch, part = gram_scratch(len(inputs) - first, TILE)
        total = np.zeros_like(part)
        machine_code.low_rank.gram(inputs, *self._products, self._scratch, subtract, first, *scratch, part, total)
        return total


def _side_by_side(products: Sequence[Sequence[LowRank] | None]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return all factors in one array; and where each matrix's begin and its rank, [V, matrices, 3], -1 for none."""
    parts: list[NDArray[Any]] = []
    places = np.full((len(products), max(len(each) for each in products if each is not None), 3), -1, np.int64)
    size = 0
    for row, matrices in enumerate(products):
        for number, product in enumerate(matrices or ()):
            places[row, number] = size, size + product.left.size, product.left.shape[1]
            parts += [product.left.ravel(), product.right.ravel()]
            size += product.left.size + product.right.size
    return np.concatenate(parts), places


def add_squares(block: NDArray[Any], start: int, columns: int, by_column: bool, sums: NDArray[np.float64]) -> None:
    """Add the squares of a block of a matrix to the sums of their rows, or of their columns.

    Args:
        block: [n] float32 or float64, row-major from element `start` on.
        start: Place of its first element in the matrix.
        columns: Of the matrix.
        by_column: Sum over rows instead.
        sums: [columns] or [rows] float64, added to in the order of the elements.
    """
    machine_code.low_rank.add_squares(block, start, columns, by_column, np.empty(8), sums)


def scale(block: NDArray[Any], start: int, columns: int, by_column: bool, factors: NDArray[Any]) -> None:
    """Multiply a block of a matrix by a factor for each row, or each column, in place; arguments as `add_squares`."""
    machine_code.low_rank.scale(block, start, columns, by_column, factors)

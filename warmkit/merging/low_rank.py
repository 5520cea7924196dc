"""W + B A in float32 or float64, block by block, compiled: what an adapter stands for.

Every element is `w + p`, rounded once, where p = fma(b_k, a_k, ...) runs over the rank in order, from zero. A fused
multiply-add is one rounding on every machine (hardware or library), and an element's value depends on nothing but its own
row of B and column of A; so the bytes depend neither on the machine nor on how a tensor is cut into blocks. BLAS promises
neither.
"""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from warmkit.merging.compiled import combine as compiled_combine
from warmkit.merging.compiled import compiled, magnitude, narrow, widen
from warmkit.merging.compiled import gram as compiled_gram
from warmkit.merging.kernels import INFINITY, Block, NumbaKernels, Space, precision
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


def add(base: NDArray[Any], start: int, low_rank: LowRank, out: NDArray[Any]) -> None:
    """Write base + left right for the elements from `start` on, in row-major order.

    Args:
        base: [n] in storage type (bfloat16 as uint16, float16 as int16).
        start: Place of its first element in the matrix.
        low_rank: The factors, in the type of `out`.
        out: [n] float32 or float64, overwritten.
    """
    _add(base, start, low_rank.columns, low_rank.left, low_rank.right, out)


class AddingKernels:
    """Kernels of rows x_v + p_v, products of thin matrices added to 16-bit rows.

    The sums are formed in float32 a tile at a time and never leave the cache: to write and read them would cost more than to
    form them. They are those of `add`, element by element.

    Args:
        products: [V], of one shape; None for a row that nothing is added to.
        start: Place of the first element in the matrix.
        scratch: [V, TILE] float32, overwritten.
    """

    def __init__(self, products: Sequence[LowRank | None], start: int, scratch: Block) -> None:
        self._added = np.array([product is not None for product in products])
        self._factors, self._places, self._columns = _side_by_side(products)
        self._start, self._scratch = start, scratch

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
        top = _combine(factors, inputs, used, self._start, self._factors, self._places, self._columns, self._scratch, output)
        return int(top) < INFINITY[output.dtype.name] and NumbaKernels().finite(np.delete(inputs, used, axis=0))

    def gram(self, inputs: Block, space: Space) -> Gram:
        """Return the float64 inner products of the rows, as `NumbaKernels.gram` of the sums."""
        subtract, first = space != "weights", int(space == "task vectors")
        return _gram(inputs, self._start, self._factors, self._places, self._columns, self._scratch, subtract, first)


def _side_by_side(products: Sequence[LowRank | None]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Return all factors in one array; where each begins and its rank, [V, 3], -1 for none; and the columns."""
    parts: list[NDArray[Any]] = []
    places = np.full((len(products), 3), -1, np.int64)
    size = columns = 0
    for row, product in enumerate(products):
        if product is not None:
            places[row] = size, size + product.left.size, product.left.shape[1]
            parts += [product.left.ravel(), product.right.ravel()]
            size, columns = size + product.left.size + product.right.size, product.columns
    return np.concatenate(parts), places, columns


def add_squares(block: NDArray[Any], start: int, columns: int, by_column: bool, sums: NDArray[np.float64]) -> None:
    """Add the squares of a block of a matrix to the sums of their rows, or of their columns.

    Args:
        block: [n] float32 or float64, row-major from element `start` on.
        start: Place of its first element in the matrix.
        columns: Of the matrix.
        by_column: Sum over rows instead.
        sums: [columns] or [rows] float64, added to in the order of the elements.
    """
    _add_squares(block, start, columns, by_column, sums)


def scale(block: NDArray[Any], start: int, columns: int, by_column: bool, factors: NDArray[Any]) -> None:
    """Multiply a block of a matrix by a factor for each row, or each column, in place; arguments as `add_squares`."""
    _scale(block, start, columns, by_column, factors)


@intrinsic
def _tile(typing_context: Any, left: Any, row: Any, right: Any, tile: Any, sums: Any, place: Any) -> Any:
    """Write the products of ROWS rows of `left` with one tile of `right` to `sums`, [ROWS, STRIP], from column `place` on."""

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, build, args[place])
            for place, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        ]
        element = context.get_value_type(signature.args[0].dtype)
        vector, size = ir.VectorType(element, LANES), args[1].type
        rank = build.extract_value(arrays[0].shape, 1)
        lefts = build.gep(arrays[0].data, [build.mul(args[1], rank)])
        rights = build.gep(arrays[1].data, [build.mul(args[3], build.mul(rank, size(WIDTH)))])
        name = f"llvm.fma.v{LANES}f{32 if element == ir.FloatType() else 64}"
        fma = cgutils.get_or_insert_function(build.module, ir.FunctionType(vector, [vector] * 3), name)
        cells = [cgutils.alloca_once_value(build, ir.Constant(vector, None)) for _ in range(ROWS * VECTORS)]
        with cgutils.for_range(build, rank) as loop:
            columns = [
                _load(build, rights, build.add(build.mul(loop.index, size(WIDTH)), size(LANES * each)), vector)
                for each in range(VECTORS)
            ]
            for r in range(ROWS):
                value = build.load(build.gep(lefts, [build.add(build.mul(size(r), rank), loop.index)]))
                spread = _spread(build, value, vector)
                for each in range(VECTORS):
                    cell = cells[r * VECTORS + each]
                    build.store(build.call(fma, [spread, columns[each], build.load(cell)]), cell)
        for number, cell in enumerate(cells):
            r, each = divmod(number, VECTORS)
            target = build.gep(arrays[2].data, [build.add(args[5], size(r * STRIP + each * LANES))])
            build.store(build.load(cell), build.bitcast(target, vector.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.none(left, types.intp, right, types.intp, sums, types.intp), generate


def _load(build: Any, pointer: Any, place: Any, vector: Any) -> Any:
    load = build.load(build.bitcast(build.gep(pointer, [place]), vector.as_pointer()))
    load.align = 4
    return load


def _spread(build: Any, value: Any, vector: Any) -> Any:
    one = build.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    return build.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), None))


@compiled()
def _finish(base, sums, out):
    for i in range(out.size):
        out[i] = widen(base[i], sums[0]) + sums[i]


@compiled()
def _add(base, start, columns, left, right, out):
    sums = np.empty((ROWS, STRIP), out.dtype)
    stop = start + out.size
    last = (stop - 1) // columns
    for row in range(start // columns, last + 1, ROWS):
        rows = min(ROWS, last + 1 - row)
        for column in range(0, columns, STRIP):
            end = min(columns, column + STRIP)
            if (row + rows - 1) * columns + end <= start or row * columns + column >= stop:
                continue
            for place in range(0, end - column, WIDTH):
                _tile(left, row, right, (column + place) // WIDTH, sums, place)
            for r in range(rows):
                first = (row + r) * columns + column
                low, high = max(start, first), min(stop, first + end - column)
                if low < high:
                    _finish(
                        base[low - start : high - start], sums[r, low - first : high - first], out[low - start : high - start]
                    )


@compiled()
def _widen_all(x, out):
    for i in range(out.size):
        out[i] = widen(x[i], out[i])


@compiled()
def _sums(x, row, start, factors, places, columns, out):
    """Write x + p_row of one tile in float32."""
    if places[row, 0] < 0:
        _widen_all(x, out)
        return
    rank, tiles = places[row, 2], (columns + WIDTH - 1) // WIDTH
    left = factors[places[row, 0] : places[row, 1]].reshape(-1, rank)
    right = factors[places[row, 1] : places[row, 1] + tiles * rank * WIDTH].reshape(tiles, rank, WIDTH)
    _add(x, start, columns, left, right, out)


@compiled()
def _combine(c, x, rows, start, factors, places, columns, scratch, out):
    top = magnitude(narrow(0.0, out[0]))
    for low in range(0, out.size, TILE):
        high = min(out.size, low + TILE)
        for row in rows:
            _sums(x[row, low:high], row, start + low, factors, places, columns, scratch[row, : high - low])
        bits = compiled_combine(
            c, scratch, rows, out[low:high]
        )  # a slice of all rows would have strides, which cost the vectors
        top = bits if bits > top else top
    return top


@compiled()
def _gram(x, start, factors, places, columns, scratch, subtract, first):
    count = x.shape[0] - first
    total = np.zeros((count, count))
    for low in range(0, x.shape[1], TILE):
        high = min(x.shape[1], low + TILE)
        for row in range(0 if subtract else first, x.shape[0]):
            _sums(x[row, low:high], row, start + low, factors, places, columns, scratch[row, : high - low])
            scratch[row, high - low :] = 0  # of the last tile
        total += compiled_gram(scratch, subtract, first)
    return total


@compiled()
def _square_sum(x):
    """Sum squares in eight sums, always the same eight, so that no machine's vectors decide the order."""
    sums = np.zeros(8)
    whole = x.size // 8 * 8
    for i in range(0, whole, 8):
        for lane in range(8):
            value = np.float64(x[i + lane])
            sums[lane] += value * value
    for i in range(whole, x.size):
        value = np.float64(x[i])
        sums[i - whole] += value * value
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))


@compiled()
def _add_each_square(x, sums):
    for i in range(x.size):
        value = np.float64(x[i])
        sums[i] += value * value


@compiled()
def _multiply(x, factors):
    for i in range(x.size):
        x[i] *= factors[i]


@compiled()
def _multiply_all(x, factor):
    for i in range(x.size):
        x[i] *= factor


@compiled()
def _add_squares(block, start, columns, by_column, sums):
    stop = start + block.size
    for row in range(start // columns, (stop - 1) // columns + 1):
        low, high = max(start, row * columns), min(stop, (row + 1) * columns)
        x = block[low - start : high - start]
        if by_column:
            _add_each_square(x, sums[low - row * columns : high - row * columns])
        else:
            sums[row] += _square_sum(x)


@compiled()
def _scale(block, start, columns, by_column, factors):
    stop = start + block.size
    for row in range(start // columns, (stop - 1) // columns + 1):
        low, high = max(start, row * columns), min(stop, (row + 1) * columns)
        x = block[low - start : high - start]
        if by_column:
            _multiply(x, factors[low - row * columns : high - row * columns])
        else:
            _multiply_all(x, factors[row])

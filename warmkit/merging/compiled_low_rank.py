"""The loops of low-rank products, as numba compiles them for `machine_code`; `low_rank` says what they compute."""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from warmkit.merging.compiled import combine as combine_rows
from warmkit.merging.compiled import compiled, load_vector, magnitude, narrow, spread, store_vector, widen, widen_all
from warmkit.merging.compiled import gram as gram_of_rows
from warmkit.merging.low_rank import LANES, ROWS, STRIP, TILE, VECTORS, WIDTH


@intrinsic
def _tile(typing_context: Any, left: Any, row: Any, right: Any, tile: Any, rank: Any, sums: Any, place: Any) -> Any:
    """Write the products of ROWS rows of `left` with one tile of `right` to `sums`, [ROWS, STRIP], from column `place` on.

    `row` and `tile` are the first elements of the two in their arrays.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        def pointer(number: int, place: Any) -> Any:
            array = context.make_array(signature.args[number])(context, build, args[number])
            return build.gep(array.data, [place])

        element = context.get_value_type(signature.args[0].dtype)
        rank, size, vector = args[4], args[4].type, ir.VectorType(element, LANES)
        lefts, rights = pointer(0, args[1]), pointer(2, args[3])
        name = f"llvm.fma.v{LANES}f{32 if element == ir.FloatType() else 64}"
        fma = cgutils.get_or_insert_function(build.module, ir.FunctionType(vector, [vector] * 3), name)
        for some in _at_once():
            cells = {cell: cgutils.alloca_once(build, vector) for cell in np.ndindex(ROWS, len(some))}
            for cell in cells.values():
                build.store(ir.Constant(vector, None), cell)
            with cgutils.for_range(build, rank) as loop:
                columns = [
                    load_vector(
                        build, build.gep(rights, [build.add(build.mul(loop.index, size(WIDTH)), size(LANES * each))]), vector
                    )
                    for each in some
                ]
                for r in range(ROWS):
                    value = build.load(build.gep(lefts, [build.add(build.mul(size(r), rank), loop.index)]))
                    factor = spread(build, value, vector)
                    for each, column in enumerate(columns):
                        build.store(build.call(fma, [factor, column, build.load(cells[r, each])]), cells[r, each])
            for (r, each), cell in cells.items():
                store_vector(build, build.load(cell), pointer(5, build.add(args[6], size(r * STRIP + some[each] * LANES))))
        return context.get_dummy_value()

    return types.none(left, types.intp, right, types.intp, types.intp, sums, types.intp), generate


def _at_once() -> list[range]:
    """Return the vectors of a tile whose sums are formed at once: all where registers hold them, else one after another."""
    wide = llvm.get_host_cpu_features().get("avx512f", False)
    return [range(VECTORS)] if wide else [range(each, each + 1) for each in range(VECTORS)]


@compiled()
def _finish(base, sums, out):
    for i in range(out.size):
        out[i] = widen(base[i], sums[0]) + sums[i]


@compiled()
def add(base, start, columns, left, left_start, right, right_start, rank, sums, out):
    """Write base + p, with sums of ROWS rows and STRIP columns as scratch."""
    stop = start + out.size
    last = (stop - 1) // columns
    for row in range(start // columns, last + 1, ROWS):
        rows = min(ROWS, last + 1 - row)
        for column in range(0, columns, STRIP):
            end = min(columns, column + STRIP)
            if (row + rows - 1) * columns + end <= start or row * columns + column >= stop:
                continue
            for place in range(0, end - column, WIDTH):
                tile = right_start + (column + place) * rank
                _tile(left, left_start + row * rank, right, tile, rank, sums, place)
            for r in range(rows):
                first = (row + r) * columns + column
                low, high = max(start, first), min(stop, first + end - column)
                if low < high:
                    _finish(
                        base[low - start : high - start], sums[r, low - first : high - first], out[low - start : high - start]
                    )


@compiled()
def _sums(x, row, start, factors, places, rows, columns, strip, out):
    """Write x + p_row of one tile in float32, whose end may lie in a later matrix than its beginning."""
    if places[row, 0, 0] < 0:
        widen_all(x, out)
        return
    size = rows * columns
    low = 0
    while low < out.size:
        matrix = (start + low) // size
        inside = start + low - matrix * size
        high = min(out.size, low + size - inside)
        left, right, rank = places[row, matrix, 0], places[row, matrix, 1], places[row, matrix, 2]
        add(x[low:high], inside, columns, factors, left, factors, right, rank, strip, out[low:high])
        low = high


@compiled()
def combine(c, x, used, start, factors, places, rows, columns, strip, chunk, scratch, out):
    top = magnitude(narrow(0.0, out[0]))
    low = 0
    while low < out.size:
        high = min(out.size, low + TILE)
        whole = (start + high) // (ROWS * columns) * (ROWS * columns) - start  # products are formed of so many rows
        if low < whole < out.size:
            high = whole
        for row in used:
            _sums(x[row, low:high], row, start + low, factors, places, rows, columns, strip, scratch[row, : high - low])
        # a slice of all rows of scratch would have strides, which cost the vectors
        bits = combine_rows(c, scratch, used, chunk, out[low:high])
        top = bits if bits > top else top
        low = high
    return top


@compiled()
def gram(x, start, factors, places, rows, columns, strip, scratch, subtract, first, doubles, init, sums, part, total):
    count = total.shape[0]
    for low in range(0, x.shape[1], TILE):
        high = min(x.shape[1], low + TILE)
        for row in range(0 if subtract else first, x.shape[0]):
            _sums(x[row, low:high], row, start + low, factors, places, rows, columns, strip, scratch[row, : high - low])
            scratch[row, high - low :] = 0  # of the last tile
        gram_of_rows(scratch, subtract, first, doubles, init, sums, part)
        for a in range(count):
            for b in range(count):
                total[a, b] += part[a, b]


@compiled()
def _square_sum(x, sums):
    """Sum squares in eight sums, always the same eight, so that no machine's vectors decide the order."""
    sums[:] = 0.0
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
def add_squares(block, start, columns, by_column, lanes, sums):
    stop = start + block.size
    for row in range(start // columns, (stop - 1) // columns + 1):
        low, high = max(start, row * columns), min(stop, (row + 1) * columns)
        x = block[low - start : high - start]
        if by_column:
            _add_each_square(x, sums[low - row * columns : high - row * columns])
        else:
            sums[row] += _square_sum(x, lanes)


@compiled()
def scale(block, start, columns, by_column, factors):
    stop = start + block.size
    for row in range(start // columns, (stop - 1) // columns + 1):
        low, high = max(start, row * columns), min(stop, (row + 1) * columns)
        x = block[low - start : high - start]
        if by_column:
            _multiply(x, factors[low - row * columns : high - row * columns])
        else:
            _multiply_all(x, factors[row])

"""The loops that put columns side by side, as numba compiles them for `machine_code`; `turns` says what they write."""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from warmkit.merging.compiled import compiled
from warmkit.merging.turns import BYTES

ACROSS = 64  # columns at a time: a cache line of their elements is filled while it is near


def _tile_of(step: int) -> Callable[..., Any]:
    """Return what turns a square of elements of which `step` lie from one to the next of a column."""

    @intrinsic
    def tile(typing_context: Any, raw: Any, columns: Any, column: Any, row: Any, out: Any, place: Any, width: Any) -> Any:
        """Write LANES elements of each of LANES columns, from `column` and `row` on, to rows of `width` from `place` on."""

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            kind = signature.args[0].dtype
            lanes = BYTES * 8 // kind.bitwidth
            element, size = ir.IntType(kind.bitwidth), ir.IntType(64)
            short, long = ir.VectorType(element, lanes), ir.VectorType(element, step * lanes)

            def pointer(number: int) -> Any:
                return context.make_array(signature.args[number])(context, build, args[number]).data

            source, starts, target = pointer(0), pointer(1), pointer(4)
            first = build.mul(args[3], size(step))
            vectors = []
            for lane in range(lanes):
                start = build.load(build.gep(starts, [build.add(args[2], size(lane))]))
                vector = _load(build, build.gep(source, [build.add(start, first)]), long)
                vectors.append(_shuffle(build, vector, vector, range(0, step * lanes, step)) if step > 1 else vector)
            for each, vector in enumerate(_transposed(build, vectors)):
                at = build.gep(target, [build.add(args[5], build.mul(args[6], size(each)))])
                build.store(vector, build.bitcast(at, short.as_pointer())).align = kind.bitwidth // 8
            return context.get_dummy_value()

        return types.none(raw, columns, types.intp, types.intp, out, types.intp, types.intp), generate

    return tile


def _load(build: Any, pointer: Any, vector: Any) -> Any:
    load = build.load(build.bitcast(pointer, vector.as_pointer()))
    load.align = vector.element.width // 8
    return load


def _shuffle(build: Any, one: Any, two: Any, order: Any) -> Any:
    places = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), [*order])
    return build.shuffle_vector(one, two, places)


def _transposed(build: Any, vectors: list[Any]) -> list[Any]:
    """Return as many vectors with rows and lanes exchanged: each step is a zip of two halves."""
    lanes, half = len(vectors), len(vectors) // 2
    low = [each // 2 + (each % 2) * lanes for each in range(lanes)]
    high = [each + half for each in low]
    for _ in range(lanes.bit_length() - 1):
        pairs = [(vectors[each], vectors[each + half]) for each in range(half)]
        vectors = [_shuffle(build, *pair, order) for pair in pairs for order in (low, high)]
    return vectors


_tile_of_ones, _tile_of_twos = _tile_of(1), _tile_of(2)


@compiled()
def _some(raw, columns, step, row, first, out):
    """Write elements of one row, from column `first` on."""
    for i in range(out.size):
        out[i] = raw[columns[first + i] + row * step]


@compiled()
def _rows(raw, columns, step, row, lanes, out):
    """Write whole rows, square by square; the last ones of a row or column overlap those before."""
    width = columns.size
    rows = out.size // width
    if rows < lanes or width < lanes or step > 2:
        for r in range(rows):
            _some(raw, columns, step, row + r, 0, out[r * width : (r + 1) * width])
        return
    for left in range(0, width, ACROSS):
        right = min(width, left + ACROSS)
        for r in range(0, rows, lanes):
            top = min(r, rows - lanes)
            for c in range(left, right, lanes):
                column = min(c, width - lanes)
                if step == 1:
                    _tile_of_ones(raw, columns, column, row + top, out, top * width + column, width)
                else:
                    _tile_of_twos(raw, columns, column, row + top, out, top * width + column, width)


@compiled()
def turn(raw, columns, step, start, lanes, out):
    width = columns.size
    row, skipped = start // width, start % width
    head = min(out.size, width - skipped) if skipped else 0
    if head:
        _some(raw, columns, step, row, skipped, out[:head])
        row += 1
    whole = (out.size - head) // width * width
    _rows(raw, columns, step, row, lanes, out[head : head + whole])
    _some(raw, columns, step, row + whole // width, 0, out[head + whole :])

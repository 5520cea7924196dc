"""The loops of the two kernels, as numba compiles them for `machine_code`.

An element is widened to the type of the coefficients, summed in the order of the rows without fused multiply-add, and
rounded to float32 and then to its type. bfloat16 comes as uint16 and float16 as int16, so that a type says how to widen.
Nothing is allocated here, since memory of numba's own would need numba where the code runs: scratch is an argument.
"""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from warmkit.merging.kernels import TOGETHER

FLOAT, DOUBLE, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
INT16, INT32 = ir.IntType(16), ir.IntType(32)
VECTOR = 64  # bytes of each of TOGETHER sums that are kept in registers; more would not fit into those of AVX2


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile to plain machine code: no objects of Python or numba, no exceptions."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False, error_model="numpy", **options)


@intrinsic
def widen(typing_context: Any, x: Any, like: Any) -> Any:
    """Turn a stored element into the type of `like`, float64 or (for 16-bit elements) float32, exactly."""

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        value, (stored, wanted) = args[0], signature.args
        if stored == types.uint16:
            value = build.bitcast(build.shl(build.zext(value, INT32), ir.Constant(INT32, 16)), FLOAT)
        elif stored == types.int16:
            value = build.fpext(build.bitcast(value, HALF), FLOAT)
        return value if wanted == types.float32 or stored == types.float64 else build.fpext(value, DOUBLE)

    return like(x, like), generate


@intrinsic
def narrow(typing_context: Any, x: Any, like: Any) -> Any:
    """Round a float64 or float32 to the storage type of `like`: to float32, then, for 16-bit types, once more, ties to even."""

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        value, stored = args[0], signature.args[1]
        if stored == types.float64:
            return value
        if signature.args[0] == types.float64:
            value = build.fptrunc(value, FLOAT)
        if stored == types.int16:
            return build.bitcast(build.fptrunc(value, HALF), INT16)
        if stored == types.uint16:
            return _round_to_bfloat16(build, value)
        return value

    return like(x, like), generate


def _round_to_bfloat16(build: Any, value: Any) -> Any:
    """Add half a unit, keep the upper half; NaN keeps its sign and becomes quiet instead of carrying into infinity."""
    bits = build.bitcast(value, INT32)
    upper = build.lshr(bits, ir.Constant(INT32, 16))
    odd = build.and_(upper, ir.Constant(INT32, 1))
    rounded = build.lshr(build.add(bits, build.add(odd, ir.Constant(INT32, 0x7FFF))), ir.Constant(INT32, 16))
    quiet = build.or_(upper, ir.Constant(INT32, 0x40))
    return build.trunc(build.select(build.fcmp_unordered("uno", value, value), quiet, rounded), INT16)


@intrinsic
def magnitude(typing_context: Any, x: Any) -> Any:
    """Return the bits of a stored element without its sign, as an unsigned integer: they order as |x| does."""
    width = {types.uint16: 16, types.int16: 16, types.float32: 32, types.float64: 64}[x]

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(width)
        return build.and_(build.bitcast(args[0], integer), ir.Constant(integer, (1 << (width - 1)) - 1))

    return getattr(types, f"uint{width}")(x), generate


@compiled()
def _two(c, x, d, y, out):
    top = magnitude(narrow(0.0, out[0]))
    for i in range(out.size):
        value = narrow(c * widen(x[i], c) + d * widen(y[i], d), out[i])
        out[i] = value
        bits = magnitude(value)
        top = bits if bits > top else top
    return top


@compiled()
def _three(c, x, d, y, e, z, out):
    top = magnitude(narrow(0.0, out[0]))
    for i in range(out.size):
        value = narrow(c * widen(x[i], c) + d * widen(y[i], d) + e * widen(z[i], e), out[i])
        out[i] = value
        bits = magnitude(value)
        top = bits if bits > top else top
    return top


@compiled()
def _add_two(total, c, x, d, y):
    for i in range(total.size):
        total[i] = (total[i] + c * widen(x[i], c)) + d * widen(y[i], d)


@compiled()
def _scale(total, c, x):
    for i in range(total.size):
        total[i] = c * widen(x[i], c)


@compiled()
def _finish(total, out):
    top = magnitude(narrow(0.0, out[0]))
    for i in range(out.size):
        value = narrow(total[i], out[i])
        out[i] = value
        bits = magnitude(value)
        top = bits if bits > top else top
    return top


@compiled()
def _finish_one(total, c, x, out):
    top = magnitude(narrow(0.0, out[0]))
    for i in range(out.size):
        value = narrow(total[i] + c * widen(x[i], c), out[i])
        out[i] = value
        bits = magnitude(value)
        top = bits if bits > top else top
    return top


@compiled()
def _many(c, x, rows, scratch, out):
    """Sum any number of rows chunk by chunk, two rows a pass over a total that stays in cache."""
    top = magnitude(narrow(0.0, out[0]))
    for start in range(0, out.size, scratch.size):
        stop = min(out.size, start + scratch.size)
        total = scratch[: stop - start]
        _scale(total, c[0], x[rows[0], start:stop])
        k = 1
        while k + 1 < rows.size:
            _add_two(total, c[k], x[rows[k], start:stop], c[k + 1], x[rows[k + 1], start:stop])
            k += 2
        if k < rows.size:
            bits = _finish_one(total, c[k], x[rows[k], start:stop], out[start:stop])
        else:
            bits = _finish(total, out[start:stop])
        top = bits if bits > top else top
    return top


@compiled()
def combine(c, x, rows, scratch, out):
    """Write the sum, a chunk as large as the scratch at a time; return the largest magnitude's bits."""
    if rows.size == 2:
        return _two(c[0], x[rows[0]], c[1], x[rows[1]], out)
    if rows.size == 3:
        return _three(c[0], x[rows[0]], c[1], x[rows[1]], c[2], x[rows[2]], out)
    return _many(c, x, rows, scratch, out)


@intrinsic
def _add_up(typing_context: Any, c: Any, x: Any, rows: Any, place: Any, total: Any) -> Any:
    """Write TOGETHER sums of rows of x, of a vector of columns from `place` on, to total[:, place:]; they stay in registers."""
    lanes = 8 * VECTOR // c.dtype.bitwidth

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        def pointer(number: int, row: Any, column: Any) -> Any:
            array = context.make_array(signature.args[number])(context, build, args[number])
            return build.gep(array.data, [build.add(build.mul(row, build.extract_value(array.shape, 1)), column)])

        element, place, size = context.get_value_type(c.dtype), args[3], args[3].type
        vector = ir.VectorType(element, lanes)
        numbers = context.make_array(rows)(context, build, args[2])
        unchanging = ir.Constant(vector, [ir.Constant(element, -0.0)] * lanes)  # whatever is added to it is the sum
        cells = [cgutils.alloca_once_value(build, unchanging) for _ in range(TOGETHER)]
        with cgutils.for_range(build, build.extract_value(numbers.shape, 0)) as loop:
            values = load_vector(build, pointer(1, build.load(build.gep(numbers.data, [loop.index])), place), vector)
            for k, cell in enumerate(cells):
                factor = spread(build, build.load(pointer(0, size(k), loop.index)), vector)
                build.store(build.fadd(build.load(cell), build.fmul(factor, values)), cell)
        for k, cell in enumerate(cells):
            store_vector(build, build.load(cell), pointer(4, size(k), place))
        return context.get_dummy_value()

    return types.none(c, x, rows, types.intp, total), generate


def load_vector(build: Any, pointer: Any, vector: Any) -> Any:
    load = build.load(build.bitcast(pointer, vector.as_pointer()))
    load.align = 4
    return load


def store_vector(build: Any, value: Any, pointer: Any) -> None:
    build.store(value, build.bitcast(pointer, value.type.as_pointer())).align = 4


def spread(build: Any, value: Any, vector: Any) -> Any:
    """Return a vector whose elements are all one value."""
    one = build.insert_element(ir.Constant(vector, ir.Undefined), value, INT32(0))
    return build.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(INT32, vector.count), None))


@compiled()
def widen_all(x, out):
    for i in range(out.size):
        out[i] = widen(x[i], out[i])


@compiled()
def combine_together(c, x, rows, wide, total, out, places):
    """Write up to TOGETHER sums of the same rows as `combine` does, a chunk at a time, for which a row is widened once.

    Args:
        c: [TOGETHER, R], the factors of the rows.
        x: [V, n].
        rows: [R], which of them.
        wide: [V, chunk] scratch; a chunk is whole vectors.
        total: [TOGETHER, chunk] scratch.
        out: [K, n].
        places: [at most TOGETHER], which of `out`.
    """
    top = magnitude(narrow(0.0, out[0, 0]))
    lanes = VECTOR // c.itemsize
    for start in range(0, out.shape[1], total.shape[1]):
        stop = min(out.shape[1], start + total.shape[1])
        for row in rows:
            widen_all(x[row, start:stop], wide[row, : stop - start])
        for place in range(0, stop - start, lanes):  # the last vector may hold more than there is
            _add_up(c, wide, rows, place, total)
        for k in range(places.size):
            bits = _finish(total[k, : stop - start], out[places[k], start:stop])
            top = bits if bits > top else top
    return top


@compiled()
def convert(x, out):
    for i in range(out.size):
        out[i] = narrow(widen(x[i], 0.0), out[i])


@compiled()
def peak(x):
    top = magnitude(x[0])
    for i in range(x.size):
        bits = magnitude(x[i])
        top = bits if bits > top else top
    return top


@compiled()
def _as_double(x, out):
    for i in range(out.size):
        out[i] = widen(x[i], 0.0)


@compiled()
def _less(x, init, out):
    for i in range(out.size):
        out[i] = widen(x[i], 0.0) - init[i]


@compiled(fastmath={"reassoc", "contract"})
def _add_products(a, b, c, d, gram, row, column):
    """Add the four products of two rows with two rows: two loads for two sums, as many as a core does at once."""
    ac = ad = bc = bd = 0.0
    for i in range(a.size):
        ac += a[i] * c[i]
        ad += a[i] * d[i]
        bc += b[i] * c[i]
        bd += b[i] * d[i]
    gram[row, column] += ac
    gram[row, column + 1] += ad
    gram[row + 1, column] += bc
    gram[row + 1, column + 1] += bd


@compiled(fastmath={"reassoc", "contract"})
def _gram_of_two(init, x, y, out):
    xx = xy = yy = 0.0
    for i in range(x.size):
        zero = widen(init[i], 0.0)
        a = widen(x[i], 0.0) - zero
        b = widen(y[i], 0.0) - zero
        xx += a * a
        xy += a * b
        yy += b * b
    out[0, 0], out[0, 1], out[1, 0], out[1, 1] = xx, xy, xy, yy


@compiled()
def gram(x, subtract, first, scratch, init, sums, out):
    """Write the products, with the scratch of `gram_scratch`, whose rows beyond those of `x` are zero."""
    count = out.shape[0]
    if subtract and count == 2 and first == 1:
        _gram_of_two(x[0], x[1], x[2], out)
        return
    even, width = scratch.shape
    sums[:] = 0.0
    for start in range(0, x.shape[1], width):
        stop = min(x.shape[1], start + width)
        size = stop - start
        if subtract:
            _as_double(x[0, start:stop], init[:size])
        for row in range(first, x.shape[0]):
            if subtract and row > 0:
                _less(x[row, start:stop], init[:size], scratch[row - first, :size])
            else:
                _as_double(x[row, start:stop], scratch[row - first, :size])
        for a in range(0, even, 2):
            for b in range(a, even, 2):
                _add_products(scratch[a, :size], scratch[a + 1, :size], scratch[b, :size], scratch[b + 1, :size], sums, a, b)
    for a in range(count):
        for b in range(a, count):
            out[a, b] = out[b, a] = sums[a, b]

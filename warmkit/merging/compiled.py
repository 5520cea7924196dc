"""The loops of the two kernels, compiled by numba without the interpreter lock and cached on disk.

An element is widened to the type of the coefficients, summed in the order of the rows without fused multiply-add, and
rounded to float32 and then to its type. bfloat16 comes as uint16 and float16 as int16, so that a type says how to widen.
"""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import registry
from numba.extending import intrinsic

CHUNK = 2048  # elements whose float64 copies of a few models stay in the first-level cache
GRAM_DOUBLES = 8192  # float64 values of all rows at a time; fewer cost more calls, more leave the cache
FLOAT, DOUBLE, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
INT16, INT32 = ir.IntType(16), ir.IntType(32)

# numba loads half of itself at the first call otherwise: half a second that looks like work
registry.cpu_target.typing_context.refresh()  # pyright: ignore[reportAttributeAccessIssue]
registry.cpu_target.target_context.refresh()  # pyright: ignore[reportAttributeAccessIssue]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile without the interpreter lock; cache the machine code where some directory takes it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no writable place for a cache
            return numba.njit(nogil=True, **options)(function)

    return decorate


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
def _many(c, x, rows, out):
    """Sum any number of rows chunk by chunk, two rows a pass over a total that stays in cache."""
    top = magnitude(narrow(0.0, out[0]))
    scratch = np.empty(CHUNK, c.dtype)
    for start in range(0, out.size, CHUNK):
        stop = min(out.size, start + CHUNK)
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
def combine(c, x, rows, out):
    if rows.size == 2:
        return _two(c[0], x[rows[0]], c[1], x[rows[1]], out)
    if rows.size == 3:
        return _three(c[0], x[rows[0]], c[1], x[rows[1]], c[2], x[rows[2]], out)
    return _many(c, x, rows, out)


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
def _gram_of_two(init, x, y):
    xx = xy = yy = 0.0
    for i in range(x.size):
        zero = widen(init[i], 0.0)
        a = widen(x[i], 0.0) - zero
        b = widen(y[i], 0.0) - zero
        xx += a * a
        xy += a * b
        yy += b * b
    return xx, xy, yy


@compiled()
def gram(x, subtract, first):
    count = x.shape[0] - first
    gram = np.zeros((count, count))
    if subtract and count == 2 and first == 1:
        gram[0, 0], gram[0, 1], gram[1, 1] = _gram_of_two(x[0], x[1], x[2])
        gram[1, 0] = gram[0, 1]
        return gram
    even = count + count % 2  # an odd last row is paired with zeros
    width = max(64, GRAM_DOUBLES // even // 64 * 64)
    scratch = np.zeros((even, width))
    init = np.zeros(width)
    sums = np.zeros((even, even))
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
            gram[a, b] = gram[b, a] = sums[a, b]
    return gram

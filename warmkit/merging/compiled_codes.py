"""The loops that turn codes into numbers, as numba compiles them for `machine_code`; `codes` says what they compute."""
# numba rewrites what follows; a type checker cannot follow it there
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from warmkit.merging.compiled import FLOAT, HALF, INT16, compiled, narrow

BYTE = ir.IntType(8)


@intrinsic
def _number(typing_context: Any, code: Any) -> Any:
    """Return the float32 that a code stands for: a whole number of eight bits, an FP8 number (E4M3) as uint8, or a float32.

    The bits of E4M3 in the place of a float16's exponent and mantissa are its number divided by 256, subnormals too. It has
    no infinity, and one NaN of either sign.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        code = args[0]
        if signature.args[0] == types.float32:
            return code
        if signature.args[0] == types.int8:
            return build.sitofp(code, FLOAT)
        magnitude = build.zext(build.and_(code, ir.Constant(BYTE, 0x7F)), INT16)
        sign = build.zext(build.and_(code, ir.Constant(BYTE, 0x80)), INT16)
        bits = build.or_(build.shl(magnitude, ir.Constant(INT16, 7)), build.shl(sign, ir.Constant(INT16, 8)))
        value = build.fmul(build.fpext(build.bitcast(bits, HALF), FLOAT), ir.Constant(FLOAT, 256.0))
        nan = build.icmp_unsigned("==", magnitude, ir.Constant(INT16, 0x7F))
        return build.select(nan, ir.Constant(FLOAT, float("nan")), value)

    return types.float32(code), generate


@compiled()
def _scaled(codes, zero, scale, out):
    for i in range(out.size):
        out[i] = narrow((_number(codes[i]) - zero) * scale, out[i])


@compiled()
def decode(codes, start, rows, columns, high, wide, scales, zeros, out):
    """Write (code - zero) * scale, each of the block of `high` rows and `wide` columns that an element lies in."""
    stop = start + out.size
    down, across = (rows + high - 1) // high, (columns + wide - 1) // wide
    for row in range(start // columns, (stop - 1) // columns + 1):
        first = (row // rows * down + row % rows // high) * across
        left, right = max(start, row * columns) - row * columns, min(stop, (row + 1) * columns) - row * columns
        for block in range(left // wide, (right - 1) // wide + 1):
            low = row * columns + max(left, block * wide) - start
            end = row * columns + min(right, (block + 1) * wide) - start
            _scaled(codes[low:end], zeros[first + block], scales[first + block], out[low:end])


@compiled()
def decode_ordered(codes, start, across, order, scales, zeros, out):
    """Write (code - zero) * scale, each of the block of its row, one of `across`, that the order of columns says."""
    for i in range(out.size):
        row, column = divmod(start + i, order.size)
        block = row * across + order[column]
        out[i] = narrow((_number(codes[i]) - zeros[block]) * scales[block], out[i])


@compiled()
def nibbles(packed, first, out):
    """Write the whole numbers of four bits from number `first` on, the lower half of a byte first, less 8."""
    for i in range(out.size):
        place = first + i
        out[i] = ((packed[place >> 1] >> ((place & 1) << 2)) & 15) - 8


@compiled()
def _column_of_fours(packed, half, place, shift, scales, across, block, first, table, out):
    for i in range(out.size):
        row = first + i
        code = (packed[row * half + place] >> shift) & 15
        out[i] = narrow(table[code] * scales[row * across + block], out[i])


@compiled()
def fours(packed, scales, start, rows, columns, tile, table, out):
    """Write a part of the transpose of a matrix of FP4 codes, from element `start` of the transpose on.

    The bytes of `tile` rows stay in the first-level cache from one column to the next.
    """
    half, across = columns // 2, columns // 32
    stop = start + out.size
    for top in range(0, rows, tile):
        bottom = min(rows, top + tile)
        for column in range(start // rows, (stop - 1) // rows + 1):
            low, high = max(start, column * rows + top), min(stop, column * rows + bottom)
            if low < high:
                part = out[low - start : high - start]
                shift, place, block = (column & 1) << 2, column >> 1, column >> 5
                _column_of_fours(packed, half, place, shift, scales, across, block, low - column * rows, table, part)

"""Codes and scales from numbers: FP8 with scales of blocks, MXFP4; the counterpart of `codes`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.merging.codes import FP4

Floats = NDArray[np.float32]
LARGEST = 448.0  # of FP8 (E4M3)
TINY = np.float32(2.0**-110)  # a block below it is written as zeros: 1 / TINY * 448 is still finite
GROUP = 32  # numbers of MXFP4 with one exponent


def small_floats(numbers: Floats, exponent: int, mantissa: int, largest: float) -> NDArray[np.uint8]:
    """Round numbers to floats of a few bits, ties to even; what is beyond the largest becomes that.

    Args:
        numbers: Finite.
        exponent: Bits of the exponent, whose bias is half of its range.
        mantissa: Bits of the mantissa.
        largest: The largest number that the format has.

    Returns:
        The bits, in the lowest ones of a byte.

    Examples:
        >>> small_floats(np.array([1.0, -0.3, 900.0], np.float32), 4, 3, 448.0).tolist()
        [56, 170, 126]
    """
    bias, drop = (1 << (exponent - 1)) - 1, 23 - mantissa
    magnitude = np.minimum(np.abs(numbers), np.float32(largest))
    bits = magnitude.view(np.uint32)
    normal = ((bits + ((1 << (drop - 1)) - 1) + ((bits >> drop) & 1)) >> drop) - np.uint32((127 - bias) << mantissa)
    subnormal = np.rint(magnitude * np.float32(2.0 ** (bias - 1 + mantissa))).astype(np.uint32)
    codes = np.where(magnitude < 2.0 ** (1 - bias), subnormal, normal).astype(np.uint8)
    return codes | (np.signbit(numbers).view(np.uint8) << np.uint8(exponent + mantissa))


def fp8_scales(largest: Floats) -> tuple[Floats, Floats]:
    """Return what to divide the numbers of blocks by, as it is stored, and what to multiply them with, from their largest.

    The largest number of a block becomes the largest of FP8, 448; a block of zeros keeps 1.

    Source: transformers 5.23.0, `Fp8Quantize`.
    """
    nothing = largest < TINY
    whole = np.where(nothing, np.float32(LARGEST), largest)
    forward = np.float32(1) / whole * np.float32(LARGEST)  # two roundings, as torch divides a number by a tensor
    forward[nothing] = 1
    return np.float32(1) / forward, forward


def power_scales(inverse: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """Return exponents (E8M0) of scales that are rounded up to powers of two, and what to multiply numbers with.

    Source: transformers 5.23.0, `Fp8Quantize` with `scale_fmt` ue8m0.
    """
    mantissa, exponent = np.frexp(np.maximum(inverse, np.finfo(np.float32).tiny))
    power = exponent - (mantissa == 0.5)
    return (power + 127).astype(np.uint8), np.ldexp(np.float32(1), -power)


def mxfp4(numbers: Floats) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return codes of rows, two a byte, the lower half first, and exponents of 32 of them each.

    A group's exponent is that of its largest number, rounded up from 1.75 on, less 2, so that up to 7 times it becomes 6. What
    was read from MXFP4 becomes the same numbers again.

    Args:
        numbers: [rows, columns], columns a multiple of 32.

    Returns:
        [rows, columns / 32, 16] and [rows, columns / 32] bytes.

    Source: compressed-tensors 0.20.1, `generate_mx_scales`; OCP Microscaling Formats 1.0.
    """
    groups = numbers.reshape(len(numbers), -1, GROUP)
    largest = np.abs(groups).max(-1)
    exponents = np.clip(((largest.view(np.uint32) + (1 << 21)) >> 23).astype(np.int32) - 2, 0, 254)
    codes = small_floats(np.ldexp(groups, 127 - exponents[..., None]), 2, 1, float(FP4.max()))
    return codes[..., ::2] | (codes[..., 1::2] << np.uint8(4)), exponents.astype(np.uint8)


def fp4_numbers(packed: NDArray[np.uint8], exponents: NDArray[np.uint8]) -> Any:
    """Return what codes of MXFP4 stand for, in the form of `mxfp4`'s argument."""
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(*exponents.shape, GROUP)
    return np.ldexp(FP4[codes], exponents[..., None].astype(np.int32) - 127).reshape(len(exponents), -1)

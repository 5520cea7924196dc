"""Merged weights as codes and scales again, in the scheme and the places of a quantised checkpoint, with what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.byte_scales import ByteScales
from warmkit.formats.coded import CodedTensor
from warmkit.formats.dtypes import E4M3
from warmkit.formats.mxfp4 import ExpertsTensor
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.merging import codes, encoding
from warmkit.merging.kernels import NumbaKernels
from warmkit.sources.files import Files

BAND = 1 << 24  # elements of a row of blocks that are held at once
Written: TypeAlias = "Iterator[tuple[StoredTensor, int, NDArray[Any]]]"


@dataclass
class Error:
    """Sums of squares of differences and of numbers."""

    differences: float = 0.0
    numbers: float = 0.0

    def add(self, numbers: NDArray[np.float32], decoded: NDArray[np.float32]) -> None:
        difference = (decoded - numbers).ravel()
        self.differences += float(np.dot(difference.astype(np.float64), difference))
        self.numbers += float(np.dot(numbers.ravel().astype(np.float64), numbers.ravel()))

    @property
    def relative(self) -> float:
        return math.sqrt(self.differences / self.numbers) if self.numbers else 0.0


def is_coded(tensor: Tensor) -> bool:
    """Say whether a tensor's numbers are computed from codes."""
    return isinstance(tensor, CodedTensor | ExpertsTensor)


def can_recode(tensor: Tensor) -> bool:
    """Say whether `recoded` writes a tensor: FP8 with scales of blocks, or experts in MXFP4."""
    if isinstance(tensor, ExpertsTensor):
        return True
    if not isinstance(tensor, CodedTensor) or tensor.codes.dtype != E4M3 or tensor.zeros is not None:
        return False
    return type(tensor) is CodedTensor and tensor.dtype.name == "F32" and tensor.block[0] * tensor.shape[-1] <= BAND


def recoded(target: Tensor, source: StoredTensor, files: Files, error: Error) -> Written:
    """Yield codes and scales of a tensor, with the stored tensor that takes them and the place of the first in it."""
    return (
        _experts(target, source, files, error) if isinstance(target, ExpertsTensor) else _blocks(target, source, files, error)
    )


def _blocks(target: Tensor, source: StoredTensor, files: Files, error: Error) -> Written:
    assert isinstance(target, CodedTensor)
    powers = isinstance(target.scales, ByteScales)
    scales = target.scales.stored if isinstance(target.scales, ByteScales) else target.scales
    assert isinstance(target.codes, StoredTensor)
    assert isinstance(scales, StoredTensor)
    (*stack, rows, columns), (high, wide) = target.shape, target.block
    starts, down = np.arange(0, columns, wide), -(-rows // high)
    for matrix in range(math.prod(stack)):
        for band in range(down):
            count, first = min(high, rows - band * high), (matrix * rows + band * high) * columns
            numbers = _read(source, first, (count, columns), files)
            largest = np.maximum.reduceat(np.abs(numbers).max(0), starts)
            inverse, forward = encoding.fp8_scales(largest)
            if powers:
                stored, forward = encoding.power_scales(inverse)
                inverse = codes.E8M0[stored]
            else:
                stored = _convert(inverse, scales.dtype.storage)
                inverse = _convert(stored, "float32")
                forward = forward if scales.dtype.name == "F32" else np.float32(1) / inverse
            spread = np.repeat(forward, wide)[:columns]
            found = encoding.small_floats(numbers * spread, 4, 3, encoding.LARGEST)
            error.add(numbers, codes.e4m3()[found] * np.repeat(inverse, wide)[:columns])
            yield target.codes, first, found
            yield scales, (matrix * down + band) * len(starts), stored


def _experts(target: ExpertsTensor, source: StoredTensor, files: Files, error: Error) -> Written:
    assert isinstance(target.blocks, StoredTensor)
    assert isinstance(target.scales, StoredTensor)
    count, columns, rows = target.shape
    for expert in range(count):
        numbers = np.ascontiguousarray(_read(source, expert * rows * columns, (columns, rows), files).T)
        packed, exponents = encoding.mxfp4(numbers)
        error.add(numbers, encoding.fp4_numbers(packed, exponents))
        yield target.blocks, expert * packed.size, packed
        yield target.scales, expert * exponents.size, exponents


def _read(source: StoredTensor, first: int, shape: tuple[int, int], files: Files) -> NDArray[np.float32]:
    block = np.empty(shape, source.dtype.storage)
    source.read(files, first, block.reshape(-1).data.cast("B"))
    return _convert(block.reshape(-1), "float32").reshape(shape)


def _convert(numbers: NDArray[Any], storage: str) -> NDArray[Any]:
    if numbers.dtype == storage:
        return numbers
    out = np.empty(numbers.size, storage)
    NumbaKernels().convert(numbers, out)
    return out

"""Weights written over those of a checkpoint, part by part, in the places and types that its files give them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.engine.recode import Error, is_coded, recoded
from warmkit.formats.dtypes import DType
from warmkit.formats.pieces import Piece, Stretch, boxes, places_of, row_major
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.merging.kernels import NumbaKernels
from warmkit.sources.files import Files
from warmkit.sources.handles import Handles

MOST = 1 << 20  # elements held at once


class Refill:
    """Writer of tensors into copies of the files that they lie in; a context.

    Args:
        copy_of: The copy of a file.

    Attributes:
        error: Of what was written as codes.
    """

    def __init__(self, copy_of: Callable[[Path], Path]) -> None:
        self._copy_of, self._kernels, self.error = copy_of, NumbaKernels(), Error()
        self._reading, self._writing = Files(), Handles(os.O_WRONLY | os.O_NOFOLLOW)

    def __enter__(self) -> Refill:
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.close()
        self._writing.close()

    def fill(self, target: Tensor, source: StoredTensor) -> None:
        """Write the numbers of a tensor where another of its shape lies, rounded to its type, or as codes if it has them."""
        if is_coded(target):
            for stored, first, block in recoded(target, source, self._reading, self.error):
                place = replace(stored, offset=stored.offset + first * stored.dtype.itemsize)
                self._write(place, stored.dtype, iter([np.ascontiguousarray(block)]))
            return
        for place in places_of(target):
            blocks = self._run(source, place) if isinstance(place, Stretch) else self._box(source, place)
            self._write(place, target.dtype, (self._rounded(block, source.dtype, target.dtype) for block in blocks))

    def average(self, target: Tensor, rows: Sequence[Tensor], coefficients: NDArray[np.float64]) -> None:
        """Write the weighted sum of tensors that lie alike where one of them lies."""
        for number, place in enumerate(places_of(target)):
            others = [_in_file(places_of(row)[number], row.dtype) for row in rows]
            self._write(place, target.dtype, self._sums(others, coefficients))

    def _sums(self, rows: Sequence[StoredTensor], coefficients: NDArray[np.float64]) -> Iterator[NDArray[Any]]:
        for start in range(0, rows[0].elements, MOST):
            count = min(MOST, rows[0].elements - start)
            block = np.empty((len(rows), count), rows[0].dtype.storage)
            for row, line in zip(rows, block):
                row.read(self._reading, start, line.data.cast("B"))
            out = np.empty(count, block.dtype)
            self._kernels.combine(coefficients, block, out)
            yield out

    def _run(self, source: StoredTensor, place: Stretch) -> Iterator[NDArray[Any]]:
        """Yield elements that follow each other in the tensor."""
        for start in range(place.first, place.first + place.length, MOST):
            block = np.empty(min(MOST, place.first + place.length - start), source.dtype.storage)
            source.read(self._reading, start, block.data.cast("B"))
            yield block

    def _box(self, source: StoredTensor, place: Piece) -> Iterator[NDArray[Any]]:
        """Yield the elements of a box of the tensor in the order in which its place has them."""
        assert isinstance(source.file, Path)
        whole = Piece(source.file, source.offset, (0,) * len(source.shape), source.shape, row_major(source.shape))
        order = place.file_order() or ()
        sizes, back = [place.shape[axis] for axis in order], np.argsort(order)
        for start in range(0, math.prod(sizes), MOST):
            for low, high in boxes(sizes, start, min(MOST, math.prod(sizes) - start)):
                block = np.empty([end - begin for begin, end in zip(low, high)], source.dtype.storage)
                first, last = (
                    tuple(place.origin[axis] + corner[back[axis]] for axis in range(len(back))) for corner in (low, high)
                )
                whole.read(self._reading, first, last, block.transpose(back))
                yield block.reshape(-1)

    def _rounded(self, block: NDArray[Any], have: DType, want: DType) -> NDArray[Any]:
        if have == want:
            return block
        out = np.empty(block.shape, want.storage)
        self._kernels.combine(np.ones(1), block.reshape(1, -1), out)
        return out

    def _write(self, place: Piece | Stretch | StoredTensor, dtype: DType, blocks: Iterator[NDArray[Any]]) -> None:
        offset = place.offset
        assert isinstance(place.file, Path)
        with self._writing.use(self._copy_of(place.file)) as descriptor:
            for block in blocks:
                view = block.data.cast("B")
                while view.nbytes:
                    count = os.pwrite(descriptor, view, offset)
                    view, offset = view[count:], offset + count


def _in_file(place: Piece | Stretch, dtype: DType) -> StoredTensor:
    """Return the elements of a place in the order of the file, as one flat tensor."""
    count = place.length if isinstance(place, Stretch) else math.prod(place.shape)
    return StoredTensor("", dtype, (count,), place.file, place.offset)

"""Tensors of codes and scales, read as the numbers that they stand for: (code - zero) * scale, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import FormatError
from warmkit.formats import held
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.held import Recent, read_whole
from warmkit.formats.tensors import Counted, Tensor
from warmkit.merging import codes
from warmkit.merging.codes import Grid
from warmkit.sources.files import Files, WeightFile

PIECE = 1 << 18  # elements at a time: codes and numbers stay in the second-level cache
Block: TypeAlias = "tuple[int, int]"


def blocks_of(shape: tuple[int, ...], block: Block) -> tuple[int, ...]:
    """Return how many blocks a matrix, or each of a stack of matrices, has down and across; the last ones may be cut.

    Examples:
        >>> blocks_of((3, 300, 256), (128, 128))
        (3, 3, 2)
    """
    *stack, rows, columns = shape
    return (*stack, -(-rows // block[0]), -(-columns // block[1]))


@dataclass(frozen=True, eq=False)
class CodedTensor(Counted):
    """A matrix, or a stack of matrices, of codes.

    Attributes:
        name: Of the weight.
        dtype: Type in which the numbers are computed, the last rounding of the library that defines the form left out.
        stands_for: Type of the model's weights, as its config says.
        codes: Whole numbers of eight bits, FP8 numbers, or float32.
        scales: One a block.
        zeros: The codes that stand for 0, one a block; None where that is 0.
        block: Rows and columns of a block.
        grids: Scales in memory, shared by the tensors of a model.
        order: The block across of every column, where those are not the next `block[1]` each.
    """

    name: str
    dtype: DType
    stands_for: DType
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    block: Block
    grids: Recent[Grid]
    order: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def file(self) -> WeightFile:
        return self.codes.file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out = np.frombuffer(view, self.dtype.storage)
        if not out.size:
            return
        grid = self.grids.get(self.name, lambda: self._grid(files))
        for low in range(0, out.size, PIECE):
            piece = out[low : low + PIECE]
            raw = held.buffer(PIECE, self.codes.dtype.storage, "codes")[: piece.size]
            self.codes.read(files, start + low, raw.data.cast("B"))
            codes.decode(raw, start + low, grid, piece)

    def ahead(self, files: Files, start: int, elements: int) -> None:
        self.codes.ahead(files, start, elements)

    def _grid(self, files: Files) -> Grid:
        scales = read_whole(files, self.scales, DTYPES["F32"]).ravel()
        return Grid(self._matrix, self.block, scales, self._zeros(files, len(scales)), self._order(files))

    @property
    def _matrix(self) -> Block:
        """Rows and columns of what is cut into blocks."""
        rows, columns = self.shape[-2:]
        return rows, columns

    def _zeros(self, files: Files, count: int) -> NDArray[Any]:
        if self.zeros is None:
            return np.zeros(count, np.float32)
        return read_whole(files, self.zeros, self.zeros.dtype).ravel().astype(np.float32)

    def _order(self, files: Files) -> NDArray[np.int32] | None:
        """Return the block of every column; None where they are in a row."""
        if self.order is None:
            return None
        order = read_whole(files, self.order, self.order.dtype)
        across = -(-len(order) // self.block[1])
        if len(order) and not 0 <= int(order.min()) <= int(order.max()) < across:
            raise FormatError(
                f"{self.order.file}: {self.order.name!r} names groups from {order.min()} to {order.max()}, expected 0 to "
                f"{across - 1}; copy the checkpoint again"
            )
        plain = np.array_equal(order, np.arange(len(order)) // self.block[1])
        return None if plain else order.astype(np.int32)


def one_a_block(shape: tuple[int, ...], block: Block, scales: tuple[int, ...]) -> bool:
    """Say whether scales of a shape are one for every block; of a matrix of one block, dimensions of size 1 may be missing."""
    expected = blocks_of(shape, block)
    return scales == expected or (math.prod(expected[-2:]) == 1 and _wider_than_one(scales) == _wider_than_one(expected))


def _wider_than_one(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]

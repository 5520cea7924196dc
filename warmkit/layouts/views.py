"""Tensors read out of others in another order: an expert's matrix out of a stack, a stack out of matrices, one turned round."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.dtypes import DType
from warmkit.formats.held import Recent
from warmkit.formats.pieces import Piece, contiguous, row_major
from warmkit.formats.tensors import Counted, Tensor, result_dtype
from warmkit.sources.files import Files, WeightFile

Matrix: TypeAlias = "NDArray[Any]"
HELD = 4  # matrices of a tensor in memory: more than the threads of a merge work on at once in one of them


@dataclass(frozen=True)
class TensorPiece(Piece):
    """A box of a tensor that lies in another tensor; `offset` counts bytes from that one's start, `file` is for messages."""

    tensor: Tensor

    def fetch(self, files: Files, place: int, view: memoryview) -> None:
        self.tensor.read(files, place // self.tensor.dtype.itemsize, view)


class Part(NamedTuple):
    """A part of a view.

    Attributes:
        places: Where it is in the view, along each dimension.
        piece: Its numbers, a box of the same sizes.
    """

    places: tuple[range, ...]
    piece: TensorPiece


@dataclass(frozen=True, eq=False)
class StrungTensor(Counted):
    """A tensor whose elements, in order, are stretches of other tensors' elements.

    Attributes:
        firsts: The first element of every stretch, in order.
        starts: The tensor that each is of, and its first element there.
    """

    name: str
    shape: tuple[int, ...]
    firsts: tuple[int, ...]
    starts: tuple[tuple[Tensor, int], ...]

    @property
    def dtype(self) -> DType:
        return self.starts[0][0].dtype

    @property
    def stands_for(self) -> DType:
        return result_dtype(self.starts[0][0])

    @property
    def file(self) -> WeightFile:
        return self.starts[0][0].file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        for tensor, first, count in self._stretches(start, view.nbytes // self.dtype.itemsize):
            tensor.read(files, first, view[: count * self.dtype.itemsize])
            view = view[count * self.dtype.itemsize :]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        for tensor, first, count in self._stretches(start, min(elements, self.elements - start)):
            tensor.ahead(files, first, count)

    def _stretches(self, start: int, count: int) -> Iterator[tuple[Tensor, int, int]]:
        """Yield tensors, first elements there and numbers of elements of [start, start + count), in order."""
        end, place = start + count, bisect.bisect_right(self.firsts, start) - 1
        while start < end:
            stop = min(end, self.firsts[place + 1]) if place + 1 < len(self.firsts) else end
            tensor, first = self.starts[place]
            yield tensor, first + start - self.firsts[place], stop - start
            start, place = stop, place + 1


@dataclass(frozen=True, eq=False)
class AssembledTensor(Counted):
    """A tensor whose elements lie in another order than it has.

    Its matrices, or what else is a part along the first of three dimensions, are put together in memory one at a time.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    held: Recent[Matrix] = field(default_factory=lambda: Recent[Matrix](HELD))

    @property
    def dtype(self) -> DType:
        return self.parts[0].piece.tensor.dtype

    @property
    def stands_for(self) -> DType:
        return result_dtype(self.parts[0].piece.tensor)

    @property
    def file(self) -> WeightFile:
        return self.parts[0].piece.tensor.file

    @cached_property
    def _unit(self) -> tuple[int, ...]:
        return self.shape[1:] if len(self.shape) > 2 else self.shape

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, done, size = np.frombuffer(view, self.dtype.storage), 0, math.prod(self._unit)
        while done < out.size:
            number, first = divmod(start + done, size)
            matrix = self.held.get(str(number), lambda number=number: self._load(files, number))
            part = matrix[first : first + out.size - done]
            out[done : done + part.size] = part
            done += part.size

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: a matrix is read once, whole, at a moment that the order of reads does not tell."""

    def _load(self, files: Files, number: int) -> Matrix:
        out = np.empty(self._unit, self.dtype.storage)
        stacked = len(self.shape) > 2
        for places, piece in self.parts:
            low, high = [0] * len(places), list(piece.shape)
            if stacked and number not in places[0]:
                continue
            if stacked:
                low[0] = places[0].index(number)
                high[0] = low[0] + 1
            inside = tuple(slice(each.start, each.stop, each.step) for each in places[stacked:])
            target = out[inside]
            piece.read(files, tuple(low), tuple(high), target[None] if stacked else target)
        return out.reshape(-1)


def view_of(name: str, shape: tuple[int, ...], parts: Sequence[Part]) -> Tensor:
    """Return the tensor that parts make, one of theirs where it is that as it is."""
    runs = [_run(shape, each) for each in parts]
    if any(each is None for each in runs):
        return AssembledTensor(name, shape, tuple(parts))
    found = sorted((each for each in runs if each is not None), key=lambda each: each[0])
    first = found[0][1]
    if len(found) == 1 and found[0][2] == 0 and first.shape == shape:
        return first
    return StrungTensor(name, shape, tuple(each[0] for each in found), tuple(each[1:] for each in found))


def _run(shape: tuple[int, ...], part: Part) -> tuple[int, Tensor, int] | None:
    """Return where a part begins in the view, its tensor, and where it begins there; None if either has gaps or turns."""
    places, piece = part
    whole = [len(each) == size for each, size in zip(places, shape)]
    inner = next((axis + 1 for axis in reversed(range(len(shape))) if not whole[axis]), 0)
    together = all(len(each) == 1 for each in places[: max(0, inner - 1)]) and all(
        each.step == 1 for each in places[inner - 1 :]
    )
    if not together or not contiguous(piece.shape, piece.strides):
        return None
    first = sum(each.start * stride for each, stride in zip(places, row_major(shape)))
    return first, piece.tensor, piece.offset // piece.tensor.dtype.itemsize

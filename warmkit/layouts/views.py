"""Tensors read out of others in another order: an expert's matrix out of a stack, a stack out of matrices, one turned round."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.dtypes import DType
from warmkit.formats.pieces import Piece, contiguous, row_major
from warmkit.formats.tensors import Counted, StoredTensor, Tensor, result_dtype
from warmkit.layouts.bands import Bands, Content, Load, Runs, together
from warmkit.merging.turns import BYTES, turn
from warmkit.sources.files import Files, WeightFile


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
    bands: Bands
    own: object = field(default_factory=object)

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
    def unit(self) -> tuple[int, ...]:
        return self.shape[1:] if len(self.shape) > 2 else self.shape

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, done, size = np.frombuffer(view, self.dtype.storage), 0, math.prod(self.unit)
        while done < out.size:
            number, first = divmod(start + done, size)
            part = out[done : done + size - first]
            with self.bands.use((self.own, number), partial(self._content, files, number)) as (raw, _):
                part[:] = raw[: size * part.itemsize].view(part.dtype)[first : first + part.size]
            done += part.size

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: a matrix is read once, whole, at a moment that the order of reads does not tell."""

    def _content(self, files: Files, number: int) -> Content:
        size = math.prod(self.unit) * self.dtype.itemsize
        return Content(size, [lambda raw: self._load(files, number, raw[:size])], np.empty(0, np.int64))

    def _load(self, files: Files, number: int, raw: NDArray[np.uint8]) -> None:
        out = raw.view(self.dtype.storage).reshape(self.unit)
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


@dataclass(frozen=True, eq=False)
class TransposedTensor(AssembledTensor):
    """A tensor of matrices whose columns lie apart in others, each without a gap or with the same gaps.

    What is held are columns as they lie: all of a matrix, or so many of its rows as a band has room for.
    """

    @cached_property
    def step(self) -> int:
        """Elements from one of a column to the next."""
        return self.parts[0].piece.strides[-2]

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, done = np.frombuffer(view, self.dtype.storage), 0
        rows, columns = self.unit
        while done < out.size:
            number, first = divmod(start + done, rows * columns)
            row = first // columns // self._high * self._high
            high = min(self._high, rows - row)
            first -= row * columns
            part = out[done : done + high * columns - first]
            with self.bands.use((self.own, number, row), partial(self._rows, files, number, row, high)) as (raw, starts):
                turn(raw.view(part.dtype), starts, self.step, first, part)
            done += part.size

    @cached_property
    def _high(self) -> int:
        """The rows of a band. What is not in files here is read at once: it is computed, or every read is a request."""
        rows, columns = self.unit
        if not all(_is_here(piece) for _, piece in self.parts):
            return rows
        bands = -(-rows * columns * self.step * self.dtype.itemsize // self.bands.size)
        return -(-rows // bands)

    def _rows(self, files: Files, number: int, row: int, high: int) -> Content:
        """Return what is read of a matrix for some of its rows: its columns, or what lies between them too."""
        starts, at, loads = np.empty(self.unit[1], np.int64), 0, list[Load]()
        for places, piece in self.parts:
            if len(self.shape) > 2 and number not in places[0]:
                continue
            *outer, _, pitch = piece.strides
            first = piece.offset // self.dtype.itemsize + row * self.step
            first += outer[0] * places[0].index(number) if outer else 0
            count, run = len(places[-1]), (high - 1) * self.step + 1
            close = high == self.unit[0] and (2 * run >= pitch or not _is_here(piece))
            runs = together(piece.tensor, first, at, (count - 1) * pitch + run) if close else None
            runs = runs or Runs(piece.tensor, first, pitch, run, count * run, at)
            starts[slice(places[-1].start, places[-1].stop, places[-1].step)] = at + (pitch if close else run) * np.arange(
                count
            )
            runs.announce(files)
            loads += runs.loads(files)
            at += runs.total
        return Content(at * self.dtype.itemsize + BYTES, loads, starts)


def view_of(name: str, shape: tuple[int, ...], parts: Sequence[Part], bands: Bands) -> Tensor:
    """Return the tensor that parts make, one of theirs where it is that as it is; bands are for those that lie otherwise."""
    runs = [_run(shape, each) for each in parts]
    if any(each is None for each in runs):
        kind = TransposedTensor if _is_transposed(shape, parts) else AssembledTensor
        return kind(name, shape, tuple(parts), bands)
    found = sorted((each for each in runs if each is not None), key=lambda each: each[0])
    first = found[0][1]
    if len(found) == 1 and found[0][2] == 0 and first.shape == shape:
        return first
    return StrungTensor(name, shape, tuple(each[0] for each in found), tuple(each[1:] for each in found))


def _is_transposed(shape: tuple[int, ...], parts: Sequence[Part]) -> bool:
    """Say whether parts are columns of matrices, whole ones, with the same gaps between their elements or none."""
    if len(shape) not in (2, 3):
        return False
    columns = all(places[-2] == range(shape[-2]) and piece.strides[-2] < piece.strides[-1] for places, piece in parts)
    return columns and len({piece.strides[-2] for _, piece in parts}) == 1 and parts[0].piece.strides[-2] > 0


def _is_here(piece: TensorPiece) -> bool:
    return type(piece.tensor) is StoredTensor and isinstance(piece.tensor.file, Path)


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

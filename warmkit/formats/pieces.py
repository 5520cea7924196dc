"""Tensors that lie in pieces: boxes of a distributed checkpoint, strided views of a stored block, stretches of elements."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import UnsupportedError
from warmkit.formats.dtypes import DType
from warmkit.formats.tensors import Counted, StoredTensor, Tensor
from warmkit.sources.files import Files

Index: TypeAlias = "tuple[int, ...]"
MOST_COMPARED = 1000  # boxes of one tensor that form no grid
TURNED = 32  # rows that are turned round at once
MOST_READ = 1 << 20  # bytes read at once to pick elements with gaps between them


def row_major(shape: Sequence[int]) -> Index:
    """Return the strides, in elements, of a tensor whose last dimension runs fastest.

    Examples:
        >>> row_major((2, 3, 4))
        (12, 4, 1)
    """
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Say whether elements follow each other in a file as they do in the tensor; dimensions of size 1 do not matter."""
    if 0 in shape:
        return True
    return all(size == 1 or stride == expected for size, stride, expected in zip(shape, strides, row_major(shape)))


def boxes(shape: Sequence[int], start: int, count: int) -> Iterator[tuple[Index, Index]]:
    """Cut the elements [start, start + count) of a row-major tensor into boxes, (first corner, corner past the end) each.

    Examples:
        >>> list(boxes((4, 3), 2, 8))
        [((0, 2), (1, 3)), ((1, 0), (3, 3)), ((3, 0), (4, 1))]
    """
    if not count:
        return
    if len(shape) < 2:
        yield ((start,), (start + count,)) if shape else ((), ())
        return
    row = math.prod(shape[1:])
    place, skipped = divmod(start, row)
    head = min(count, row - skipped) if skipped else 0
    whole, tail = divmod(count - head, row)
    yield from _in_row(place, shape, skipped, head)
    place += bool(head)
    if whole:
        yield (place, *(0 for _ in shape[1:])), (place + whole, *shape[1:])
    yield from _in_row(place + whole, shape, 0, tail)


def _in_row(place: int, shape: Sequence[int], start: int, count: int) -> Iterator[tuple[Index, Index]]:
    for low, high in boxes(shape[1:], start, count):
        yield (place, *low), (place + 1, *high)


def cover_once(shape: Sequence[int], parts: Sequence[tuple[Index, Index]]) -> bool:
    """Say whether boxes, (first corner, sizes) each, cover a tensor, none of its elements twice, and nothing beyond it.

    Examples:
        >>> cover_once((4, 3), [((0, 0), (2, 3)), ((2, 0), (2, 3))]), cover_once((4, 3), [((0, 0), (2, 3)), ((1, 0), (2, 3))])
        (True, False)
    """
    if sum(math.prod(sizes) for _, sizes in parts) != math.prod(shape):
        return False
    spans = [[(a, a + b) for a, b in zip(origin, sizes)] for origin, sizes in parts if math.prod(sizes)]
    inside = all(len(span) == len(shape) and all(b <= n for (_, b), n in zip(span, shape)) for span in spans)
    return inside and not _share(spans)


def _share(spans: list[list[tuple[int, int]]]) -> bool:
    """Say whether two boxes share an element. Boxes of a grid are split by their first axis, others compared one by one."""
    if len(spans) < 2:
        return False
    if not spans[0]:
        return True
    rows: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
    for span in spans:
        rows.setdefault(span[0], []).append(span[1:])
    ordered = sorted(rows)
    if all(one[1] <= two[0] for one, two in itertools.pairwise(ordered)):
        return any(map(_share, rows.values()))
    if len(spans) > MOST_COMPARED:
        return True  # no writer cuts a tensor so
    return any(all(a < d and c < b for (a, b), (c, d) in zip(one, two)) for one, two in itertools.combinations(spans, 2))


@dataclass(frozen=True)
class Piece:
    """A box of a tensor, in one file.

    Attributes:
        file: Where it lies.
        offset: Its first byte.
        origin: Its first corner in the tensor.
        shape: Its sizes.
        strides: Elements between neighbours in the file, one number a dimension; 0 repeats.
    """

    file: Path
    offset: int
    origin: Index
    shape: Index
    strides: Index

    def overlap(self, low: Index, high: Index) -> tuple[Index, Index] | None:
        """Return the part of a box that is in here, None if there is none."""
        first = tuple(map(max, low, self.origin))
        last = tuple(min(end, start + size) for end, start, size in zip(high, self.origin, self.shape))
        return (first, last) if all(a < b for a, b in zip(first, last)) else None

    def read(self, files: Files, low: Index, high: Index, out: NDArray[Any]) -> None:
        """Read a box that lies in here, in coordinates of the tensor, into an array of its shape."""
        order = sorted(range(len(low)), key=lambda axis: -self.strides[axis])
        strides = [self.strides[axis] for axis in order]
        target = out.transpose(order)
        # in the order of the file first: scattering each run over the block would cost more than reading it
        gathered = target if target.flags.c_contiguous else np.empty(target.shape, target.dtype)
        outer, run = _longest_run(target.shape, strides)
        steps = np.indices(target.shape[:outer], np.int64).reshape(outer, math.prod(target.shape[:outer]))
        places = self._start(low, out.itemsize) + out.itemsize * (np.array(strides[:outer], np.int64) @ steps)
        rows = gathered.reshape(len(places), -1)
        self._read_runs(files, places.tolist(), rows, 1 if run == rows.shape[1] else strides[outer])
        if gathered is not target:
            _turn_round(gathered, target)

    def fetch(self, files: Files, place: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `place` on."""
        files.read(self.file, place, view)

    def _read_runs(self, files: Files, places: Sequence[int], rows: NDArray[Any], stride: int) -> None:
        """Read a row of elements at each place; `stride` elements lie from one to the next, 0 repeats the first."""
        if stride == 1:
            view, size = rows.reshape(-1).data.cast("B"), rows.shape[1] * rows.itemsize
            for number, place in enumerate(places):
                self.fetch(files, place, view[number * size : (number + 1) * size])
            return
        count = max(1, MOST_READ // (stride * rows.itemsize)) if stride else rows.shape[1]
        for number, place in enumerate(places):
            for first in range(0, rows.shape[1], count):
                part = rows[number, first : first + count]
                buffer = np.empty((len(part) - 1) * stride + 1, rows.dtype)
                self.fetch(files, place + first * stride * rows.itemsize, buffer.data.cast("B"))
                part[:] = buffer[::stride] if stride else buffer

    def file_order(self) -> Index | None:
        """Return the axes in the order in which its elements follow each other in the file; None where there are gaps."""
        order = tuple(sorted(range(len(self.shape)), key=lambda axis: (self.shape[axis] == 1, -self.strides[axis])))
        dense = contiguous([self.shape[axis] for axis in order], [self.strides[axis] for axis in order])
        return order if dense else None

    def ahead(self, files: Files, low: Index, high: Index, itemsize: int) -> None:
        """Announce the read of a box, where it is one run of bytes."""
        sizes = [end - start for start, end in zip(low, high)]
        outer, run = _longest_run(sizes, self.strides)
        if not outer and run == math.prod(sizes):
            files.ahead(self.file, self._start(low, itemsize), run * itemsize)

    def _start(self, low: Index, itemsize: int) -> int:
        steps = (stride * (at - start) for stride, at, start in zip(self.strides, low, self.origin))
        return self.offset + itemsize * sum(steps)


def _turn_round(gathered: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy elements into another order, some rows at a time: their cache lines are filled while they are near."""
    rows = range(0, target.shape[-2] if target.ndim > 1 else 1, TURNED)
    for first in rows:
        part = (..., slice(first, first + TURNED), slice(None)) if target.ndim > 1 else (...,)
        target[part] = gathered[part]


def _longest_run(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Return how many dimensions are stepped through, and the elements that follow each other in the rest.

    If not even the last dimension is without gaps, it is the rest all the same, and 1 comes back as its run.
    """
    run, outer = 1, len(sizes)
    while outer and (strides[outer - 1] == run or sizes[outer - 1] == 1):
        run *= sizes[outer - 1]
        outer -= 1
    return (outer - 1, 1) if outer and outer == len(sizes) else (outer, run)


@dataclass(frozen=True)
class GatheredTensor(Counted):
    """A tensor put together from pieces that cover it, while it is read."""

    name: str
    dtype: DType
    shape: Index
    pieces: tuple[Piece, ...]

    @property
    def file(self) -> Path:
        return self.pieces[0].file

    @cached_property
    def _joined(self) -> JoinedTensor | None:
        """The same as stretches, where every piece is some whole rows: those are found ten times faster than boxes."""
        row, pieces = self.shape[1:], sorted(self.pieces, key=lambda each: each.origin)
        if not self.shape or any(each.shape[1:] != row or not contiguous(each.shape, each.strides) for each in pieces):
            return None
        size = math.prod(row)
        stretches = [Stretch(each.file, each.offset, size * each.origin[0], math.prod(each.shape)) for each in pieces]
        return JoinedTensor(self.name, self.dtype, self.shape, tuple(each for each in stretches if each.length))

    def read(self, files: Files, start: int, view: memoryview) -> None:
        if self._joined is not None:
            self._joined.read(files, start, view)
            return
        out = np.frombuffer(view, self.dtype.storage)
        done = 0
        for low, high in boxes(self.shape, start, len(out)):
            sizes = [end - begin for begin, end in zip(low, high)]
            part = out[done : done + math.prod(sizes)].reshape(sizes)
            done += part.size
            for piece, (first, last) in self._overlaps(low, high):
                inside = tuple(slice(a - origin, b - origin) for a, b, origin in zip(first, last, low))
                piece.read(files, first, last, part[(*inside, ...)])

    def ahead(self, files: Files, start: int, elements: int) -> None:
        if self._joined is not None:
            self._joined.ahead(files, start, elements)
            return
        for low, high in boxes(self.shape, start, max(0, min(elements, self.elements - start))):
            for piece, (first, last) in self._overlaps(low, high):
                piece.ahead(files, first, last, self.dtype.itemsize)

    def _overlaps(self, low: Index, high: Index) -> Iterator[tuple[Piece, tuple[Index, Index]]]:
        for piece in self.pieces:
            if (found := piece.overlap(low, high)) is not None:
                yield piece, found


class Stretch(NamedTuple):
    """Elements of a flattened tensor that follow each other in a file.

    Attributes:
        file: Where they lie.
        offset: The first byte.
        first: The first element.
        length: How many.
    """

    file: Path
    offset: int
    first: int
    length: int


@dataclass(frozen=True)
class JoinedTensor(Counted):
    """A tensor whose elements, in order, are those of stretches, which may end in the middle of a row.

    Attributes:
        stretches: In order, each from where the one before ends; none is empty.
    """

    name: str
    dtype: DType
    shape: Index
    stretches: tuple[Stretch, ...]

    @property
    def file(self) -> Path:
        return self.stretches[0].file

    @cached_property
    def _firsts(self) -> list[int]:
        return [each.first for each in self.stretches]

    def read(self, files: Files, start: int, view: memoryview) -> None:
        for file, offset, size in self._ranges(start, view.nbytes // self.dtype.itemsize):
            files.read(file, offset, view[:size])
            view = view[size:]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        for file, offset, size in self._ranges(start, min(elements, self.elements - start)):
            files.ahead(file, offset, size)

    def _ranges(self, start: int, count: int) -> Iterator[tuple[Path, int, int]]:
        """Yield file, offset and bytes of elements [start, start + count), in order."""
        size, end = self.dtype.itemsize, start + count
        place = bisect.bisect_right(self._firsts, start) - 1
        while start < end:
            stretch = self.stretches[place]
            stop = min(end, stretch.first + stretch.length)
            yield stretch.file, stretch.offset + size * (start - stretch.first), size * (stop - start)
            start, place = stop, place + 1


def places_of(tensor: Tensor) -> tuple[Piece | Stretch, ...]:
    """Return where in files the elements of a tensor lie.

    Raises:
        UnsupportedError: If they are computed, as those of an adapter are, or lie with gaps or repeated.
    """
    if isinstance(tensor, StoredTensor):
        return (Stretch(tensor.file, tensor.offset, 0, tensor.elements),) if isinstance(tensor.file, Path) else _nowhere(tensor)
    if isinstance(tensor, JoinedTensor):
        return tensor.stretches
    if isinstance(tensor, GatheredTensor) and all(each.file_order() is not None for each in tensor.pieces):
        return tensor.pieces
    return _nowhere(tensor)


def _nowhere(tensor: Tensor) -> Any:
    raise UnsupportedError(
        f"{tensor.file}: {tensor.name!r} lies in no range of bytes of its own, so it cannot be written there"
    )

"""Tensors whose rows are picked from other tensors: embeddings and heads, token by token."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.dtypes import DType
from warmkit.formats.tensors import Derived, Tensor
from warmkit.sources.files import Files

Numbers: TypeAlias = "NDArray[np.float64]"
AT_ONCE = 1 << 20  # elements that a mean of all rows reads at once
Mean: TypeAlias = "Sequence[tuple[float, Tensor, int]]"
"""Weights that sum to 1, each with a tensor and a row of it; nothing for a row of zeros."""


def widen(raw: NDArray[Any], dtype: DType) -> Numbers:
    """Return stored numbers of a float type as float64."""
    if dtype.name == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return (raw.view(np.float16) if dtype.name == "F16" else raw).astype(np.float64)


def narrow(values: Numbers, dtype: DType) -> NDArray[Any]:
    """Round float64 once to a float type, to the nearest, ties to even; returned as it is stored."""
    if dtype.name == "F16":
        return values.astype(np.float16).view(np.int16)
    if dtype.name != "BF16":
        return values.astype(dtype.storage)
    # float32 towards zero with the lost digits in its last bit, so that the second rounding sees on which side they were
    single = values.astype(np.float32)
    single = np.where(np.abs(single) > np.abs(values), np.nextafter(single, np.float32(0)), single)
    bits = single.view(np.uint32) | (single != values)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class PickedTensor(Derived):
    """A tensor whose rows are rows of another, or means of rows of several.

    Attributes:
        own: Where rows come from; also the type, and the shape but for the number of rows.
        rows: [rows], for every row its place in `own`; -1 where `means` says it.
        means: Rows that `own` lacks, each a weighted mean.
    """

    rows: NDArray[np.int64]
    means: Mapping[int, Mean]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.own.shape[1:])

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where runs of rows that follow each other in `own` end."""
        breaks = (np.diff(self.rows) != 1) | (self.rows[1:] < 0) | (self.rows[:-1] < 0)
        return np.append(np.flatnonzero(breaks) + 1, len(self.rows))

    def read(self, files: Files, start: int, view: memoryview) -> None:
        width, size = math.prod(self.shape[1:]), self.dtype.itemsize
        end = start + view.nbytes // size
        at = start
        while at < end:
            row, skipped = divmod(at, width)
            stop = min(end, int(self._ends[np.searchsorted(self._ends, row, "right")]) * width)
            part = view[(at - start) * size : (stop - start) * size]
            if row in self.means:
                self._mean(files, self.means[row], width, skipped, part)
            else:
                self.own.read(files, int(self.rows[row]) * width + skipped, part)
            at = stop

    def _mean(self, files: Files, mean: Mean, width: int, skipped: int, part: memoryview) -> None:
        count = part.nbytes // self.dtype.itemsize
        total = np.zeros(count)
        for weight, tensor, row in mean:
            raw = np.empty(count, tensor.dtype.storage)
            tensor.read(files, row * width + skipped, raw.data.cast("B"))
            total += weight * widen(raw, tensor.dtype)
        np.frombuffer(part, self.dtype.storage)[:] = narrow(total, self.dtype)

    def ahead(self, files: Files, start: int, elements: int) -> None:
        width = math.prod(self.shape[1:])
        row = start // width if width else len(self.rows)
        if row < len(self.rows) and self.rows[row] >= 0:
            self.own.ahead(files, int(self.rows[row]) * width + start % width, elements)


@dataclass(frozen=True, eq=False)
class PaddedTensor(Derived):
    """A tensor with more rows, each the mean of all rows of another.

    Attributes:
        own: The rows that come first; also the type, and the shape but for the number of rows.
        rows: How many there are.
    """

    rows: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _found: list[NDArray[Any]] = field(default_factory=lambda: [])

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, *self.own.shape[1:])

    def read(self, files: Files, start: int, view: memoryview) -> None:
        size, width = self.dtype.itemsize, math.prod(self.shape[1:])
        inside = max(0, min(self.own.elements - start, view.nbytes // size))
        if inside:
            self.own.read(files, start, view[: inside * size])
        rest = np.frombuffer(view[inside * size :], self.dtype.storage)
        if rest.size:
            rest[:] = self._mean(files)[np.arange(start + inside, start + inside + rest.size) % width]

    def _mean(self, files: Files) -> NDArray[Any]:
        """Return the row that is added, [width] as it is stored; it is computed at the first call."""
        with self._lock:
            if not self._found:
                width, count = math.prod(self.shape[1:]), self.own.shape[0]
                total, step = np.zeros(width), max(1, AT_ONCE // width)
                for row in range(0, count, step):
                    part = np.empty((min(step, count - row), width), self.dtype.storage)
                    self.own.read(files, row * width, part.data.cast("B"))
                    total += widen(part, self.dtype).sum(axis=0)
                self._found.append(narrow(total / max(count, 1), self.dtype))
            return self._found[0]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        if start < self.own.elements:
            self.own.ahead(files, start, min(elements, self.own.elements - start))


def picked(own: Tensor, rows: NDArray[np.int64], means: Mapping[int, Mean]) -> Tensor:
    """Return a tensor with these rows, `own` itself where they are its own."""
    if len(rows) == own.shape[0] and not means and np.array_equal(rows, np.arange(len(rows))):
        return own
    return PickedTensor(own, rows, means)

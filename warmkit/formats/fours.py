"""Codes of four bits, two a byte, read as the float32 numbers of a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from warmkit.formats import held
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.tensors import Counted, Tensor
from warmkit.sources.files import Files, WeightFile


@dataclass(frozen=True, eq=False)
class FourBits(Counted):
    """Codes of four bits that follow each other, whatever type of elements their bytes are stored as.

    Attributes:
        packed: The bytes.
        shape: Of the numbers.
        table: [16] float32, what the codes stand for.
        upper_first: Whether the first of two codes lies in the upper half of a byte.
    """

    packed: Tensor
    shape: tuple[int, ...]
    table: NDArray[np.float32]
    upper_first: bool

    @property
    def name(self) -> str:
        return self.packed.name

    @property
    def dtype(self) -> DType:
        return DTYPES["F32"]

    @property
    def file(self) -> WeightFile:
        return self.packed.file

    @cached_property
    def _pairs(self) -> NDArray[np.float64]:
        """[256]: both numbers of a byte, as the eight bytes that they are."""
        upper, lower = np.divmod(np.arange(256), 16)
        return self.table[np.stack([upper, lower] if self.upper_first else [lower, upper], 1)].view(np.float64).reshape(-1)

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out = np.frombuffer(view, np.float32)
        low, high = self._elements(start, start + out.size)
        raw = held.buffer((high - low) * self.packed.dtype.itemsize, "uint8", "packed")
        self.packed.read(files, low, raw.data)
        first = start - low * self._codes
        wanted = raw[first // 2 : (first + out.size + 1) // 2]
        out[:] = np.take(self._pairs, wanted, mode="clip").view(np.float32)[first % 2 : first % 2 + out.size]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        low, high = self._elements(start, min(start + elements, self.elements))
        if low < high:
            self.packed.ahead(files, low, high - low)

    @property
    def _codes(self) -> int:
        return 2 * self.packed.dtype.itemsize

    def _elements(self, start: int, stop: int) -> tuple[int, int]:
        """Return the stored elements that hold codes from `start` to `stop`."""
        return start // self._codes, -(-stop // self._codes)

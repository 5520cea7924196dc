"""Whole numbers of 4 or 8 bits, packed into int32 words as compressed-tensors packs them, read as int8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warmkit.formats import held
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.held import read_whole
from warmkit.formats.tensors import Counted, Tensor
from warmkit.merging import codes
from warmkit.sources.files import Files, WeightFile

WORD = 32  # bits
BITS = (4, 8)  # that are read: those of which none lies in two words


def words_for(numbers: int, bits: int) -> int:
    """Return how many words a row of numbers takes."""
    return -(-numbers * bits // WORD)


@dataclass(frozen=True)
class _Packed(Counted):
    """Whole numbers of a few bits, packed into words, which are read as int8.

    Attributes:
        packed: The words, int32.
        bits: Of a number.
        shape: Of the numbers.
    """

    packed: Tensor
    bits: int
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.packed.name

    @property
    def dtype(self) -> DType:
        return DTYPES["I8"]

    @property
    def file(self) -> WeightFile:
        return self.packed.file


class PackedCodes(_Packed):
    """A matrix whose rows are packed, each into words of its own.

    Attributes:
        packed: [rows, words] int32; the first number lies in the lowest bits, less half of the range.
        bits: Of a number.
        shape: Rows and columns of the matrix.
    """

    @property
    def _row(self) -> tuple[int, int]:
        """Numbers and words of a row; where no word has bits to spare, all rows are one."""
        rows, columns = self.shape
        words = words_for(columns, self.bits)
        return (columns, words) if words * WORD != columns * self.bits else (rows * columns, rows * words)

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, done = np.frombuffer(view, np.int8), 0
        columns, words = self._row
        while done < out.size:
            row, first = divmod(start + done, columns)
            part = out[done : done + columns - first]
            self._unpack(files, row * words, first, part)
            done += part.size

    def _unpack(self, files: Files, row: int, first: int, out: np.ndarray) -> None:
        """Read numbers from number `first` on of the row that begins at a word."""
        low, high = first * self.bits // WORD, words_for(first + out.size, self.bits)
        raw = held.buffer(4 * (high - low), "uint8", "packed")
        self.packed.read(files, row + low, raw.data)
        codes.unpack(raw, first - low * WORD // self.bits, self.bits, out)

    def ahead(self, files: Files, start: int, elements: int) -> None:
        columns, words = self._row
        end = min(start + elements, self.elements)
        if start < end:
            low = start // columns * words + start % columns * self.bits // WORD
            high = (end - 1) // columns * words + words_for((end - 1) % columns + 1, self.bits)
            self.packed.ahead(files, low, high - low)


class PackedZeros(_Packed):
    """Zero points of groups, a small matrix whose columns are packed; it is read whole.

    Attributes:
        packed: [words, groups] int32.
        bits: Of a number.
        shape: Rows and groups.
    """

    def read(self, files: Files, start: int, view: memoryview) -> None:
        rows, groups = self.shape
        words = np.ascontiguousarray(read_whole(files, self.packed, self.packed.dtype).T)  # a row for each group
        found = np.empty((groups, words.shape[1] * WORD // self.bits), np.int8)
        codes.unpack(words.view(np.uint8).reshape(-1), 0, self.bits, found.reshape(-1))
        values = np.ascontiguousarray(found[:, :rows].T).reshape(-1)
        view[:] = values[start : start + view.nbytes].data.cast("B")

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: it is small, and read once."""

"""Packed whole numbers, in any part, against the library's own packing as this test restates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warmkit.formats.dtypes import DTYPES
from warmkit.formats.packed_codes import PackedCodes, PackedZeros, words_for
from warmkit.formats.tensors import StoredTensor
from warmkit.sources.files import Files


def packed_rows(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Pack [rows, columns] bit by bit: number i of a row lies in bits i * bits and on, plus half of the range."""
    rows = []
    for row in numbers.astype(np.int64) + (1 << (bits - 1)):
        whole = sum(int(number) << (place * bits) for place, number in enumerate(row))
        rows.append(np.frombuffer(whole.to_bytes(4 * words_for(len(row), bits), "little"), np.int32))
    return np.stack(rows)


def stored(file: Path, words: np.ndarray) -> StoredTensor:
    file.write_bytes(b"before" + np.ascontiguousarray(words).tobytes())
    return StoredTensor("w", DTYPES["I32"], words.shape, file, 6)


def part(tensor: Any, start: int, stop: int) -> np.ndarray:
    found = np.empty(stop - start, np.int8)
    with Files() as files:
        tensor.read(files, start, found.data.cast("B"))
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 8), (4, 16), (5, 7), (2, 33), (3, 1)])
def test_any_part_is_that_part_of_the_numbers(shape: tuple[int, int], bits: int, tmp_path: Path) -> None:
    half = 1 << (bits - 1)
    numbers = np.random.default_rng(0).integers(-half, half, shape)
    tensor = PackedCodes(stored(tmp_path / "w", packed_rows(numbers, bits)), bits, shape)
    flat, count = numbers.reshape(-1), numbers.size
    for start in range(count):
        for stop in {start, start + 1, (start + count) // 2, count - 1, count}:
            if stop >= start:
                np.testing.assert_array_equal(part(tensor, start, stop), flat[start:stop])


@pytest.mark.parametrize("bits", [4, 8])
def test_zero_points_are_packed_along_their_columns(bits: int, tmp_path: Path) -> None:
    half = 1 << (bits - 1)
    numbers = np.random.default_rng(1).integers(-half, half, (11, 3))
    tensor = PackedZeros(stored(tmp_path / "z", packed_rows(numbers.T, bits).T), bits, numbers.shape)
    np.testing.assert_array_equal(part(tensor, 0, 33).reshape(11, 3), numbers)
    np.testing.assert_array_equal(part(tensor, 4, 20), numbers.reshape(-1)[4:20])


class Announced(Files):
    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int]] = []

    def ahead(self, file: Any, offset: int, size: int) -> None:
        self.ranges.append((offset, offset + size))

    def read(self, file: Any, offset: int, view: memoryview) -> None:
        low, high = self.ranges[-1]
        assert low <= offset, "not announced"
        assert offset + view.nbytes <= high, "not announced"
        super().read(file, offset, view)


@pytest.mark.parametrize("shape", [(4, 16), (5, 7)])
def test_what_is_read_was_announced(shape: tuple[int, int], tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(-8, 8, shape)
    tensor = PackedCodes(stored(tmp_path / "w", packed_rows(numbers, 4)), 4, shape)
    files = Announced()
    with files:
        for start, stop in ((0, 1), (3, 20), (20, numbers.size)):
            tensor.ahead(files, start, stop - start)
            tensor.read(files, start, np.empty(stop - start, np.int8).data.cast("B"))
        tensor.ahead(files, numbers.size, 5)
    assert len(files.ranges) == 3, "past the end there is nothing to announce"

"""Views of tensors that lie in another order, read in any pieces, with bands of any size: against numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from warmkit.formats.dtypes import DTYPES
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.layouts import bands
from warmkit.layouts.bands import Bands
from warmkit.layouts.views import AssembledTensor, Part, StrungTensor, TensorPiece, TransposedTensor, view_of
from warmkit.sources.files import Files

EXPERTS, ROWS, COLUMNS = 3, 37, 29


class Computed(StoredTensor):
    """What lies in a file, but is not known to: it stands for what an adapter or a code computes."""


def stored(folder: Path, name: str, values: np.ndarray) -> StoredTensor:
    (folder / name).write_bytes(bytes(6) + values.tobytes())
    return StoredTensor(name, DTYPES["BF16" if values.itemsize == 2 else "F32"], values.shape, folder / name, 6)


def part(tensor: Tensor, places: tuple[range, ...], first: int, strides: tuple[int, ...]) -> Part:
    sizes = tuple(map(len, places))
    return Part(places, TensorPiece(Path("x"), first * tensor.dtype.itemsize, (0,) * len(places), sizes, strides, tensor))


def turned(folder: Path, values: np.ndarray) -> list[Part]:
    tensor = stored(folder, "t", np.ascontiguousarray(values.swapaxes(1, 2)))
    return [part(tensor, tuple(map(range, values.shape)), 0, (ROWS * COLUMNS, 1, ROWS))]


def out_of_pairs(folder: Path, values: np.ndarray) -> list[Part]:
    """Every other column of a stack that lies transposed."""
    pairs = np.stack([values, values + 1], axis=2).reshape(EXPERTS, 2 * ROWS, COLUMNS)
    tensor = stored(folder, "t", np.ascontiguousarray(pairs.swapaxes(1, 2)))
    return [part(tensor, tuple(map(range, values.shape)), 0, (2 * ROWS * COLUMNS, 2, 2 * ROWS))]


def one_by_one_in_turn(folder: Path, values: np.ndarray) -> list[Part]:
    """Two tensors for every expert, whose rows are the columns in turn."""
    parts = list[Part]()
    for expert, which in np.ndindex(EXPERTS, 2):
        tensor = stored(folder, f"{expert}.{which}", np.ascontiguousarray(values[expert, :, which::2].T))
        parts.append(part(tensor, (range(expert, expert + 1), range(ROWS), range(which, COLUMNS, 2)), 0, (0, 1, ROWS)))
    return parts


def side_by_side(folder: Path, values: np.ndarray) -> list[Part]:
    """Parts of one dimension of a tensor that holds three as many: too far apart to read what lies between."""
    tensor = stored(folder, "t", np.ascontiguousarray(np.concatenate([values + 1, values, values + 2], 1).swapaxes(1, 2)))
    return [part(tensor, tuple(map(range, values.shape)), ROWS, (3 * ROWS * COLUMNS, 1, 3 * ROWS))]


def computed(folder: Path, values: np.ndarray) -> list[Part]:
    tensor = stored(folder, "t", np.ascontiguousarray(values.swapaxes(1, 2)))
    unknown = Computed(tensor.name, tensor.dtype, tensor.shape, tensor.file, tensor.offset)
    return [part(unknown, tuple(map(range, values.shape)), 0, (ROWS * COLUMNS, 1, ROWS))]


FORMS = [turned, out_of_pairs, one_by_one_in_turn, side_by_side, computed]


@pytest.mark.parametrize("kind", ["uint16", "float32"])
@pytest.mark.parametrize("size", [1, 500, 1 << 20])
@pytest.mark.parametrize("form", FORMS)
def test_any_piece_of_a_transposed_view_is_the_tensor_s(
    form: Callable[[Path, np.ndarray], list[Part]], size: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "LEAST", size)
    monkeypatch.setattr(bands, "SIZE", size)
    monkeypatch.setattr(bands, "CHUNK", 100)
    values = np.random.default_rng(0).integers(0, 1 << 15, (EXPERTS, ROWS, COLUMNS)).astype(kind)
    view = view_of("v", values.shape, form(tmp_path, values), Bands())
    assert isinstance(view, TransposedTensor)
    with Files() as files:
        for count in (1, 13, ROWS * COLUMNS, 2000):
            for start in range(0, values.size, 1301 if count == 1 else count):
                found = np.empty(min(count, values.size - start), kind)
                view.ahead(files, start, found.size)
                view.read(files, start, found.data.cast("B"))
                assert (found == values.ravel()[start : start + count]).all()


def test_a_matrix_larger_than_a_band_is_read_some_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LEAST", 500)
    monkeypatch.setattr(bands, "SIZE", 500)
    values = np.zeros((EXPERTS, ROWS, COLUMNS), np.uint16)
    held = Bands()
    view, read = view_of("v", values.shape, turned(tmp_path, values), held), list[int]()
    monkeypatch.setattr(StoredTensor, "read", lambda self, files, start, part: read.append(part.nbytes))
    with Files() as files:
        view.read(files, 0, memoryview(bytearray(2 * COLUMNS)))
    rows = -(-ROWS // -(-ROWS * COLUMNS * 2 // 500))
    assert read == [2 * rows] * COLUMNS


def test_rows_that_are_no_columns_elsewhere_are_put_together(tmp_path: Path) -> None:
    """Parts of rows side by side, not turned: neither stretches nor columns."""
    values = np.arange(EXPERTS * 4 * 6, dtype=np.uint16).reshape(EXPERTS, 4, 6)
    halves = [stored(tmp_path, str(half), np.ascontiguousarray(values[:, :, 3 * half : 3 * half + 3])) for half in (0, 1)]
    places = [(range(EXPERTS), range(4), range(3 * half, 3 * half + 3)) for half in (0, 1)]
    view = view_of("v", values.shape, [part(each, place, 0, (12, 3, 1)) for each, place in zip(halves, places)], Bands())
    assert type(view) is AssembledTensor
    found = np.empty(50, np.uint16)
    with Files() as files:
        view.read(files, 9, found.data.cast("B"))
    assert (found == values.ravel()[9:59]).all()


def test_what_follows_each_other_needs_no_bands(tmp_path: Path) -> None:
    values = np.arange(EXPERTS * 6, dtype=np.uint16).reshape(EXPERTS, 6)
    tensor = stored(tmp_path, "t", values)
    (row,) = [view_of("v", (6,), [part(tensor, (range(6),), 6, (1,))], Bands())]
    assert isinstance(row, StrungTensor)
    assert view_of("t", values.shape, [part(tensor, (range(EXPERTS), range(6)), 0, (6, 1))], Bands()) is tensor

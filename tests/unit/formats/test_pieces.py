"""Elements of tensors that lie in pieces, against numpy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warmkit.formats.dtypes import DTYPES
from warmkit.formats.pieces import GatheredTensor, JoinedTensor, Piece, Stretch, boxes, contiguous, row_major
from warmkit.sources.files import Files

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[tuple[int, ...], int, int]:
    """A shape, and a range of its elements."""
    shape = draw(shapes)
    size = int(np.prod(shape))
    start = draw(st.integers(0, size))
    return shape, start, draw(st.integers(0, size - start))


@given(ranges())
def test_boxes_are_the_range_in_order(case: tuple[tuple[int, ...], int, int]) -> None:
    shape, start, count = case
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    parts = [numbers[tuple(map(slice, low, high))].ravel() for low, high in boxes(shape, start, count)]
    assert np.concatenate([*parts, []]).tolist() == list(range(start, start + count))


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """A strided view of stored numbers: steps, permutations, single elements repeated."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    base = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    view = base[tuple(slice(draw(st.integers(0, size - 1)), None, draw(st.integers(1, 3))) for size in shape)]
    view = view.transpose(draw(st.permutations(range(view.ndim))))
    return np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape)) if draw(st.booleans()) else view


@given(views(), st.data())
def test_any_range_of_any_view_is_read_from_its_storage(tmp_path_factory, view: np.ndarray, data: st.DataObject) -> None:
    storage = view
    while storage.base is not None:
        storage = storage.base
    file: Path = tmp_path_factory.mktemp("views") / "storage"
    file.write_bytes(b"head" + storage.tobytes())
    offset = 4 + view.__array_interface__["data"][0] - storage.__array_interface__["data"][0]
    strides = tuple(stride // 4 for stride in view.strides)
    tensor = GatheredTensor("t", DTYPES["F32"], view.shape, (Piece(file, offset, (0,) * view.ndim, view.shape, strides),))
    start = data.draw(st.integers(0, view.size))
    count = data.draw(st.integers(0, view.size - start))
    buffer = bytearray(4 * count)
    with Files() as files:
        tensor.ahead(files, start, count)
        tensor.read(files, start, memoryview(buffer))
    assert np.frombuffer(buffer, np.float32).tolist() == view.ravel()[start : start + count].tolist()


@given(st.data())
def test_any_grid_of_chunks_is_read_as_one_tensor(tmp_path_factory, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    whole = np.arange(int(np.prod(shape)), dtype=np.int16).reshape(shape)
    cuts = [sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=3))}) for size in shape]
    file: Path = tmp_path_factory.mktemp("chunks") / "chunks"
    pieces, content = [], b""
    for corner in np.ndindex(*(len(each) - 1 for each in cuts)):
        low = tuple(each[place] for each, place in zip(cuts, corner))
        high = tuple(each[place + 1] for each, place in zip(cuts, corner))
        chunk = whole[tuple(map(slice, low, high))]
        pieces.append(Piece(file, len(content), low, chunk.shape, row_major(chunk.shape)))
        content += chunk.tobytes()
    file.write_bytes(content)
    start = data.draw(st.integers(0, whole.size))
    count = data.draw(st.integers(0, whole.size - start))
    buffer = bytearray(2 * count)
    with Files() as files:
        GatheredTensor("t", DTYPES["F16"], shape, tuple(pieces)).read(files, start, memoryview(buffer))
    assert np.frombuffer(buffer, np.int16).tolist() == list(range(start, start + count))


@given(st.data())
def test_any_range_of_stretches_is_read_as_one_tensor(tmp_path_factory, data: st.DataObject) -> None:
    whole = np.arange(data.draw(st.integers(1, 60)), dtype=np.int16)
    cuts = sorted({0, len(whole), *data.draw(st.lists(st.integers(0, len(whole)), max_size=5))})
    folder: Path = tmp_path_factory.mktemp("stretches")
    stretches = []
    for low, high in itertools.pairwise(cuts):
        file, gap = folder / str(data.draw(st.integers(0, 2))), bytes(data.draw(st.integers(0, 3)))
        content = file.read_bytes() if file.exists() else b""
        file.write_bytes(content + gap + whole[low:high].tobytes())
        stretches.append(Stretch(file, len(content + gap), low, high - low))
    tensor = JoinedTensor("t", DTYPES["F16"], (len(whole),), tuple(stretches))
    start = data.draw(st.integers(0, len(whole)))
    count = data.draw(st.integers(0, len(whole) - start))
    buffer = bytearray(2 * count)
    with Files() as files:
        tensor.ahead(files, start, count + 5)
        tensor.read(files, start, memoryview(buffer))
    assert np.frombuffer(buffer, np.int16).tolist() == list(range(start, start + count))


def test_contiguous_means_element_after_element() -> None:
    assert contiguous((2, 3), (3, 1))
    assert contiguous((1, 3), (77, 1))
    assert contiguous((0, 3), (1, 1))
    assert contiguous((), ())
    assert not contiguous((3, 2), (1, 3))
    assert not contiguous((2, 3), (6, 2))

"""Tensors of which every rank saved its part: where the ranks are on their mesh, and the whole, read from the parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from warmkit.errors import FormatError
from warmkit.formats.dtensors import PartOfTensor, box
from warmkit.formats.pieces import GatheredTensor, Index, Piece, contiguous, cover_once
from warmkit.formats.state_dicts import element_type, entry
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.formats.torch_zip import TorchTensor
from warmkit.sources.files import Files

Saved: TypeAlias = "TorchTensor | PartOfTensor"
Parts: TypeAlias = "Sequence[tuple[Path, Saved]]"
COMPARED = 4096  # bytes at both ends of a copy


@dataclass(frozen=True)
class Mesh:
    """Where the ranks are.

    Attributes:
        sizes: Of the mesh.
        places: Of every rank's file on it.
    """

    sizes: Index
    places: Mapping[Path, Index]


def mesh_of(files: Sequence[Path], trees: Sequence[Mapping[str, Saved]]) -> Mesh:
    """Return the mesh that the ranks' files, in their order, were saved on.

    Raises:
        FormatError: If files disagree, or two ranks are in one place.
    """
    home = files[0].parent
    places = {file: _place(file, rank, tree) for rank, (file, tree) in enumerate(zip(files, trees))}
    if len({len(each) for each in places.values()}) > 1:
        raise FormatError(f"{home}: its ranks are on meshes of different dimensions; files of two saves")
    taken: dict[Index, Path] = {}
    for file, place in places.items():
        if (other := taken.setdefault(place, file)) != file:
            raise FormatError(f"{file}: is at place {list(place)} of the mesh, as {other.name} is; files of two saves")
    sizes = tuple(1 + max(each[axis] for each in places.values()) for axis in range(len(places[files[0]])))
    if math.prod(sizes) != len(files):
        raise FormatError(f"{home}: {len(files)} ranks do not fill a mesh of {list(sizes)}; files of two saves")
    return Mesh(sizes, places)


def _place(file: Path, rank: int, tree: Mapping[str, Saved]) -> Index:
    """Return where on the mesh a rank is; where no tensor says so, there is one dimension, and the rank counts along it."""
    parts = [each for each in tree.values() if isinstance(each, PartOfTensor)]
    if other := {each.rank for each in parts} - {None, rank}:
        raise FormatError(f"{file}: is of rank {rank} by its name, of rank {other.pop()} by its content; it was renamed")
    dimensions, said = {len(each.placements) for each in parts}, {each.coordinate for each in parts}
    if said <= {None} and dimensions <= {1}:
        return (rank,)
    place = next(iter(said))
    if len(said) > 1 or place is None or dimensions != {len(place)}:
        raise FormatError(f"{file}: its tensors lie on different meshes, expected one mesh for all of them")
    return place


def gathered(name: str, parts: Parts, mesh: Mesh) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return a tensor that is put together from the ranks' parts while it is read, and the copies that further ranks hold.

    Raises:
        CheckpointError: If they are not parts of one tensor, or copies of a part differ.
    """
    (file, first), home = parts[0], parts[0][0].parent
    for other, part in parts[1:]:
        if (problem := _unlike(part, first)) is not None:
            raise FormatError(f"{other}: tensor {name!r} {problem} in {file.name}; files of two saves")
    if isinstance(first, TorchTensor):
        _check_copies(name, [_copy(name, other, part) for other, part in parts if isinstance(part, TorchTensor)])
        return entry(name, first), tuple(entry(name, part) for _, part in parts[1:] if isinstance(part, TorchTensor))
    found: dict[tuple[Index, Index], list[Piece]] = {}
    for other, part in parts:
        assert isinstance(part, PartOfTensor)  # as the first
        corner, sizes = box(str(other), name, part, mesh.places[other], mesh.sizes)
        piece = Piece(other, part.local.offset, corner, sizes, part.local.strides)
        found.setdefault((corner, sizes), []).append(piece)
    dtype = element_type(first.local.type_name, str(file), name)
    if not cover_once(first.shape, list(found)):
        raise FormatError(f"{home}: the parts of tensor {name!r} do not cover it once; files of two saves")
    for copies in found.values():
        _check_copies(name, [_Copy(each, dtype.itemsize) for each in copies])
    held = [copies for copies in found.values() if math.prod(copies[0].shape)]
    if len(set(map(len, held))) > 1:
        raise FormatError(f"{home}: more ranks hold one part of tensor {name!r} than another; files of two saves")
    whole = list(zip(*held, strict=True))
    if not whole:
        return StoredTensor(name, dtype, first.shape, file, 0), ()
    pieces, *others = whole
    replicas = tuple(GatheredTensor(name, dtype, first.shape, each) for each in others)
    if len(pieces) == 1 and contiguous(pieces[0].shape, pieces[0].strides):
        return StoredTensor(name, dtype, first.shape, pieces[0].file, pieces[0].offset), replicas
    return GatheredTensor(name, dtype, first.shape, pieces), replicas


def _unlike(part: Saved, first: Saved) -> str | None:
    """Say in what a rank's tensor differs from what the first rank says of it."""
    if type(part) is not type(first):
        return "is whole there and in parts" if isinstance(part, TorchTensor) else "is a part there, and whole"
    if part.shape != first.shape:
        return f"is of {list(part.shape)}, it is {list(first.shape)}"
    one, two = (each.local if isinstance(each, PartOfTensor) else each for each in (part, first))
    return None if one.type_name == two.type_name else f"is {one.type_name}, it is {two.type_name}"


# ---- copies --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Copy:
    piece: Piece
    itemsize: int


def _copy(name: str, file: Path, tensor: TorchTensor) -> _Copy:
    itemsize = element_type(tensor.type_name, str(file), name).itemsize
    return _Copy(Piece(file, tensor.offset, (0,) * len(tensor.shape), tensor.shape, tensor.strides), itemsize)


def _check_copies(name: str, copies: Sequence[_Copy]) -> None:
    """Refuse copies that differ in their first or last bytes: ranks that hold the same part hold the same numbers."""
    if len(copies) < 2:
        return
    with Files() as files:
        first = _ends(copies[0], files)
        for each in copies[1:]:
            if _ends(each, files) != first:
                one, two = copies[0].piece.file, each.piece.file
                raise FormatError(
                    f"{two}: tensor {name!r} is not the copy of that in {one.name} that it should be; files of two saves"
                )


def _ends(copy: _Copy, files: Files) -> bytes | None:
    piece = copy.piece
    size = math.prod(piece.shape) * copy.itemsize
    if not contiguous(piece.shape, piece.strides) or not size:
        return None
    count = min(size, COMPARED)
    buffer = bytearray(2 * count)
    files.read(piece.file, piece.offset, memoryview(buffer)[:count])
    files.read(piece.file, piece.offset + size - count, memoryview(buffer)[count:])
    return bytes(buffer)

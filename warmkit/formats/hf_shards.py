"""Shards of torch's `HuggingFaceStorageWriter`: safetensors, a file or more a process, each with a part of every tensor.

    DIR/shard-00001-model-00001-of-00002.safetensors    of the first process, what belongs into the first file of the model

The metadata of a file, `DCP_SHARDING_INFO`, say where in its tensor each part starts. Nothing says how large the tensor is, nor
how many processes there were: a tensor ends where its last part does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warmkit.common.json_files import parse_json, read_object
from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.pieces import GatheredTensor, Piece, cover_once, row_major
from warmkit.formats.safetensors_file import SHARDING, Header, read_header
from warmkit.formats.state_dicts import weights_among
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.sources.files import WeightFile
from warmkit.sources.weight_names import INDEX, SINGLE

CONFIG, OFFSETS = "config.json", "saved_offsets"
_NAME = re.compile(r"shard-(?P<shard>\d+)-model-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors")


@dataclass(frozen=True)
class _Part:
    """A part of a tensor."""

    entry: StoredTensor
    file: Path
    origin: tuple[int, ...]


def files_at(path: Path) -> list[str]:
    """Return the names of the shards at a path; none where they lie beside what was put together from them."""
    if not path.is_dir():
        return [path.name] if _NAME.fullmatch(path.name) else []
    if (path / INDEX).is_file() or (path / SINGLE).is_file():
        return []
    return sorted(file.name for file in path.iterdir() if _NAME.fullmatch(file.name))


def open_model(source: str, path: Path, state_dict: str | None = None) -> Checkpoint:
    """Open a directory of shards.

    Args:
        source: What the user wrote.
        path: Where it lies.
        state_dict: The first name of the tensors to read, where a model is there twice.

    Raises:
        CheckpointError: If files are malformed or missing, or parts overlap, disagree, or leave gaps.
    """
    if not path.is_dir():
        raise UnsupportedError(
            f"{path}: a shard of torch's HuggingFaceStorageWriter, with a part of every tensor; give its folder, {path.parent}"
        )
    names = files_at(path)
    shards = _check_names(names, path)
    parts: dict[str, list[_Part]] = {}
    for file in (path / name for name in names):
        header = read_header(file)
        origins = _origins(header, file)
        for entry in header.entries:
            parts.setdefault(entry.name, []).append(_Part(entry, file, origins[entry.name]))
    if not parts:
        raise FormatError(f"{source}: holds no tensors")
    flat = {(name,): _whole(name, each, path) for name, each in parts.items()}
    _check_vocabulary(flat.values(), path, shards)
    found, notes = weights_among(flat, list(parts), source, state_dict)
    said = (
        f"{source}: put together from {shards} shard{'s' if shards > 1 else ''}; the files do not say how many there were, so "
        "that tensors are too small if the last are missing"
    )
    files = tuple(path / name for name in names)
    return Checkpoint(source, path, {name: _renamed(each, name) for name, each in found.items()}, files, notes=(said, *notes))


def _check_vocabulary(tensors: Iterable[Tensor], path: Path, shards: int) -> None:
    """Refuse tensors that are too small for the vocabulary of a config beside them: the last shards are missing."""
    if not (path / CONFIG).is_file():
        return
    config = read_object(path / CONFIG)
    told = [part.get("vocab_size") for part in (config, config.get("text_config")) if isinstance(part, Mapping)]
    wanted = max((size for size in told if type(size) is int), default=0)
    rows = max(each.shape[0] if each.shape else 0 for each in tensors)
    if rows < wanted:
        raise FormatError(
            f"{path}: {CONFIG} says vocab_size {wanted}, and no tensor has more than {rows} rows (shards found: {shards}); the "
            "last shards are missing; copy those of all processes into the folder"
        )


def without_origins(checkpoint: Checkpoint, files: Sequence[WeightFile]) -> Checkpoint:
    """Return a model that one process saved whole, under an index, without what its metadata say of parts.

    Raises:
        FormatError: If a file says that it has parts.
    """
    if SHARDING not in checkpoint.metadata:
        return checkpoint
    for file in files:
        header = read_header(file)
        if SHARDING in header.metadata and any(map(any, _origins(header, file).values())):
            raise FormatError(f"{file}: holds parts of tensors ({SHARDING}), where an index says that it holds whole ones")
    metadata = {key: value for key, value in checkpoint.metadata.items() if key != SHARDING}
    return replace(checkpoint, metadata=metadata)


def _check_names(names: Sequence[str], path: Path) -> int:
    """Return how many shards there are by their names, once none is missing between the first and the last."""
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    counts = {int(match["count"]) for match in found}
    if len(counts) > 1:
        raise FormatError(f"{path}: shards of two saves: names that end in of-{min(counts):05d} and in of-{max(counts):05d}")
    for what, key, last in (("shard", "shard", 0), ("file", "number", max(counts))):
        known = {int(match[key]) for match in found}
        missing = set(range(1, max(known | {last}) + 1)) - known
        if missing:
            raise FormatError(
                f"{path}: {what} {min(missing)} of {max(known | {last})} is missing, by the names of the others "
                f"({names[0]}, ...); copy it too, or use another save"
            )
    return max(int(match["shard"]) for match in found)


def _origins(header: Header, file: WeightFile) -> dict[str, tuple[int, ...]]:
    """Return where in its tensor each part of a file starts."""
    if SHARDING not in header.metadata:
        raise FormatError(f"{file}: a shard by its name, without {SHARDING}, which says what parts it holds")
    told = parse_json(header.metadata[SHARDING].encode("utf-8", "surrogatepass"), f"{file}: {SHARDING}")
    rows: dict[str, Any] = told if isinstance(told, dict) else {}
    if rows.keys() != {entry.name for entry in header.entries}:
        raise FormatError(f"{file}: {SHARDING} names other tensors than the file holds")
    return {entry.name: _origin(rows[entry.name], entry, file) for entry in header.entries}


def _origin(told: Any, entry: StoredTensor, file: WeightFile) -> tuple[int, ...]:
    offsets: Any = told.get(OFFSETS) if isinstance(told, Mapping) else None
    natural = isinstance(offsets, list) and all(type(each) is int and 0 <= each < 1 << 62 for each in offsets)
    if not natural or len(offsets) != len(entry.shape):
        wanted = f"expected {len(entry.shape)} offsets, found {str(offsets)[:60]}"
        raise FormatError(f"{file}: {SHARDING} of {entry.name!r}: {wanted}")
    return tuple(offsets)


def _whole(name: str, parts: Sequence[_Part], path: Path) -> Tensor:
    """Return a tensor made of its parts."""
    first = parts[0]
    for part in parts:
        if part.entry.dtype != first.entry.dtype or len(part.origin) != len(first.origin):
            raise FormatError(
                f"{path}: parts of two tensors are called {name!r}: {_said(first)} and {_said(part)}; shards of two saves?"
            )
    ends = [[start + size for start, size in zip(part.origin, part.entry.shape)] for part in parts]
    shape = tuple(map(max, zip(*ends)))
    if not cover_once(shape, [(part.origin, part.entry.shape) for part in parts]):
        raise FormatError(
            f"{path}: the {len(parts)} parts of tensor {name!r} do not cover {list(shape)} once: a shard is missing, or they "
            f"are of two saves ({', '.join(map(_said, parts[:3]))})"
        )
    pieces = tuple(
        Piece(part.file, part.entry.offset, part.origin, part.entry.shape, row_major(part.entry.shape))
        for part in parts
        if math.prod(part.entry.shape)
    )
    if len(pieces) > 1:
        return GatheredTensor(name, first.entry.dtype, shape, pieces)
    place = pieces[0] if pieces else first.entry
    return StoredTensor(name, first.entry.dtype, shape, place.file, place.offset)


def _said(part: _Part) -> str:
    return f"{part.entry.dtype.name} {list(part.entry.shape)} at {list(part.origin)} in {part.file.name}"


def _renamed(entry: Tensor, name: str) -> Tensor:
    assert isinstance(entry, StoredTensor | GatheredTensor)  # what is made here
    return replace(entry, name=name)

"""Directories of `torch.distributed.checkpoint`, what FSDP and tensor parallel runs save: shards as ranges of bytes.

    DIR/.metadata           a pickle: every tensor, its chunks, and where each chunk lies
    DIR/__0_0.distcp, ...   one a writer: torch files (zips), one after the other, each with one chunk

Written last, `.metadata` says that a save was finished. The chunks of a tensor may be any boxes that cover it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.pickle_reader import Inert, Names, unpickle
from warmkit.formats.pieces import GatheredTensor, Piece, contiguous, cover_once
from warmkit.formats.state_dicts import element_type, weights_among
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.formats.torch_zip import DTYPE_NAMES, MAX_DIMENSIONS, TorchTensor, read_torch_zip
from warmkit.sources.runs import last_saved

METADATA = ".metadata"
SHARD = ".distcp"
FOLDERS = ("pytorch_model_fsdp_*", "model", "policy/weights")
"""Of the model, beside others of optimizer and scheduler: accelerate's, slime's, NeMo RL's."""

_HOME = "torch.distributed.checkpoint"
_OLD_HOME = "torch.distributed._shard.sharded_tensor.metadata"  # of the properties, up to torch 2.2
_CLASSES = (
    (_OLD_HOME, "TensorProperties"),
    (_OLD_HOME, "MEM_FORMAT_ENCODING"),
    *((f"{_HOME}.metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    *((f"{_HOME}.metadata", name) for name in ("TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata")),
    (f"{_HOME}.metadata", "BytesStorageMetadata"),
    (f"{_HOME}.filesystem", "_StorageInfo"),
    *((f"{_HOME}.planner", name) for name in ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData")),  # Megatron's
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
)
_NAMES: Names = {**DTYPE_NAMES, **dict.fromkeys(_CLASSES, Inert), ("torch", "Size"): tuple}


@dataclass(frozen=True)
class _Place:
    """Where a chunk lies: a part of a file."""

    file: Path
    offset: int
    length: int


@dataclass(frozen=True)
class _Sharded:
    """A tensor as `.metadata` describes it."""

    type_name: str
    shape: tuple[int, ...]
    chunks: tuple[tuple[tuple[int, ...], tuple[int, ...], _Place], ...]  # first corner, sizes, place


@dataclass(frozen=True)
class Distributed:
    """The weights of a distributed checkpoint.

    Attributes:
        entries: Every tensor of the model.
        files: `.metadata`, and the shards that hold weights.
        notes: What was left aside.
    """

    entries: dict[str, Tensor]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def files_at(path: Path) -> list[str]:
    """Return the name of the metadata of a distributed checkpoint at a path."""
    home = _home(path) if path.is_dir() else None
    return [] if home is None else [str(home.relative_to(path) / ".metadata")]


def open_model(source: str, path: Path, state_dict: str | None = None) -> Checkpoint:
    """Open a directory of torch.distributed.checkpoint; torch is not needed.

    Args:
        source: What the user wrote.
        path: Where it lies.
        state_dict: The one to read, of several in it.

    Raises:
        CheckpointError: If it is malformed, half-written, or holds more than tensors and plain values.
    """
    found = read_distributed(_home(path) or path, state_dict)
    return Checkpoint(source, path, found.entries, found.files, notes=found.notes)


def _home(directory: Path) -> Path | None:
    """Return where in a directory a checkpoint of a model lies: itself, a folder of a trainer, a run's newest step."""
    for place in (directory, last_saved(directory)):
        if place is not None and is_distributed(place):
            return place
        folders = [folder for pattern in FOLDERS for folder in sorted(place.glob(pattern))] if place is not None else []
        if found := next(filter(is_distributed, folders), None):
            return found
    return None


def is_distributed(directory: Path) -> bool:
    """Say whether a directory holds a distributed checkpoint, a finished one or not."""
    return (directory / METADATA).is_file() or any(directory.glob(f"*{SHARD}"))


def read_distributed(directory: Path, state_dict: str | None = None) -> Distributed:
    """Read which tensors a distributed checkpoint holds and where; no weights are read.

    Raises:
        FormatError: If its save was not finished, or files are missing, truncated or of another save.
        UnsupportedError: If its shards are compressed.
    """
    full, top = _metadata(directory)
    chosen, notes = weights_among(full, top, str(directory), state_dict)
    entries = _entries(chosen, directory)
    files = dict.fromkeys(place.file for tensor in chosen.values() for _, _, place in tensor.chunks)
    return Distributed(entries, (directory / METADATA, *sorted(files)), tuple(notes))


def every_tensor(directory: Path) -> dict[tuple[str, ...], Tensor]:
    """Return every tensor of a distributed checkpoint, the optimizer's too, by the keys that lead to it.

    Raises:
        CheckpointError: As `read_distributed`.
    """
    full, _ = _metadata(directory)
    entries = _entries({".".join(path): tensor for path, tensor in full.items()}, directory)
    return dict(zip(full, entries.values(), strict=True))


def archives(directory: Path) -> list[tuple[Path, int, int]]:
    """Return the torch file of every chunk: the file that it is a part of, its first byte there, and its length."""
    full, _ = _metadata(directory)
    return [(place.file, place.offset, place.length) for tensor in full.values() for _, _, place in tensor.chunks]


def _metadata(directory: Path) -> tuple[dict[tuple[str, ...], _Sharded], list[str]]:
    """Return every tensor that the metadata name, by the keys that lead to it, and all keys at the top."""
    metadata = directory / METADATA
    if not metadata.is_file():
        raise FormatError(
            f"{directory}: a half-written distributed checkpoint: {METADATA}, which is written last, is missing; use one whose "
            "save was finished"
        )
    tree = unpickle(metadata.read_bytes(), str(metadata), _NAMES)
    try:
        return _described(directory, tree.state)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FormatError(f"{metadata}: expected the metadata of a distributed checkpoint ({type(error).__name__})") from None


def _entries(tensors: Mapping[str, _Sharded], directory: Path) -> dict[str, Tensor]:
    _check_files(directory, [place for tensor in tensors.values() for _, _, place in tensor.chunks])
    return {name: _entry(name, tensor, directory) for name, tensor in tensors.items()}


def _described(directory: Path, state: Mapping[str, Any]) -> tuple[dict[tuple[str, ...], _Sharded], list[str]]:
    """Return every tensor by the keys that lead to it, and all keys at the top."""
    tensors, paths = _tensors(directory, state), dict(state.get("planner_data") or {})

    def path(name: str) -> tuple[str, ...]:
        found = paths.get(name) or (name,)
        if not isinstance(found, tuple) or not all(isinstance(part, str | int) for part in found):
            raise TypeError("a path")
        return tuple(map(str, found))

    names = [name for name in state["state_dict_metadata"] if isinstance(name, str)]
    return {path(name): tensor for name, tensor in tensors.items()}, list(dict.fromkeys(path(name)[0] for name in names))


def _tensors(directory: Path, state: Mapping[str, Any]) -> dict[str, _Sharded]:
    places: dict[tuple[str, tuple[int, ...]], _Place] = {}
    for index, info in state["storage_data"].items():
        if index.state.get("offset") is None:
            continue  # an object, no tensor
        where = info.state
        if where.get("transform_descriptors"):
            raise UnsupportedError(f"{directory}: its shards are compressed; save without")
        name = where["relative_path"]
        if not isinstance(name, str) or not _is_file_name(name):
            raise FormatError(f"{directory / METADATA}: points outside its directory: {str(name)[:80]!r}")
        offset, length = _naturals((where["offset"], where["length"]))
        places[index.state["fqn"], _naturals(index.state["offset"])] = _Place(directory / name, offset, length)
    tensors: dict[str, _Sharded] = {}
    for name, described in state["state_dict_metadata"].items():
        if "chunks" not in (described.state or {}):
            continue
        corners = [(_naturals(chunk.state["offsets"]), _naturals(chunk.state["sizes"])) for chunk in described.state["chunks"]]
        chunks = tuple((origin, sizes, places[name, origin]) for origin, sizes in corners)
        tensors[name] = _Sharded(_dtype_name(described.state["properties"].state), _naturals(described.state["size"]), chunks)
    return tensors


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name)


def _naturals(values: Any) -> tuple[int, ...]:
    """Return sizes or offsets.

    Raises:
        ValueError: If they are anything else.
    """
    if not isinstance(values, tuple) or len(values) > MAX_DIMENSIONS:
        raise ValueError("sizes")
    if not all(type(each) is int and 0 <= each < 1 << 63 for each in values):
        raise ValueError("sizes")
    return values


def _dtype_name(state: Any) -> str:
    name = state["dtype"] if isinstance(state, dict) else state[0]
    if not isinstance(name, str):
        raise TypeError("a type")
    return name


def _check_files(directory: Path, places: list[_Place]) -> None:
    ends: dict[Path, int] = {}
    for place in places:
        ends[place.file] = max(ends.get(place.file, 0), place.offset + place.length)
    problems: list[str] = []
    for file, end in sorted(ends.items()):
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            problems.append(f"{file.name} is missing")
        elif size < end:
            problems.append(f"{file.name} has {size:,} bytes of {end:,}")
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise FormatError(
            f"{directory}: a half-written distributed checkpoint: {', '.join(problems[:4])}{more}; copy it again, or use one "
            "whose save was finished"
        )


def _entry(name: str, tensor: _Sharded, directory: Path) -> Tensor:
    dtype = element_type(tensor.type_name, str(directory), name)
    if not cover_once(tensor.shape, [(origin, sizes) for origin, sizes, _ in tensor.chunks]):
        raise FormatError(f"{directory / METADATA}: the {len(tensor.chunks)} chunks of tensor {name!r} do not cover it once")
    pieces = tuple(_piece(name, tensor, *chunk) for chunk in tensor.chunks if math.prod(chunk[1]))
    if not pieces:
        return StoredTensor(name, dtype, tensor.shape, directory / METADATA, 0)
    if len(pieces) == 1 and contiguous(pieces[0].shape, pieces[0].strides):
        return StoredTensor(name, dtype, tensor.shape, pieces[0].file, pieces[0].offset)
    return GatheredTensor(name, dtype, tensor.shape, pieces)


def _piece(name: str, tensor: _Sharded, origin: tuple[int, ...], sizes: tuple[int, ...], place: _Place) -> Piece:
    found = read_torch_zip(place.file, place.offset, place.length)
    if not isinstance(found, TorchTensor) or (found.type_name, found.shape) != (tensor.type_name, sizes):
        what = f"{found.type_name} {list(found.shape)}" if isinstance(found, TorchTensor) else type(found).__name__
        raise FormatError(
            f"{place.file}: holds {what} where {METADATA} has a chunk of {name!r}, {tensor.type_name} {list(sizes)}: files of "
            "two saves, or a half-written one"
        )
    return Piece(place.file, found.offset, origin, sizes, found.strides)

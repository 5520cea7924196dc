"""Models in safetensors: one file, or an index and its shards, on a disk or streamed; with the files beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from warmkit.errors import CheckpointError, FormatError
from warmkit.formats.checkpoint import Checkpoint, check_index
from warmkit.formats.dtypes import DTYPES, E4M3, E8M0
from warmkit.formats.hf_shards import without_origins
from warmkit.formats.quantised import dequantised
from warmkit.formats.refused import refuse
from warmkit.formats.safetensors_file import read_header
from warmkit.formats.state_dicts import weights_among
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.sources.beside import MODULES, Beside, files_of, full_name, is_head, modules_of, weights_beside
from warmkit.sources.files import WeightFile
from warmkit.sources.foreign_forms import refuse_form
from warmkit.sources.lone_pieces import refuse_name, refuse_piece
from warmkit.sources.model_index import inside, read_index
from warmkit.sources.remote import Remote
from warmkit.sources.weight_names import INDEX, SINGLE

TYPES = {**DTYPES, E4M3.name: E4M3, E8M0.name: E8M0}  # codes are known here; `refused` says what is left of them


def files_at(path: Path) -> list[str]:
    """Return the names of what may be a model in safetensors at a path."""
    if not path.is_dir():
        return [path.name] if path.suffix == ".safetensors" else []
    return [INDEX] if (path / INDEX).is_file() else [file.name for file in lone_files(path)]


def open_model(source: str, path: Path, state_dict: str | None = None) -> Checkpoint:
    """Open a model directory, or one file, without what lies beside it.

    Args:
        source: What the user wrote.
        path: Where it lies.
        state_dict: The first name of the tensors to read, where a model is there twice.

    Raises:
        CheckpointError: If there is none, it is malformed, or of a kind that is refused.
    """
    if not path.is_dir():
        if path.suffix != ".safetensors":
            refuse_form([path.name], path)
            raise CheckpointError(f"{path}: expected a directory or a .safetensors file")
        refuse_piece(path)
        return _named(_assemble(source, path, [path]), state_dict)
    files, mapping = _weight_files(path)
    checkpoint = _assemble(source, path, files)
    if mapping is not None:
        check_index(path / INDEX, mapping, checkpoint)
        checkpoint = without_origins(checkpoint, files)
    return _named(checkpoint, state_dict)


def open_streamed(remote: Remote, state_dict: str | None = None) -> Checkpoint:
    """Open a model whose weights are read by byte ranges, with what lies beside it.

    Raises:
        CheckpointError: If it is malformed, or of a kind that is refused.
    """
    if remote.mapping is None:
        for file in remote.files:
            refuse_name(file.name, file)
    checkpoint = _assemble(remote.source, remote.folder, remote.files)
    if remote.mapping is not None:
        check_index(f"{remote.source}: {INDEX}", remote.mapping, checkpoint)
        checkpoint = without_origins(checkpoint, remote.files)
    named = dequantised(_named(checkpoint, state_dict))
    refuse(named)
    return _with_others(named, remote.beside, remote.others)


def with_files_beside(checkpoint: Checkpoint) -> Checkpoint:
    """Return a model with the weights that its library keeps in files of their own: heads, modules."""
    home = checkpoint.directory
    if home is None or not any(isinstance(file, Path) and file.is_relative_to(home) for file in checkpoint.files):
        return checkpoint  # weights that lie elsewhere have nothing beside them there
    others = _beside(checkpoint.source, home, [file for file in checkpoint.files if isinstance(file, Path)])
    return _with_others(checkpoint, others, [home / name for name in others.files])


def _assemble(source: str, path: Path, files: Sequence[WeightFile]) -> Checkpoint:
    entries: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        header = read_header(file, TYPES)
        metadata |= header.metadata
        for entry in header.entries:
            if entry.name in entries:
                raise FormatError(f"{file}: tensor {entry.name!r} is also in {entries[entry.name].file.name}")
            entries[entry.name] = entry
    if not entries:
        raise FormatError(f"{source}: holds no tensors")
    return Checkpoint(source, path, entries, tuple(files), metadata)


def _named(checkpoint: Checkpoint, state_dict: str | None = None) -> Checkpoint:
    """Return it under the model's own names: wrappers (`_orig_mod`, `module`) may have been saved too."""
    flat = {(name,): entry for name, entry in checkpoint.entries.items()}
    found, notes = weights_among(flat, list(checkpoint.entries), checkpoint.source, state_dict)
    if list(found) != list(checkpoint.entries):
        found = {plain: _renamed(entry, plain) for plain, entry in found.items()}
    return replace(checkpoint, entries=found, notes=(*checkpoint.notes, *notes), state_dict=state_dict)


def _renamed(entry: Tensor, name: str) -> Tensor:
    assert isinstance(entry, StoredTensor)  # what safetensors hold
    return replace(entry, name=name)


def _beside(source: str, directory: Path, files: Sequence[Path]) -> Beside:
    modules = modules_of(directory)
    main = [file.relative_to(directory).as_posix() for file in files]
    found = weights_beside(files_of(directory, modules), main, modules, source)
    for name in found.files:
        inside(directory, name, directory / (MODULES if "/" in name else name))
    return found


def _with_others(checkpoint: Checkpoint, beside: Beside, files: Sequence[WeightFile]) -> Checkpoint:
    """Return the checkpoint with the weights of the files beside its own."""
    entries = dict(checkpoint.entries)
    for name, file in zip(beside.files, files):
        other = _named(_assemble(str(file), checkpoint.path, [file]))
        refuse(other)
        entries |= {full_name(name, inner): _renamed(entry, full_name(name, inner)) for inner, entry in other.entries.items()}
    notes = (*checkpoint.notes, *beside.notes(checkpoint.source))
    return replace(checkpoint, entries=entries, files=(*checkpoint.files, *files), notes=notes)


def _weight_files(directory: Path) -> tuple[list[Path], dict[str, str] | None]:
    index, single = directory / INDEX, directory / SINGLE
    if index.is_file():
        mapping = read_index(index)
        if single.is_file() and set(mapping.values()) != {SINGLE}:  # mlx writes an index of one file
            raise FormatError(f"{directory}: holds both {SINGLE} and {INDEX}; remove the one that is out of date")
        return [inside(directory, name, index) for name in sorted(set(mapping.values()))], mapping
    if single.is_file():
        return [single], None
    found = lone_files(directory)
    if len(found) == 1:
        refuse_piece(found[0])
        return found, None
    if found:
        names = ", ".join(file.name for file in found[:4])
        raise FormatError(f"{directory}: {len(found)} safetensors files ({names}) and no {INDEX} that says which belong")
    refuse_form(sorted(each.name for each in directory.iterdir()), directory)
    inner = sorted(file.parent for name in (SINGLE, INDEX) for file in directory.glob(f"*/{name}"))
    advice = f"; did you mean {inner[0]}?" if inner else ""
    raise CheckpointError(f"{directory}: expected {SINGLE} or {INDEX}, found neither{advice}")


def lone_files(directory: Path) -> list[Path]:
    """Return the safetensors at the top of a directory that may be its model: one beside a whole pickle, or a head, is not."""
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    if any((directory / name).is_file() for name in ("pytorch_model.bin", "pytorch_model.bin.index.json")):
        return []
    return sorted(file for file in directory.glob("*.safetensors") if not is_head(file.name))

"""A checkpoint on disk: names, shapes and types from its headers; tensors read when asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.addresses import refuse_password, shown
from warmkit.checkpoints.adapter_config import is_adapter, split
from warmkit.checkpoints.beside import MODULES, Beside, files_of, full_name, is_head, modules_of, weights_beside
from warmkit.checkpoints.dtypes import DType
from warmkit.checkpoints.files import Files, WeightFile, refuse_irregular
from warmkit.checkpoints.hub import pickle_message, resolve
from warmkit.checkpoints.identities import Identity, check_unchanged, identities_at, identity
from warmkit.checkpoints.lone_pieces import refuse_name, refuse_piece
from warmkit.checkpoints.model_index import check_index, inside, read_index
from warmkit.checkpoints.refused import refuse, refuse_form, sharded
from warmkit.checkpoints.safetensors_format import read_header, read_object
from warmkit.checkpoints.tensors import StoredTensor, Tensor
from warmkit.display import Displayed
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.units import number, size

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, repr=False)
class LazyTensor(Displayed):
    """One tensor of a checkpoint, not read yet."""

    entry: Tensor

    def _facts(self) -> Mapping[str, object]:
        return {
            "name": self.name,
            "dtype": self.dtype.torch_name,
            "shape": str(list(self.shape)),
            "size": size(self.entry.nbytes),
        }

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def dtype(self) -> DType:
        return self.entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    def load(self) -> torch.Tensor:
        """Read the tensor into memory, in its own type.

        Raises:
            FormatError: If the file got shorter since it was opened.
        """
        import torch

        buffer = bytearray(self.entry.nbytes)
        with Files() as files:
            self.entry.read(files, 0, memoryview(buffer))
        dtype = getattr(torch, self.dtype.torch_name)
        if not buffer:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(buffer, dtype=dtype).reshape(self.shape)


@dataclass(frozen=True, repr=False)
class Checkpoint(Displayed, Mapping[str, LazyTensor]):
    """Model on disk: its tensors, which are read when they are asked for, and its config and tokenizer files.

    Attributes:
        source: What the user wrote: a path or a Hub repository.
        path: Its directory, or its one `.safetensors` file; where it is streamed, the folder of its small files.
        entries: Every tensor, in the order of files and bytes.
        files: The weight files.
        metadata: `__metadata__` of the files, merged.
        notes: What the user should know: tensors left aside or renamed, files found elsewhere; one line each.
        tied: Names that a pickle stores as the same tensor as an earlier name, with that name.
        adapters: Directories of the adapters on top of it.
        own_config: Its config, where that is not what its `config.json` says.
        identities: Of the files in its directories, as they were before anything was read.
    """

    source: str
    path: Path
    entries: dict[str, Tensor]
    files: tuple[WeightFile, ...]
    metadata: dict[str, str] = field(default_factory=lambda: {})
    notes: tuple[str, ...] = ()
    tied: dict[str, str] = field(default_factory=lambda: {})
    adapters: tuple[Path, ...] = ()
    identities: Mapping[Path, Identity] = field(default_factory=lambda: {})
    own_config: dict[str, Any] | None = None

    def _facts(self) -> Mapping[str, object]:
        kinds = sorted({each.dtype.torch_name for each in self.entries.values()})
        return {
            "source": self.source,
            "architecture": self._architecture(),
            "tensors": len(self.entries),
            "parameters": number(self.parameters),
            "types": kinds,
            "size": size(self.nbytes),
            "files": len(self.files),
            "adapters": self.adapters or None,
            "notes": len(self.notes) or None,
        }

    def _architecture(self) -> object:
        try:
            return self.config.get("architectures") or None
        except CheckpointError:  # a line that is displayed must not fail
            return "unknown, config.json cannot be read"

    def __getitem__(self, name: str) -> LazyTensor:
        return LazyTensor(self.entries[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def directory(self) -> Path | None:
        """The model directory, None for a lone weight file: what lies beside that is not known to belong to it."""
        return self.path if self.path.is_dir() else None

    @property
    def tokenizer_home(self) -> Path | None:
        """Where its tokenizer lies: with the last adapter that brings the one it was trained with, else in the directory."""
        own = [each for each in self.adapters if (each / "tokenizer_config.json").is_file()]
        return own[-1] if own else self.directory

    @property
    def inputs(self) -> tuple[Checkpoint, ...]:
        """The checkpoints whose tensors these are: itself, unless it was put together from others."""
        return (self,)

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(entry.elements for entry in self.entries.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(entry.nbytes for entry in self.entries.values())

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its own config, or `config.json`, or {} where there is none."""
        if self.own_config is not None:
            return self.own_config
        path = self.path / "config.json"
        if self.directory is None or not path.is_file():
            return {}
        return read_model_config(path)

    def fingerprint(self) -> list[list[Any]]:
        """Return what tells whether the weights changed since: place, size, and time or version of every file."""
        known = {file: found for each in self.inputs for file, found in each.identities.items()}
        return [_fingerprint(file, known) for file in self.files]

    @property
    def streamed(self) -> bool:
        """Whether its weights are read over a network."""
        return any(not isinstance(file, Path) for file in self.files)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every weight file by its name, with its directory where there are several."""
        several = len(self.inputs) > 1

        def named(file: WeightFile) -> str:
            if several:
                return str(file)
            return f"{file.parent.name}/{file.name}" if isinstance(file, Path) and file.parent in self.adapters else file.name

        return {named(file): file.stat().st_size if isinstance(file, Path) else file.size for file in self.files}

    def versions(self) -> dict[str, str]:
        """Return what tells the version of every streamed file by its name."""
        return {file.name: file.version for file in self.files if not isinstance(file, Path)}

    def check(self) -> None:
        """Ask whether the weight files are still what they were when they were opened.

        Raises:
            CheckpointError: Naming one that is not.
        """
        for each in self.inputs:
            check_unchanged(each.identities, [file for file in each.files if isinstance(file, Path)])
            for file in each.files:
                if not isinstance(file, Path):
                    file.check()


def _identified(checkpoint: Checkpoint, before: Mapping[Path, Identity]) -> Checkpoint:
    """Return it with the identities of its files; those that an index has deep in folders are as they are now."""
    deep = {file: identity(file) for file in checkpoint.files if isinstance(file, Path) and file not in before}
    return replace(checkpoint, identities={**before, **{file: each for file, each in deep.items() if each is not None}})


def read_model_config(path: Path) -> dict[str, Any]:
    """Read `config.json`.

    Raises:
        FormatError: If it is no JSON object, or what is looked up in it is of another form.
    """
    config = read_object(path)
    architectures, kind = config.get("architectures") or [], config.get("model_type")
    if not isinstance(architectures, list) or not all(isinstance(each, str) for each in architectures):
        raise FormatError(f"{path}: expected architectures to be a list of names, found {repr(architectures)[:60]}")
    if not isinstance(kind, str | None):
        raise FormatError(f"{path}: expected model_type to be a name, found {repr(kind)[:60]}")
    return config


def _fingerprint(file: WeightFile, known: Mapping[Path, Identity]) -> list[Any]:
    if not isinstance(file, Path):
        return [str(file), file.size, file.version]
    if file in known:
        return [str(file.resolve()), known[file].size, known[file].modified]
    stat = file.stat()
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns]


def open_checkpoint(source: str | os.PathLike[str], *, allow_pickle: bool = False, stream: bool = False) -> Checkpoint:
    """Open a checkpoint and check its headers; no weights are read.

    Args:
        source: A directory with one `model.safetensors`, or with an index and its shards; one `.safetensors` file; a Hub
            repository `hf://owner/name[@revision]`, or `owner/name` where no such local path exists; an address
            (`https://`, `s3://`, ...), which is always streamed; `BASE+ADAPTER`, both of these kinds, or an adapter alone,
            which names its base: the dense weights that the two stand for.
        allow_pickle: Also read what torch saved, where there are no safetensors: `pytorch_model.bin`, `.pt`, `.ckpt`, and
            directories of torch.distributed.checkpoint. Nothing that a pickle names is imported or called.
        stream: Read a Hub repository by byte ranges instead of fetching it first.

    Returns:
        A mapping from tensor names to lazy tensors.

    Raises:
        CheckpointError: If it is not there, malformed, or of a kind that is refused.

    Examples:
        >>> checkpoint = open_checkpoint("runs/sft")  # doctest: +SKIP
        >>> checkpoint["lm_head.weight"].shape  # doctest: +SKIP
        (32000, 2048)
    """
    source = str(source)
    refuse_password(source)
    if (pair := split(source)) is not None:
        from warmkit.checkpoints.adapters import open_pair  # brings a compiler, which other checkpoints do not need

        return open_pair(*pair, allow_pickle=allow_pickle, stream=stream)
    if stream or "://" in source:
        from warmkit.checkpoints.remote import is_streamed

        if is_streamed(source, stream):
            return _open_streamed(source)
    path, source = resolve(source, allow_pickle), shown(source)
    if not path.is_dir():
        refuse_irregular(path)
    before = identities_at(path)
    if is_adapter(path):
        from warmkit.checkpoints.adapters import open_alone

        return open_alone(source, path, allow_pickle=allow_pickle, stream=stream)
    if (names := _pickles(path)) and not allow_pickle:
        raise UnsupportedError(pickle_message(path, names))
    return _identified(_open_pickles(source, path) if names else _open_safetensors(source, path), before)


def _open_pickles(source: str, path: Path) -> Checkpoint:
    from warmkit.checkpoints.pickled import open_pickled

    checkpoint = open_pickled(source, path)
    refuse(checkpoint)
    if not path.is_dir():
        return checkpoint
    others = _beside(source, path, [file for file in checkpoint.files if isinstance(file, Path)])
    return _with_others(checkpoint, others, [path / name for name in others.files])


def _open_safetensors(source: str, path: Path) -> Checkpoint:
    if not path.is_dir():
        if path.suffix != ".safetensors":
            refuse_form([path.name], path)
            raise CheckpointError(f"{path}: expected a directory or a .safetensors file")
        refuse_piece(path)
        return _named(_assemble(source, path, [path]))
    files, mapping = _weight_files(path)
    others = _beside(source, path, files)
    checkpoint = _assemble(source, path, files)
    if mapping is not None:
        check_index(path / INDEX, mapping, checkpoint)
    return _with_others(_named(checkpoint), others, [path / name for name in others.files])


def _open_streamed(source: str) -> Checkpoint:
    from warmkit.checkpoints.remote import open_remote

    remote = open_remote(source)
    if remote.mapping is None:
        for file in remote.files:
            refuse_name(file.name, file)
    checkpoint = _assemble(remote.source, remote.folder, remote.files)
    if remote.mapping is not None:
        check_index(f"{remote.source}: {INDEX}", remote.mapping, checkpoint)
    return _with_others(_named(checkpoint), remote.beside, remote.others)


def _assemble(source: str, path: Path, files: Sequence[WeightFile]) -> Checkpoint:
    entries: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        header = read_header(file)
        metadata |= header.metadata
        for entry in header.entries:
            if entry.name in entries:
                raise FormatError(f"{file}: tensor {entry.name!r} is also in {entries[entry.name].file.name}")
            entries[entry.name] = entry
    if not entries:
        raise FormatError(f"{source}: holds no tensors")
    return Checkpoint(source, path, entries, tuple(files), metadata)


def _named(checkpoint: Checkpoint) -> Checkpoint:
    """Return it under the model's own names, checked: wrappers (`_orig_mod`, `module`) may have been saved too."""
    from warmkit.checkpoints.state_dicts import plain_names

    names, notes = plain_names(checkpoint.entries, checkpoint.source)
    entries = checkpoint.entries
    if any(name != plain for name, plain in names.items()) or len(names) < len(entries):
        entries = {plain: _renamed(entries[name], plain) for name, plain in names.items()}
    named = replace(checkpoint, entries=entries, notes=(*checkpoint.notes, *notes))
    refuse(named)
    return named


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
        if all(file.name.startswith("shard-") for file in found):
            raise UnsupportedError(f"{directory}: {sharded(names)}")
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


def _pickles(path: Path) -> list[str]:
    """Return the pickles of a checkpoint that has nothing else."""
    if not path.is_dir():
        return [path.name] if path.suffix in PICKLES else []
    if lone_files(path) or any((path / name).is_file() for name in (INDEX, "adapter_config.json")):
        return []
    from warmkit.checkpoints.pickled import pickles_in

    return pickles_in(path)


def dump_json(value: Any) -> bytes:
    """Serialise a small file the way transformers does: indented, with a final newline; what is not UTF-8 is escaped."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")

"""A checkpoint on disk: names, shapes and types from its headers; tensors read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.common.display import Displayed
from warmkit.common.json_files import read_object
from warmkit.common.units import number, size
from warmkit.errors import CheckpointError, FormatError, listed
from warmkit.formats.dtypes import DType
from warmkit.formats.tensors import Tensor
from warmkit.sources.file_identity import Identity, check_unchanged
from warmkit.sources.files import Files, WeightFile

if TYPE_CHECKING:
    import torch


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
        state_dict: The state dict that was asked for, of several in its file.
        adapter_parts: Of an adapter that is saved in the same files, under the names of an adapter's file; opening adds it.
        replicas: Further tensors with the same numbers in its files, by name: what other ranks hold too, or in another type.
        layout: How its tensors were read in the layout of another; None where they are as they lie.
        container: The row of `formats.containers` that reads it, and where it was opened, a directory or a file.
        rescaled: Whether its quantiser multiplied channels of weights, and divided what is before them: AWQ.
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
    state_dict: str | None = None
    adapter_parts: dict[str, Tensor] = field(default_factory=lambda: {})
    replicas: dict[str, tuple[Tensor, ...]] = field(default_factory=lambda: {})
    layout: str | None = None
    container: tuple[str, Path] | None = None
    rescaled: bool = False

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
        asked = [[each.state_dict] for each in self.inputs if each.state_dict is not None]
        return [*(_fingerprint(file, known) for file in self.files), *asked]

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


def check_index(index: Path | str, mapping: dict[str, str], checkpoint: Checkpoint) -> None:
    """Check that an index and its files say the same."""
    problems = [f"{name!r} is not in {mapping[name]}" for name in mapping if name not in checkpoint.entries]
    for name, entry in checkpoint.entries.items():
        if name not in mapping:
            problems.append(f"{name!r} is in {entry.file.name} and not in the index")
        elif mapping[name] != _inner_name(entry.file, index):
            problems.append(f"{name!r} is in {entry.file.name}, the index says {mapping[name]}")
    if problems:
        raise FormatError(f"{index}: disagrees with its files:\n{listed(problems)}")


def _inner_name(file: WeightFile, index: Path | str) -> str:
    return str(file.relative_to(index.parent)) if isinstance(file, Path) and isinstance(index, Path) else file.name

"""Open what torch saved with pickle: `pytorch_model.bin`, `.pt`, `.ckpt`, and directories of torch.distributed.checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warmkit.checkpoints.checkpoint import PICKLES, Checkpoint
from warmkit.checkpoints.config_defaults import ties
from warmkit.checkpoints.distributed import is_distributed, read_distributed
from warmkit.checkpoints.lone_pieces import refuse_piece
from warmkit.checkpoints.model_index import check_index, inside, read_index
from warmkit.checkpoints.state_dicts import entry, shared, tensors_in, weights_among
from warmkit.checkpoints.tensors import Tensor
from warmkit.checkpoints.torch_zip import TorchTensor, read_torch_zip
from warmkit.errors import FormatError

INDEX = "pytorch_model.bin.index.json"
SINGLE = "pytorch_model.bin"
# What a trainer saves beside the weights.
ASIDE = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states")


def pickles_in(directory: Path) -> list[str]:
    """Return the names of what in a directory may hold weights and is read as a pickle."""
    if (home := distributed_home(directory)) is not None:
        return [str(home.relative_to(directory) / ".metadata")]
    return sorted(file.name for file in directory.iterdir() if file.suffix in PICKLES and not file.name.startswith(ASIDE))


def distributed_home(directory: Path) -> Path | None:
    """Return where in a directory a distributed checkpoint lies: itself, or the folder that accelerate makes."""
    if is_distributed(directory):
        return directory
    return next(filter(is_distributed, sorted(directory.glob("pytorch_model_fsdp_*"))), None)


def open_pickled(source: str, path: Path) -> Checkpoint:
    """Open a file or directory that torch wrote, as `open_checkpoint` does safetensors; torch is not needed.

    Raises:
        CheckpointError: If it is malformed, half-written, or holds more than tensors and plain values.
    """
    if not path.is_dir():
        refuse_piece(path)
        return _from_files(source, path, [path])
    if (home := distributed_home(path)) is not None:
        found = read_distributed(home)
        return Checkpoint(source, path, found.entries, found.files, notes=found.notes)
    if (path / INDEX).is_file():
        mapping = read_index(path / INDEX)
        files = [inside(path, name, path / INDEX, PICKLES) for name in sorted(set(mapping.values()))]
        checkpoint = _from_files(source, path, files)
        left_out = checkpoint.tied.keys() - checkpoint.entries.keys()
        check_index(path / INDEX, {name: file for name, file in mapping.items() if name not in left_out}, checkpoint)
        return checkpoint
    names = [SINGLE] if (path / SINGLE).is_file() else pickles_in(path)
    for name in names:
        refuse_piece(path / name)
    if len(names) > 1:
        raise FormatError(f"{path}: {len(names)} files could hold the weights ({', '.join(names[:4])}); give one of them")
    return _from_files(source, path, [path / name for name in names])


def _from_files(source: str, path: Path, files: Sequence[Path]) -> Checkpoint:
    tensors: dict[str, TorchTensor] = {}
    notes: list[str] = []
    for file in files:
        tree = read_torch_zip(file)
        keys = [str(key) for key in tree] if isinstance(tree, dict) else []
        found = list(tensors_in(tree))
        if len(dict(found)) < len(found):
            raise FormatError(f"{file}: a number and a text are keys of one name")
        chosen, said = weights_among(dict(found), keys, str(file))
        notes += said
        for name, tensor in chosen.items():
            if name in tensors:
                raise FormatError(f"{file}: tensor {name!r} is also in {tensors[name].file.name}")
            tensors[name] = tensor
    tied = shared(tensors)
    entries: dict[str, Tensor] = {name: entry(name, tensor) for name, tensor in tensors.items()}
    checkpoint = Checkpoint(source, path, entries, tuple(files), notes=tuple(notes), tied=tied)
    if not tied or not ties(checkpoint.config):
        return checkpoint
    kept = {name: each for name, each in entries.items() if name not in tied}  # loaders tie them again
    return Checkpoint(source, path, kept, tuple(files), notes=tuple(notes), tied=tied)

"""Models that torch saved with pickle: `pytorch_model.bin`, `.pt`, `.ckpt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warmkit.errors import FormatError
from warmkit.formats.checkpoint import Checkpoint, check_index
from warmkit.formats.schedule_free import noted
from warmkit.formats.state_dicts import entry, shared, tensors_in, weights_among
from warmkit.formats.tensors import Tensor
from warmkit.formats.torch_zip import TorchTensor, read_torch_zip
from warmkit.sources.lone_pieces import refuse_piece
from warmkit.sources.model_index import inside, read_index
from warmkit.sources.weight_names import PICKLES, TORCH_INDEX, TORCH_SINGLE

# What a trainer saves beside the weights.
ASIDE = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states")


def files_at(path: Path) -> list[str]:
    """Return the names of what at a path may hold weights and is read as a pickle."""
    if not path.is_dir():
        return [path.name] if path.name.endswith(PICKLES) else []
    return sorted(file.name for file in path.iterdir() if file.name.endswith(PICKLES) and not file.name.startswith(ASIDE))


def open_model(source: str, path: Path, state_dict: str | None = None) -> Checkpoint:
    """Open a file that torch wrote, or a directory of such files; torch is not needed.

    Args:
        source: What the user wrote.
        path: Where it lies.
        state_dict: The one to read, of several in a file.

    Raises:
        CheckpointError: If it is malformed, half-written, or holds more than tensors and plain values.
    """
    if not path.is_dir():
        refuse_piece(path)
        return _from_files(source, path, [path], state_dict)
    index = path / TORCH_INDEX
    if index.is_file():
        mapping = read_index(index)
        files = [inside(path, name, index, PICKLES) for name in sorted(set(mapping.values()))]
        checkpoint = _from_files(source, path, files, state_dict)
        check_index(index, mapping, checkpoint)
        return checkpoint
    names = [TORCH_SINGLE] if (path / TORCH_SINGLE).is_file() else files_at(path)
    for name in names:
        refuse_piece(path / name)
    if len(names) > 1:
        raise FormatError(f"{path}: {len(names)} files could hold the weights ({', '.join(names[:4])}); give one of them")
    return _from_files(source, path, [path / name for name in names], state_dict)


def _from_files(source: str, path: Path, files: Sequence[Path], state_dict: str | None) -> Checkpoint:
    tensors: dict[str, TorchTensor] = {}
    notes: list[str] = []
    for file in files:
        tree = read_torch_zip(file)
        keys = [str(key) for key in tree] if isinstance(tree, dict) else []
        found = list(tensors_in(tree))
        if len(dict(found)) < len(found):
            raise FormatError(f"{file}: a number and a text are keys of one name")
        chosen, said = weights_among(dict(found), keys, str(file), state_dict)
        notes += [*said, *noted(tree, str(file))]
        for name, tensor in chosen.items():
            if name in tensors:
                raise FormatError(f"{file}: tensor {name!r} is also in {tensors[name].file.name}")
            tensors[name] = tensor
    entries: dict[str, Tensor] = {name: entry(name, tensor) for name, tensor in tensors.items()}
    return Checkpoint(source, path, entries, tuple(files), notes=tuple(notes), tied=shared(tensors))

"""Checkpoints of Megatron-Core, as its `torch_dist` format lays them out: a distributed checkpoint under Megatron's own names.

    RUN/latest_checkpointed_iteration.txt   the newest step
    RUN/iter_0000100/.metadata, *.distcp    as `formats.torch_distributed`, weights and optimizer together
    RUN/iter_0000100/metadata.json          the format; written last
    RUN/iter_0000100/common.pt              step and arguments

Layers that are alike lie in one tensor, `decoder.layers.mlp.linear_fc1.weight` [layers, ...]; here each layer is a tensor of
its own, `decoder.layers.0.mlp.linear_fc1.weight`, so that a method that goes by layers does. Where the optimizer keeps float32
weights, these are read, and those that the model computes with are copies of them.

Source: `dist_checkpointing` and `optimizer.py` of Megatron-Core 0.16.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from warmkit.common.json_files import read_object
from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.pieces import GatheredTensor, Piece, row_major
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.formats.torch_distributed import METADATA, SHARD, every_tensor
from warmkit.sources.runs import last_saved

FORMAT, COMMON = "metadata.json", "common.pt"
STATE = "optimizer.state."
WIDE = f"{STATE}fp32_param."
BESIDE = ("optimizer.", "opt_param_scheduler", "rng_state", "rerun_state_machine")


def files_at(path: Path) -> list[str]:
    """Return the names of what at a path is such a checkpoint, a whole one or not, or the newest step of a run of them."""
    home = _home(path) if path.is_dir() else None
    return [] if home is None else [str((home / METADATA).relative_to(path))]


def open_model(source: str, path: Path) -> Checkpoint:
    """Open a checkpoint of Megatron-Core; neither Megatron nor torch is needed.

    Raises:
        CheckpointError: If it is half-written, or in another of Megatron's formats.
    """
    home = _home(path) or path
    if not (home / FORMAT).is_file():
        raise FormatError(
            f"{home}: a half-written checkpoint of Megatron: {FORMAT}, which is written last, is missing; use one whose save "
            "was finished"
        )
    backend = read_object(home / FORMAT).get("sharded_backend")
    if backend != "torch_dist":
        raise UnsupportedError(
            f"{home / FORMAT}: format {str(backend)[:40]}, of Megatron's formats torch_dist is read; convert it"
        )
    stored = {".".join(keys): tensor for keys, tensor in every_tensor(home).items()}
    weights = {name: tensor for name, tensor in stored.items() if not name.startswith(BESIDE)}
    if not weights:
        raise FormatError(f"{home}: holds no weights")
    wide = {name.removeprefix(WIDE): tensor for name, tensor in stored.items() if name.startswith(WIDE)}
    entries, replicas = dict[str, Tensor](), dict[str, tuple[Tensor, ...]]()
    for name, tensor in weights.items():
        master = wide.get(name)
        if master is not None and master.shape != tensor.shape:
            raise FormatError(f"{home}: {WIDE}{name} is {list(master.shape)}, the weight {list(tensor.shape)}")
        for own, layer in _by_layer(name, tensor if master is None else master):
            entries[own] = layer
        if master is not None:
            replicas |= {own: (layer,) for own, layer in _by_layer(name, tensor)}
    aside = sorted({name.partition(".")[0] for name in stored if name.startswith(BESIDE)})
    said = f"; left aside {', '.join(aside)}" if aside else ""
    notes = (
        f"{source}: Megatron's own names of tensors, which other libraries do not load; --as same writes its own files{said}",
        *([f"{source}: read the float32 weights in the optimizer's state"] if replicas else []),
    )
    files = (home / METADATA, *sorted(home.glob(f"*{SHARD}")))
    return Checkpoint(source, path, entries, files, notes=notes, replicas=replicas)


def refuse_hidden_weights(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose optimizer holds the weights once more in an order of its own.

    Raises:
        UnsupportedError: Naming one: training would go on from the weights that are there.
    """
    metadata = checkpoint.files[0]
    assert isinstance(metadata, Path)  # of a directory
    for keys in every_tensor(metadata.parent):
        name = ".".join(keys)
        if name.startswith("optimizer.") and not name.startswith(STATE):
            raise UnsupportedError(
                f"{checkpoint.source}: {name[:80]} is of a distributed optimizer that keeps the weights once more, in its own "
                "order; save it in a fully reshardable format (distrib_optim_sharding_type)"
            )


def _home(path: Path) -> Path | None:
    """Return the directory of a step: the path itself, or the newest of a run, as the run says."""
    return next((each for each in (path, last_saved(path)) if each is not None and (each / COMMON).is_file()), None)


def _by_layer(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a tensor, or, of layers that lie in one, that of each, under its name."""
    parts = name.split(".")
    place = parts.index("layers") + 1 if "layers" in parts else len(parts)
    if place >= len(parts) or parts[place].isdigit() or not tensor.shape:
        yield name, _named(tensor, name)
        return
    for number in range(tensor.shape[0]):
        own = ".".join((*parts[:place], str(number), *parts[place:]))
        yield own, _layer(own, tensor, number)


def _layer(name: str, tensor: Tensor, number: int) -> Tensor:
    """Return one slice along the first dimension."""
    pieces = tuple(
        replace(
            each,
            offset=each.offset + (number - each.origin[0]) * each.strides[0] * tensor.dtype.itemsize,
            origin=each.origin[1:],
            shape=each.shape[1:],
            strides=each.strides[1:],
        )
        for each in _pieces(tensor)
        if each.origin[0] <= number < each.origin[0] + each.shape[0]
    )
    return GatheredTensor(name, tensor.dtype, tensor.shape[1:], pieces)


def _pieces(tensor: Tensor) -> Iterable[Piece]:
    if isinstance(tensor, GatheredTensor):
        return tensor.pieces
    assert isinstance(tensor, StoredTensor)  # what is made of distributed checkpoints
    assert isinstance(tensor.file, Path)
    return (Piece(tensor.file, tensor.offset, (0,) * len(tensor.shape), tensor.shape, row_major(tensor.shape)),)


def _named(tensor: Tensor, name: str) -> Tensor:
    assert isinstance(tensor, StoredTensor | GatheredTensor)  # what is made of distributed checkpoints
    return replace(tensor, name=name)

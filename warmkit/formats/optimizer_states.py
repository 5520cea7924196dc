"""State of optimizers, as trainers save it: moments, which are averages themselves, and counters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from warmkit.errors import UnsupportedError
from warmkit.formats.dtensors import DTENSOR_NAMES, PartOfTensor
from warmkit.formats.state_dicts import DEEPEST, entry
from warmkit.formats.stored_zip import is_zip
from warmkit.formats.tensors import Tensor
from warmkit.formats.torch_distributed import SHARD, every_tensor
from warmkit.formats.torch_zip import TorchTensor, read_torch_zip
from warmkit.formats.zero_files import ZERO_NAMES

MOMENTS = frozenset(("exp_avg", "exp_avg_sq", "momentum_buffer"))
COUNTERS = frozenset(("step",))
MASTERS = frozenset(("fp32_from_fp16_params", "fp32_params", "master_param", "master_params", "master_weights"))
MEGATRONS = "fp32_param"  # which is written as the weights are
FILES = ("optim_world_size_*_rank_*.pt", "optimizer.pt", "optimizer.bin", "*optim_states.pt")
FOLDERS = ("optimizer", "optimizer_*")

Key = tuple[str, ...]


def moments_in(files: Iterable[Path], averaged: bool) -> dict[Key, Tensor]:
    """Return the moments of optimizers in files that torch saved, by the file's name and the keys that lead to them.

    Args:
        files: The files.
        averaged: Whether everything that is not a moment is refused.

    Raises:
        CheckpointError: If a file is malformed.
        UnsupportedError: If there is another state: one that is quantised, or a maximum; or a copy of the weights.
    """
    found: dict[Key, Tensor] = {}
    for key, tensor in _states(files):
        parts = [part for each in key[1:] for part in each.split(".")]
        last = next((part for part in parts if part in MOMENTS), parts[-1])
        if copy := next((part for part in parts if part in MASTERS), None):
            raise UnsupportedError(
                f"{tensor.file}: the optimizer keeps a copy of the weights ({copy}), from which training would go on; leave "
                "its state out"
            )
        if last in MOMENTS and tensor.dtype.kind == "float":
            found[key] = tensor
        elif averaged and last not in COUNTERS and MEGATRONS not in parts and tensor.elements > 1:
            raise UnsupportedError(
                f"{tensor.file}: the optimizer's {last} ({tensor.dtype.torch_name}) is no moment of Adam or SGD, so it has no "
                "average; keep the state of one checkpoint (--optimizer keep), or leave it out"
            )
    return found


def _states(files: Iterable[Path]) -> Iterator[tuple[Key, Tensor]]:
    homes = set[Path]()
    for file in files:
        if file.name.endswith(SHARD):
            homes.add(file.parent)
        elif is_zip(file) or any(fnmatchcase(file.name, each) for each in FILES):
            tree = read_torch_zip(file, more={**ZERO_NAMES, **DTENSOR_NAMES})
            within = bool(_optimizer(file.name))
            for keys, tensor in _walk(tree, ()):
                if _is_state(keys[:-1]) and (within or any(map(_optimizer, keys))):
                    yield (file.name, *keys), entry(".".join(keys), tensor)
    for home in sorted(homes):
        for keys, tensor in every_tensor(home).items():
            parts = [part for key in keys for part in key.split(".")]
            if _is_state(parts[:-1]) and (home.name.startswith("optimizer") or any(map(_optimizer, parts))):
                yield (home.name if home.name.startswith("optimizer") else "", *keys), tensor


def _is_state(keys: Iterable[str]) -> bool:
    return any(key == "state" or key in MASTERS for key in keys)


def _optimizer(name: str) -> bool:
    return name.startswith(("optim", "base_optimizer")) or name.endswith("optim_states.pt")


def _walk(tree: Any, path: Key) -> Iterator[tuple[Key, TorchTensor]]:
    if isinstance(tree, PartOfTensor):
        yield path, tree.local
    elif isinstance(tree, TorchTensor):
        yield path, tree
    elif len(path) < DEEPEST and isinstance(tree, Mapping | list | tuple):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from _walk(value, (*path, str(key)))

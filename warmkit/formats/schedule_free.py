"""Schedule-free optimizers: weights that were saved in train mode are not the average.

Such an optimizer (`schedulefree`) keeps z, where it steps, and x, the average of the z. In train mode a model has
y = (1 - beta) z + beta x, where gradients are taken; `optimizer.eval()` puts x in its place. Its state says which it was.

Source: Defazio et al., 2024, "The Road Less Scheduled".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from warmkit.errors import CheckpointError
from warmkit.formats.torch_zip import read_torch_zip

OPTIMIZERS = ("optimizer.pt", "optimizer.bin")  # beside the weights in folders of transformers and accelerate
LONGEST = 1_000_000  # bytes of a pickle that is looked at for this alone, half a second; that of 1,000 tensors has 220,000
DEEPEST = 4


def noted(tree: Any, where: str) -> list[str]:
    """Return a note if what was saved says that its weights are those of a schedule-free optimizer in train mode."""
    if not any(group.get("train_mode") is True for group in _groups(tree)):
        return []
    said = (
        f"{where}: saved by a schedule-free optimizer in train mode: the weights are y, where it takes gradients, not x, the "
        "average that it is meant to give; call optimizer.eval() before saving"
    )
    return [said]


def noted_beside(directory: Path) -> list[str]:
    """Return the same for a folder, by the optimizer's file in it; nothing where that is long or not of torch."""
    for file in (directory / name for name in OPTIMIZERS):
        try:
            if file.is_file() and (said := noted(read_torch_zip(file, most=LONGEST), str(file))):
                return said
        except CheckpointError:
            continue  # no weights are read from it, so it may be what it likes
    return []


def _groups(tree: Any, depth: int = 0) -> Iterator[Mapping[Any, Any]]:
    """Yield the groups of parameters of every optimizer in what was saved."""
    if isinstance(tree, Mapping) and isinstance(groups := tree.get("param_groups"), list):
        yield from (group for group in groups if isinstance(group, Mapping))
    elif depth < DEEPEST and isinstance(tree, Mapping | list | tuple):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _groups(value, depth + 1)

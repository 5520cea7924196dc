"""A state dict in memory as a checkpoint, so that everything which reads checkpoints reads it too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import BY_TORCH_NAME, DType
from warmkit.formats.tensors import Counted
from warmkit.sources.files import Files

if TYPE_CHECKING:
    import torch

NOWHERE = Path(os.devnull)  # nothing lies in it, whatever it is called


@dataclass(frozen=True, eq=False)
class MemoryTensor(Counted):
    """A tensor of torch. One on a GPU, or not contiguous, is copied once, when it is read.

    Attributes:
        file: What its state dict is called, for messages.
    """

    name: str
    file: Path
    tensor: torch.Tensor

    @cached_property
    def dtype(self) -> DType:
        return BY_TORCH_NAME[str(self.tensor.dtype).removeprefix("torch.")]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        import torch

        return self.tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()

    def read(self, files: Files, start: int, view: memoryview) -> None:
        first = start * self.dtype.itemsize
        view[:] = self._bytes.data[first : first + view.nbytes]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Nothing to announce: it is in memory."""


def in_memory(name: str, state_dict: Mapping[str, torch.Tensor], config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Return a state dict as a checkpoint.

    Args:
        name: What the user calls it.
        state_dict: Tensors by name.
        config: Of its model; what it says of the architecture tells what names mean.

    Raises:
        UnsupportedError: If a tensor is of a type that cannot be averaged.
    """
    file, entries = NOWHERE / name, dict[str, Any]()
    for key, tensor in state_dict.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in BY_TORCH_NAME:
            raise UnsupportedError(f"{name}: tensor {key!r} is {kind}, which cannot be averaged")
        entries[key] = MemoryTensor(key, file, tensor)
    return Checkpoint(name, file, entries, (), own_config=dict(config or {}))

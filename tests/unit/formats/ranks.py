"""Rank files that torch itself writes in one process: a fake process group stands for the other ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

Placed = tuple[torch.Tensor, Sequence[Any]]


def save_ranks(home: Path, sizes: Sequence[int], tensors: Mapping[str, Placed], more: Mapping[str, Any] | None = None) -> Path:
    """Write the rank files of a mesh.

    Args:
        home: The directory.
        sizes: Of the mesh.
        tensors: Whole tensors, and how each dimension of the mesh cuts them.
        more: What every rank saves as it is.
    """
    home.mkdir(parents=True, exist_ok=True)
    world = int(np.prod(sizes))
    for rank in range(world):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
            try:
                mesh = init_device_mesh("cpu", tuple(sizes))
                state: dict[str, Any] = {name: _part(whole, mesh, cuts) for name, (whole, cuts) in tensors.items()}
                torch.save({**state, **(more or {})}, home / f"model_world_size_{world}_rank_{rank}.pt")
            finally:
                dist.destroy_process_group()
    return home


def _part(whole: torch.Tensor, mesh: Any, cuts: Sequence[Any]) -> DTensor:
    if any(each.is_partial() for each in cuts):
        return DTensor.from_local(whole, mesh, cuts, run_check=False)
    return distribute_tensor(whole, mesh, cuts, src_data_rank=None)

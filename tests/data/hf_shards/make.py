"""Makes the folders of this folder: one model as torch's HuggingFaceStorageWriter saves it from two processes.

Run it with torch 2.13.0, from anywhere: `torchrun --nproc-per-node 2 tests/data/hf_shards/make.py`. `rows` is a model under
FSDP2, `mixed` has columns, middle axes, copies and several files a process, `consolidated` is `rows` put together by torch,
`rank0` the whole model saved by one process. `NAME.said.safetensors` holds the whole tensors that were cut.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

HERE = Path(__file__).parent


def write(state: dict[str, Any], name: str, **how: Any) -> None:
    if dist.get_rank() == 0:
        shutil.rmtree(HERE / name, ignore_errors=True)
    dist.barrier()
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(HERE / name), **how))


def said(name: str, tensors: dict[str, torch.Tensor]) -> None:
    if dist.get_rank() == 0:
        save_file({key: each.detach().clone() for key, each in tensors.items()}, HERE / f"{name}.said.safetensors")


def main() -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 3, bias=False)).bfloat16()
    said("rows", model.state_dict())
    if dist.get_rank() == 0:
        shutil.rmtree(HERE / "rank0", ignore_errors=True)
        dcp.save(dict(model.state_dict()), storage_writer=HuggingFaceStorageWriter(str(HERE / "rank0")), no_dist=True)
    fully_shard(model, mesh=mesh)
    write(get_model_state_dict(model), "rows", save_distributed=True)
    write(get_model_state_dict(model), "consolidated", save_distributed=True, enable_consolidation=True)
    whole = {
        "columns": torch.arange(35.0).reshape(5, 7),
        "deep": torch.arange(60).reshape(3, 4, 5),
        "copy": torch.ones(4, dtype=torch.float16),
        "step": torch.tensor(3),
    }
    places = {"columns": [Shard(1)], "deep": [Shard(1)], "copy": [Replicate()], "step": [Replicate()]}
    said("mixed", whole)
    cut = {name: distribute_tensor(each, mesh, places[name]) for name, each in whole.items()}
    files = {"columns": 1, "deep": 2, "copy": 1, "step": 2}
    write(cut, "mixed", save_distributed=True, fqn_to_index_mapping=files)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

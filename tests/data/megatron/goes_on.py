"""Megatron-Core loads an average that was written into its own files, on another parallel layout than the one that saved it.

Run it in an environment with megatron-core 0.16.1, torch 2.13.0, psutil and warmkit:
`python tests/data/megatron/goes_on.py`. It fails where what two processes have loaded, pipeline parallel from a tensor parallel
save and the other way round, is not the mean of what was saved, or where a step of training from there is not finite.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from make import HERE, STEPS, model, started
from safetensors.torch import load_file

import warmkit


def parts(sharded: dict[str, Any]) -> Iterator[Any]:
    """Yield what this process has of every tensor; gated layers come as two halves."""
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory

    for each in sharded.values():
        if isinstance(each, ShardedTensorFactory):
            built = each.build()
            yield from built.values() if isinstance(built, dict) else built
        elif isinstance(each, ShardedTensor):
            yield each


def process(rank: int, place: str, name: str, tensor: int, pipeline: int) -> None:
    started(rank, tensor, pipeline)
    from megatron.core import dist_checkpointing

    learner = model(tensor, pipeline, torch.float32)
    state: dict[str, Any] = {"model": learner.sharded_state_dict()}
    loaded = dist_checkpointing.load(state, place)
    assert loaded["iteration"] == max(STEPS)
    learner.load_state_dict(loaded["model"])
    saved = [load_file(HERE / "said" / f"{name}-{number}.safetensors") for number in STEPS]
    wanted = {key: torch.stack([each[key].double() for each in saved]).mean(dim=0).float() for key in saved[0]}
    compared = 0
    for part in parts(learner.sharded_state_dict()):
        whole, sizes = wanted[part.key], (1,) * part.prepend_axis_num + tuple(part.data.shape)
        box = tuple(slice(begin, begin + size) for begin, size in zip(part.global_offset, sizes))
        assert torch.equal(part.data, whole[box].reshape(part.data.shape)), part.key
        compared += 1
    assert compared > 5, compared
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.01)
    for each in learner.parameters():
        each.grad = each.detach().sin()
    optimizer.step()
    assert all(each.isfinite().all() for each in learner.parameters())
    print(f"{name}: rank {rank} of tensor {tensor}, pipeline {pipeline}: {compared} tensors are the mean", flush=True)
    torch.distributed.barrier()


def main() -> None:
    for name, tensor, pipeline in (("tensor", 2, 1), ("tensor", 1, 2), ("pipeline", 1, 2), ("pipeline", 2, 1)):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "iter_0000004"
            warmkit.average(HERE / name, out, allow_pickle=True, container="same")
            torch.multiprocessing.spawn(process, (str(out), name, tensor, pipeline), nprocs=2)


if __name__ == "__main__":
    main()

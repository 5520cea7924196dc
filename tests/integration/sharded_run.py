"""A training run of two processes under FSDP2, as trainers save it: run by `test_training_goes_on.py`, once a process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

WORLD, STEPS, RATE = 2, (2, 3, 5), 0.01


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3, bias=False))


def step(learner: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    """Take a step whose gradient follows from each weight alone, so that one process computes it as well."""
    for parameter in learner.parameters():
        parameter.grad = (parameter.detach() * number).sin()
    optimizer.step()


def whole(learner: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return weights and moments."""
    found = {name: _full(each) for name, each in learner.named_parameters()}
    for name, each in learner.named_parameters():
        found |= {f"{key}/{name}": _full(optimizer.state[each][key]) for key in ("exp_avg", "exp_avg_sq")}
    return found


def _full(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone().contiguous()


def save(folder: Path, number: int, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    ranks = folder / "ranks" / f"global_step_{number}" / "actor"
    ranks.mkdir(parents=True, exist_ok=True)
    states: Mapping[str, Any] = {
        "model": learner.state_dict(),
        "optim": optimizer.state_dict(),
        "extra_state": {"step": number, "rng": torch.get_rng_state()},
    }
    for name, state in states.items():
        torch.save(state, ranks / f"{name}_world_size_{WORLD}_rank_{rank}.pt")
    parts = {"model": get_model_state_dict(learner), "optimizer": get_optimizer_state_dict(learner, optimizer)}
    dcp.save({**parts, "trainer": {"step": number}}, checkpoint_id=folder / "distributed" / f"step-{number}")


def load(kind: str, place: Path, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> int:
    """Load what was averaged, as the trainer loads its own; return the step that it goes on from."""
    if kind == "ranks":

        def read(name: str) -> Any:
            file = place / "actor" / f"{name}_world_size_{WORLD}_rank_{rank}.pt"
            return torch.load(file, weights_only=False)  # what this test wrote

        learner.load_state_dict(read("model"))
        optimizer.load_state_dict(read("optim"))
        return int(read("extra_state")["step"])
    state: dict[str, Any] = {
        "model": get_model_state_dict(learner),
        "optimizer": get_optimizer_state_dict(learner, optimizer),
        "trainer": {"step": 0},
    }
    dcp.load(state, checkpoint_id=place)
    set_model_state_dict(learner, state["model"])
    set_optimizer_state_dict(learner, optimizer, state["optimizer"])
    return int(state["trainer"]["step"])


def main(rank: int, folder: Path, kind: str, place: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / f'meeting-{kind}'}", rank=rank, world_size=WORLD)
    learner = model()
    for layer in (learner[0], learner[2], learner):  # type: ignore[index]
        fully_shard(layer)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=RATE)
    if kind == "train":
        for number in range(1, max(STEPS) + 1):
            step(learner, optimizer, number)
            if number in STEPS:
                save(folder, number, learner, optimizer, rank)
                found = whole(learner, optimizer)
                if not rank:
                    save_file(found, folder / f"whole-{number}.safetensors")
    else:
        last = load(kind, Path(place), learner, optimizer, rank)
        before = whole(learner, optimizer)
        step(learner, optimizer, last + 1)
        after = whole(learner, optimizer)
        if not rank:
            save_file(before, folder / f"{kind}-loaded.safetensors")
            save_file(after, folder / f"{kind}-after-{last + 1}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])

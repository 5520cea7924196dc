"""A model in shards: FSDP2's `fully_shard`, and what is whole again for a moment: to sample, to save, to resume.

Every function here does nothing, or the plain thing, where the launch asks for no shards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from warmkit.errors import UsageError
from warmkit.training.distributed import device, group
from warmkit.training.recipe_sections import LoraSection, Optimization


def check_shards(how: Optimization, section: str, lora: LoraSection | None) -> None:
    """Refuse what cannot be sharded, where the launch asks for it.

    Args:
        how: How the model learns.
        section: Of the recipe that says so.
        lora: The adapters that the recipe asks for.

    Raises:
        UsageError: If adapters or the optimiser cannot be sharded.
    """
    if not group().sharded:
        return
    if lora is not None:
        raise UsageError("lora: adapters are not sharded; launch without --use_fsdp (DDP)")
    if how.optimizer == "adafactor":
        raise UsageError(f"{section}.optimizer: adafactor factors whole matrices, which FSDP splits; use adamw")


def shard(model: Any) -> None:
    """Shard a transformers model in the memory of the CPU over the processes, layer by layer; on a GPU each if there are."""
    if not group().sharded:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device().type, (group().size,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.gathered = False
    model.register_forward_hook(_reshard)


def _reshard(model: Any, *_: Any) -> None:
    """Give up what a forward pass without a backward one has put together: who looks at the parameters then sees shards."""
    if not torch.is_grad_enabled() and not model.gathered:
        model.reshard()


@contextlib.contextmanager
def gathered(model: Any) -> Generator[None, None, None]:
    """Hold all weights of a sharded model in every process, for as many forward passes as each of them likes.

    Sampling makes a pass for every token, and processes end at different tokens: with shards each pass would move the whole
    model and wait for the slowest. Gradients, optimiser and other models stay in shards.
    """
    if not group().sharded:
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [each for each in model.modules() if isinstance(each, FSDPModule)]
    for each in parts:
        each.set_reshard_after_forward(False, recurse=False)
        each.unshard()
    model.gathered = True
    try:
        yield
    finally:
        model.gathered = False
        for each in parts:
            each.set_reshard_after_forward(True, recurse=False)
            each.reshard()


def _layers(model: Any) -> list[nn.Module]:
    """Return the layers that transformers never splits, or else the members of the longest list of modules."""
    names: set[str] = set(getattr(model, "_no_split_modules", None) or ())
    if layers := [each for each in model.modules() if type(each).__name__ in names]:
        return layers
    return max((list(each) for each in model.modules() if isinstance(each, nn.ModuleList)), key=len, default=[])


def put_together(tensor: torch.Tensor) -> torch.Tensor:
    """Return a sharded tensor whole, on every process; all must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(value: Any) -> Any:
    """Return a tree of states with its shards put together, in the memory of the first process's CPU (elsewhere None).

    Every process must call it.
    """
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if group().first else None
    return value


def whole_weights(model: Any) -> dict[str, torch.Tensor] | None:
    """Return the weights of a sharded model put together, as `whole` does, tied ones once; None of a model that is whole."""
    if not group().sharded:
        return None
    own = model.state_dict(keep_vars=True)
    once = whole({id(each): each.detach() for each in own.values()})
    return {name: once[id(each)] for name, each in own.items()}


def spread(value: Any, like: Any) -> Any:
    """Shard a tensor as another of its shape is; what is whole, or no tensor of that shape, is left as it is."""
    if not isinstance(like, DTensor) or not torch.is_tensor(value) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def load_states(model: Any, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over whole states (`model`, `optimizer`), sharded as the model is."""
    own = model.state_dict()
    model.load_state_dict({name: spread(each, own[name]) for name, each in state["model"].items()})
    parameters = [each for its in optimizer.param_groups for each in its["params"]]
    kept = {
        number: {name: spread(each, parameters[number]) for name, each in values.items()}
        for number, values in state["optimizer"]["state"].items()
    }
    optimizer.load_state_dict({**state["optimizer"], "state": kept})


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale the gradient down to a norm; return the norm that it had."""
    return float(put_together(torch.nn.utils.clip_grad_norm_(parameters, most)))

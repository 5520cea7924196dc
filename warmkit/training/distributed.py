"""One run on several devices: what the processes of `accelerate launch` share, and how they become one.

The batch is the recipe's, whatever the number of processes: each takes every n-th example of a part, weighs its mean by what
it counts, and the gradients are summed. So n processes compute what one does, rounding (and the draw of dropout) aside.

DDP: every process has the whole model; gradients are summed here.
FSDP2: weights, gradients and optimiser are sharded layer by layer (`torch.distributed.fsdp.fully_shard`).

The first process alone writes: metrics, states, models.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from warmkit.errors import UsageError, WarmkitError
from warmkit.training.recipe import LoraSection, Optimization

T = TypeVar("T")

BUCKET = 1 << 25  # numbers that are summed at a time


@dataclass(frozen=True)
class Group:
    """The processes that train one model together.

    Attributes:
        rank: Of this one, from 0.
        size: How many there are.
        sharded: Whether each holds a shard of the model (FSDP2), or all of it.
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def scale(self) -> int:
        """What a loss is multiplied by before its gradient: FSDP takes the mean over the processes, and we want the sum."""
        return self.size if self.sharded else 1

    @property
    def draw(self) -> list[int]:
        """What sets this process's dropout apart; nothing for the first, whose is that of a single process."""
        return [] if self.first else [self.rank]

    @property
    def device(self) -> str | None:
        """Where a model is loaded: what is sharded afterwards, into the memory of the CPU; None for the default."""
        return "cpu" if self.sharded else None

    def mine(self, rows: Sequence[int]) -> Sequence[int]:
        """Return this process's share of some examples."""
        return rows[self.rank :: self.size]

    def share(self, count: int) -> slice:
        """Return this process's share of some things, next to each other, those of earlier processes before."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def check_parts(self, parts: Sequence[Sequence[int]], section: str) -> None:
        """Refuse a batch of which a process would get nothing.

        Raises:
            UsageError: If a part has fewer examples than there are processes.
        """
        if (smallest := min(map(len, parts))) < self.size:
            raise UsageError(
                f"{section}.batch_size in {len(parts)} parts (accumulation) leaves {smallest} examples for {self.size} "
                "processes; raise batch_size or lower accumulation"
            )


def several() -> bool:
    """Say whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@functools.cache
def group() -> Group:
    """Return the group that this process belongs to, by the environment that `accelerate launch` or `torchrun` set.

    Raises:
        UsageError: If it asks for what is not supported.
    """
    if not several():
        return Group()
    sharded = _flag("ACCELERATE_USE_FSDP")
    if _flag("ACCELERATE_USE_DEEPSPEED"):
        raise _said_once("DeepSpeed is not supported; launch with --use_fsdp --fsdp_version 2, or for DDP with neither")
    if sharded and os.environ.get("FSDP_VERSION", "1") != "2":
        raise _said_once("FSDP 1 is not supported; launch with --fsdp_version 2")
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        raise _said_once("the precision is a key of the recipe; launch with --mixed_precision no")
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # transformers would load empty models beside the first process
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Group(state.process_index, state.num_processes, sharded)


def refuse_group(what: str) -> None:
    """Refuse to be one of several processes.

    Raises:
        UsageError: If this is one.
    """
    if several():
        raise _said_once(f"{what} runs in one process; start it without accelerate launch")


def refuse_shards(what: str) -> None:
    """Refuse to be sharded.

    Raises:
        UsageError: If the launch asks for FSDP.
    """
    if several() and _flag("ACCELERATE_USE_FSDP"):
        raise _said_once(f"{what} is not sharded; launch it without --use_fsdp (DDP)")


def _said_once(message: str) -> BaseException:
    """Return what a process raises that has not met the others yet."""
    return UsageError(message) if os.environ.get("RANK", "0") == "0" else SystemExit(UsageError.exit_code)


# ---- what all do or none --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def agreed() -> Generator[None, None, None]:
    """End all processes where one meets a user's mistake; the first one alone says what it is."""
    error: WarmkitError | None = None
    try:
        yield
    except WarmkitError as caught:
        error = caught
    error = next((each for each in from_all(error) if each is not None), None)
    if error is not None:
        raise said_once(error) from None


def said_once(error: WarmkitError) -> BaseException:
    """Return what this process raises for an error that all of them meet."""
    return error if group().first else SystemExit(error.exit_code)


def leave() -> None:
    """Part from the other processes once all are done."""
    if group().size > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


# ---- gradients and numbers ------------------------------------------------------------------------------------------


def summed(values: dict[str, float]) -> dict[str, float]:
    """Add numbers up over the processes."""
    if group().size == 1:
        return values
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=_device())
    torch.distributed.all_reduce(numbers)
    return dict(zip(values, numbers.tolist()))


def from_all(value: T) -> list[T]:
    """Return what every process has in this place, in the order of the processes."""
    if group().size == 1:
        return [value]
    values: list[Any] = [None] * group().size
    torch.distributed.all_gather_object(values, value)
    return values


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of whole parameters up over the processes; those of shards, FSDP has added up.

    A parameter that no process used keeps no gradient, as in one process.
    """
    if group().size == 1 or group().sharded:
        return
    whole = list(parameters)
    used = torch.tensor([each.grad is not None for each in whole], dtype=torch.int32, device=_device())
    torch.distributed.all_reduce(used)
    gradients: list[torch.Tensor] = []
    for parameter, count in zip(whole, used.tolist()):
        if count:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([each.flatten() for each in bucket])
        torch.distributed.all_reduce(flat)
        for gradient, total in zip(bucket, flat.split([each.numel() for each in bucket])):
            gradient.copy_(total.view_as(gradient))


def _buckets(gradients: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Divide gradients into lists of one type and a bounded size."""
    buckets: list[list[torch.Tensor]] = []
    filled = BUCKET
    for each in gradients:
        filled += each.numel()
        if filled > BUCKET or buckets[-1][0].dtype != each.dtype:
            buckets.append([])
            filled = each.numel()
        buckets[-1].append(each)
    return buckets


# ---- shards ---------------------------------------------------------------------------------------------------------


def shard(model: Any, how: Optimization, section: str, lora: LoraSection | None) -> None:
    """Shard a model over the processes, layer by layer, where the launch asks for FSDP; on a GPU each if there are.

    Args:
        model: A transformers model in the memory of the CPU.
        how: It will learn.
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
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(_device().type, (group().size,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.register_forward_hook(_reshard)


def _reshard(model: Any, *_: Any) -> None:
    """Give up what a forward pass without a backward one has put together: who looks at the parameters then sees shards."""
    if not torch.is_grad_enabled():
        model.reshard()


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


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")

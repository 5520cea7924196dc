"""One run on several devices: what the processes of `accelerate launch` share, and how they become one.

The batch is the recipe's, whatever the number of processes: each takes every n-th example of a part, weighs its mean by what
it counts, and the gradients are summed. So n processes compute what one does, rounding (and the draw of dropout) aside.

DDP: every process has the whole model; gradients are summed here.
FSDP2: weights, gradients and optimiser are sharded layer by layer (`training.sharding`).

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

from warmkit.errors import UsageError, WarmkitError

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

    def check_parts(self, parts: Sequence[Sequence[int]], section: str, each: int = 1) -> None:
        """Refuse a batch of which a process would get less than `each` of a part.

        Raises:
            UsageError: If a part has fewer examples than there are processes.
        """
        if (smallest := min(map(len, parts))) < self.size * each:
            raise UsageError(
                f"{section}.batch_size in {len(parts) * each} parts (accumulation) leaves {smallest // each} examples for "
                f"{self.size} processes; raise batch_size or lower accumulation"
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
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=device())
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
    used = torch.tensor([each.grad is not None for each in whole], dtype=torch.int32, device=device())
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


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")

"""Factors of experts, taken back out of a model under the names and in the order that peft has for `target_parameters`.

Every expert of a layer gets factors of one rank: lora_A [E r, a] holds one expert after another, and columns e, E + e, ... of
lora_B [b, r E] are those of expert e. Where ranks follow the energy, the largest of the layer is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import UnsupportedError, UsageError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import Tensor
from warmkit.layouts.adapter_experts import BLOCKS, MATRICES, Stack, stacks_of
from warmkit.layouts.adapter_names import bare
from warmkit.layouts.memory_names import empty_model
from warmkit.layouts.orientation import governing_type
from warmkit.layouts.views import StrungTensor
from warmkit.verbs.extraction import ModuleLoss

Difference: TypeAlias = Callable[[Tensor, Tensor], NDArray[Any]]
Factor: TypeAlias = "Callable[[str, NDArray[Any]], tuple[ModuleLoss, NDArray[Any], NDArray[Any]]]"


@dataclass(frozen=True)
class Experts:
    """A parameter that holds the experts of a layer in memory.

    Attributes:
        container: The module that holds it.
        name: Its name there.
        file_name: What peft's file calls its module: of several on one module the last is outermost.
        tensors: For every expert the names on disk of its matrices, one on top of the other; of one tensor, that name.
        fused: Whether all experts are one tensor on disk.
        turned: Whether an expert on disk is the transposed of what peft decomposes.
    """

    container: str
    name: str
    file_name: str
    tensors: tuple[tuple[str, ...], ...]
    fused: bool
    turned: bool

    def __str__(self) -> str:
        return f"{self.container}.{self.name}"

    def factors(
        self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], difference: Difference, factor: Factor
    ) -> tuple[ModuleLoss, NDArray[Any], NDArray[Any]]:
        """Return the loss, lora_A and lora_B.

        Args:
            before: The base's tensors.
            after: The model's.
            difference: Returns that of two tensors, read whole.
            factor: Decomposes the difference of one expert.
        """
        found = [
            factor(str(self), each.T if self.turned else each)
            for number, names in enumerate(self.tensors)
            for each in [np.concatenate([difference(*self._pair(before, after, name, number)) for name in names])]
        ]
        losses, rank = [loss for loss, _, _ in found], max(loss.rank for loss, _, _ in found)
        a = np.concatenate([np.pad(each, ((0, rank - len(each)), (0, 0))) for _, each, _ in found])
        b = np.stack([np.pad(each, ((0, 0), (0, rank - each.shape[1]))) for _, _, each in found], axis=2)
        norm, loss = sum(each.squared_norm for each in losses), sum(each.squared_loss for each in losses)
        return ModuleLoss(str(self), rank, norm, loss, all(each.exact for each in losses)), a, b.reshape(len(b), -1)

    def _pair(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], name: str, number: int) -> tuple[Tensor, Tensor]:
        if self.fused:
            return _matrix(before[name], number), _matrix(after[name], number)
        return before[name], after[name]


def _matrix(stack: Tensor, number: int) -> Tensor:
    """Return one of the matrices that lie in a tensor one after another."""
    size = math.prod(stack.shape[1:])
    return StrungTensor(stack.name, stack.shape[1:], (0,), ((stack, number * size),))


def find_experts(base: Checkpoint) -> list[Experts]:
    """Find the experts of a model; transformers says how they lie in memory.

    Raises:
        UsageError: If it has none.
        UnsupportedError: If the base stores them in a way that is not known.
    """
    stacks = {bare(place, BLOCKS): stack for place, stack in stacks_of(base.entries).items()}
    found = list[Experts]()
    for container, module in empty_model(base).named_modules():
        held = [(name, tuple(each.shape[1:])) for name, each in module.named_parameters(recurse=False) if name in MATRICES]
        stack = stacks.get(bare(container, BLOCKS), Stack({}, {}))
        straight = not getattr(module, "is_transposed", False)  # as peft asks
        for outer, (name, shape) in enumerate(reversed(held)):
            tensors, on_disk = _tensors(base, stack, f"{container}.{name}", name)
            fused = len(tensors[0]) == 1 and tensors[0] == tensors[-1]
            alike = on_disk == shape
            doubtful = fused and shape[0] == shape[1] and str(governing_type(base.config, container)).startswith("qwen3_vl_moe")
            if doubtful or on_disk not in (shape, shape[::-1]):
                raise _unknown(base, f"{container}.{name}")
            file_name = f"{container}{'.base_layer' * outer}"
            found.append(Experts(container, name, file_name, tensors, fused, alike is not straight))
    if not found:
        raise UsageError(f"{base.source}: has no experts as transformers holds them; leave --experts out")
    return found


def _tensors(base: Checkpoint, stack: Stack, named: str, name: str) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    """Return the names on disk of a parameter's tensors, for each expert, and the shape of one there."""
    if fused := stack.fused.get(name):
        return ((fused.name,),) * fused.shape[0], fused.shape[1:]
    names = next((names for names in MATRICES[name] if {*names} <= stack.single.keys()), None)
    matrices = [stack.single[each] for each in names or ()]
    if not matrices or any(sorted(each) != list(range(len(matrices[0]))) for each in matrices):
        raise _unknown(base, named)
    tensors = tuple(tuple(each[number].name for each in matrices) for number in range(len(matrices[0])))
    return tensors, (sum(each[0].shape[0] for each in matrices), matrices[0][0].shape[1])


def _unknown(base: Checkpoint, named: str) -> UnsupportedError:
    return UnsupportedError(f"{base.source}: stores {named!r} in a way that is not known here; leave --experts out")


def check_targets(base: Checkpoint, experts: Sequence[Experts], modules: Iterable[str]) -> None:
    """Refuse modules that peft would take for experts: it reads these names of transformers 4 as such where experts are fused.

    Raises:
        UnsupportedError: Naming one, and what to do.
    """
    old = {name for names in MATRICES.values() for each in names for name in each}
    taken = next((name for name in modules if name.rpartition(".")[2] in old), None)
    if taken and not all(each.fused for each in experts):
        raise UnsupportedError(
            f"{base.source}: peft takes {taken!r} in target_modules for the experts' own; name other modules with "
            "--targets beside --experts, or leave --experts out"
        )

"""The anchor of the KL: what the policy is kept close to."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from warmkit.errors import TrainingError
from warmkit.modeling.batching import Reading, reading_of
from warmkit.modeling.plain_llama import PlainLlama, plain_llama
from warmkit.modeling.quiet import evaluating
from warmkit.training.distributed import group
from warmkit.training.lora import adapted_layers, product
from warmkit.training.sharding import shard, spread, whole

Kind = Literal["ema", "init"]


class Anchor:
    """A model that shares what is frozen with the policy, and has float32 copies of what learns.

    `ema`:   theta_ema <- (1 - mu) theta_ema + mu theta   after every step, theta_ema = theta_init at first
    `init`:  theta_init, always

    Copies of lower precision would stand still: mu times an update is below the rounding of bfloat16.

    Args:
        model: The policy, as it is now.
        kind: Whether the copies follow it.
        mu: Share of the policy after an update, between 0 (`init`) and 1 (the policy itself).

    Source: WARP (Ramé et al., 2024), section 3.1, equation (EMA), and algorithm 1, line 9.
    """

    def __init__(self, model: Any, kind: Kind, mu: float = 0.0) -> None:
        self.model, self.mu = model, mu if kind == "ema" else 0.0
        self.copies = self._copied()

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: each.detach().float().clone() for name, each in learned(self.model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the policy by one step."""
        if self.mu:
            follow(self.copies, learned(self.model), self.mu)

    @torch.no_grad()
    def __call__(self, **inputs: Any) -> Any:
        """Run the model with the copies in place of what learns, without dropout or gradients."""
        with evaluating(self.model):
            return functional_call(self.model, self.copies, args=(), kwargs=inputs)

    @property
    def reading(self) -> Reading:
        """How it reads a batch: as the policy."""
        return reading_of(self.model)

    def plain_llama(self, length: int) -> PlainLlama | None:
        """Return the same without what a call costs, where there is such a thing."""
        return plain_llama(self.model, length, self.copies)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the copies, whole; every process must call it."""
        return whole(self.copies)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from the copies of a killed run.

        Raises:
            KeyError: If they are those of another model.
            TrainingError: If an older version kept another average.
        """
        for name, each in self.copies.items():
            each.copy_(spread(state[name], each))


class AdaptedAnchor(Anchor):
    """A moving average of adapted matrices: of the products W + s B A that adapters stand for, not of their factors.

    The product of averaged factors is another matrix than the average of products: B A is no linear function of (B, A), and its
    scale falls where both factors move. So each adapted matrix has a dense float32 copy of what the average adds to it, as much
    memory as the matrix itself; W + that is made for one layer at a time.

    Args:
        model: The policy, under adapters of peft.
        mu: As for an anchor.
    """

    def __init__(self, model: Any, mu: float) -> None:
        self.layers = adapted_layers(model)
        assert all(name.rpartition(".lora_")[0] in self.layers for name in learned(model)), "adapters learn alone"
        super().__init__(model, "ema", mu)

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: product(layer) for name, layer in self.layers.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the policy by one step."""
        if self.mu:
            for name, layer in self.layers.items():
                self.copies[name].lerp_(product(layer), self.mu)

    @torch.no_grad()
    def __call__(self, **inputs: Any) -> Any:
        """Run the model with the averages in place of its adapters, without dropout or gradients."""
        try:
            for name, layer in self.layers.items():
                layer.forward = functools.partial(averaged, layer.get_base_layer(), self.copies[name])
            with evaluating(self.model):
                return self.model(**inputs)
        finally:
            for layer in self.layers.values():
                del layer.forward

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        if any(".lora_" in name for name in state):
            raise TrainingError(
                "an older warmkit began this run, whose anchor under lora averaged the factors of adapters; now it "
                "averages the matrices that they stand for, another average, so the run cannot go on as it began. Start again: "
                "choose another output.path, or delete the run"
            )
        super().load_state_dict(state)


def averaged(base: Any, added: torch.Tensor, *inputs: Any, **more: Any) -> Any:
    """Run a layer with what an average adds to its weight, W + added."""
    return functional_call(base, {"weight": base.weight + added.to(base.weight.dtype)}, inputs, more)


class ShardedAnchor(Anchor):
    """An anchor in shards: a model of its own, since FSDP runs no model with other weights in place of its own.

    Args:
        model: The policy, before it is sharded.
        kind: As for an anchor.
        mu: As for an anchor.
    """

    def __init__(self, model: Any, kind: Kind, mu: float = 0.0) -> None:
        self.twin = copy.deepcopy(model).requires_grad_(False)
        shard(self.twin)
        super().__init__(model, kind, mu)

    def _copied(self) -> dict[str, torch.Tensor]:
        names = learned(self.model)
        return {name: each for name, each in self.twin.named_parameters() if name in names}

    @torch.no_grad()
    def __call__(self, **inputs: Any) -> Any:
        """Run the twin, without dropout or gradients."""
        with evaluating(self.twin):
            return self.twin(**inputs)


def anchor_of(model: Any, kind: Kind, mu: float = 0.0) -> Anchor:
    """Return the anchor of a policy that is not sharded yet; it is where the policy is going to be."""
    if kind == "ema" and adapted_layers(model):
        return AdaptedAnchor(model, mu)  # shards and adapters do not meet
    return (ShardedAnchor if group().sharded else Anchor)(model, kind, mu)


def learned(model: Any) -> dict[str, torch.Tensor]:
    """Return the parameters of a model that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def follow(copies: Mapping[str, torch.Tensor], policy: Mapping[str, torch.Tensor], mu: float) -> None:
    """Move float32 copies by one step: theta_ema <- (1 - mu) theta_ema + mu theta; of shards each process moves its own."""
    for name, parameter in policy.items():
        _own(copies[name]).lerp_(_own(parameter).float(), mu)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's share of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

"""The anchor of the KL: what the policy is kept close to."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.func import functional_call

from warmkit.modeling.quiet import evaluating

Kind = Literal["ema", "init"]


class Anchor:
    """A model that shares what is frozen with the policy, and has float32 copies of what learns (adapters alone under LoRA).

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
        self.copies = {name: each.detach().float().clone() for name, each in _learned(model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the policy by one step."""
        if self.mu:
            for name, parameter in _learned(self.model).items():
                self.copies[name].lerp_(parameter.float(), self.mu)

    @torch.no_grad()
    def __call__(self, **inputs: Any) -> Any:
        """Run the model with the copies in place of what learns, without dropout or gradients."""
        with evaluating(self.model):
            return functional_call(self.model, self.copies, args=(), kwargs=inputs)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.copies

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for name, copy in self.copies.items():
            copy.copy_(state[name])


def _learned(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

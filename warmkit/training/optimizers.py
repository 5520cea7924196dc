"""The papers' optimiser, AdamW, and how the learning rate moves."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from warmkit.errors import UsageError
from warmkit.training.recipe_sections import Optimization


def build_optimizer(model: nn.Module, how: Optimization) -> torch.optim.Optimizer:
    """Return the optimiser of the parameters that learn.

    Adafactor (Shazeer & Stern, 2018) runs as in the papers: an external rate, no scaling by the size of the parameters.
    Weight decay spares vectors (norms, biases).
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in learned if each.dim() > 1], "weight_decay": how.weight_decay},
        {"params": [each for each in learned if each.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if how.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=how.lr, scale_parameter=False, relative_step=False)
    return torch.optim.AdamW(groups, lr=how.lr, betas=(how.beta1, how.beta2), eps=how.epsilon, fused=True)


def check_warmup(how: Optimization, steps: int, section: str, before: int = 0) -> None:
    """Refuse a warm-up that outlasts the run: the rate would never reach `lr`.

    Args:
        how: How the model learns.
        steps: Of the run.
        section: Of the recipe, for the message.
        before: Steps at the start in which the model does not learn at all (`value.warmup`).

    Raises:
        UsageError: If the run is shorter.
    """
    if before and before >= steps:
        raise UsageError(f"value.warmup {before}: the policy would learn nothing in a run of {steps} steps; lower it")
    if how.warmup > steps - before:
        left = f"{steps} steps" if not before else f"{steps} steps of which value.warmup takes {before}"
        raise UsageError(
            f"{section}.warmup {how.warmup}: the rate would never reach {section}.lr in a run of {left}; "
            f"set {section}.warmup lower (0 for none)"
        )


def rate(how: Optimization, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0: a linear warm-up, then the schedule.

    Examples:
        >>> how = Optimization(lr=1.0, steps=10, warmup=2, schedule="linear")
        >>> [round(rate(how, step, 10), 3) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.125]
    """
    if step < how.warmup:
        return how.lr * (step + 1) / how.warmup
    if how.schedule == "constant":
        return how.lr
    left = (steps - step) / max(1, steps - how.warmup)
    return how.lr * (left if how.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))

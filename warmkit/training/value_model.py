"""The learned baseline: what reward a prompt can expect."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from warmkit.modeling.precision import autocast
from warmkit.modeling.reward_model import RewardModel
from warmkit.modeling.tokens import Tokens
from warmkit.training.optimizers import build_optimizer
from warmkit.training.policy_recipe import PolicySection, ValueSection
from warmkit.training.sharding import clip_gradients, load_states, whole


class ValueModel:
    """v(x), trained to min_v mean (v(x) - r_beta(x, y))^2 on its own copy of the policy's init, with a scalar head.

    Args:
        model: A reward model that reads the prompt alone; its head starts at zero.
        policy: How the policy learns: optimiser, clipping, parts of a batch and precision are the same.
        section: Its own rate.

    Source: WARM (Ramé et al., 2024), section 5 and appendix C.4.
    """

    def __init__(self, model: RewardModel, policy: PolicySection, section: ValueSection) -> None:
        self.model, self.clip, self.warmup = model, policy.clip or math.inf, section.warmup
        self.parts, self.precision = policy.accumulation, policy.precision
        self.optimizer = build_optimizer(model.model, replace(policy, lr=section.lr))

    def predict(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return v(x), [B], without gradients, on the CPU."""
        with self._precision():
            return torch.cat([self.model.score_tokens(_tokens(prompts[part])) for part in self._split(len(prompts))])

    def learn(self, prompts: Sequence[Sequence[int]], rewards: torch.Tensor) -> dict[str, float]:
        """Take one step towards the rewards [B, K] of the prompts' completions; return numbers to log."""
        total = 0.0
        for part in self._split(len(prompts)):
            with self._precision():
                values = self.model.forward(_tokens(prompts[part]))
            loss = (values[:, None] - rewards[part].to(values.device)).square().sum() / rewards.numel()
            loss.backward()
            total += float(loss.detach())
        learned = [each for each in self.model.model.parameters() if each.requires_grad]
        norm = clip_gradients(learned, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"value_loss": total, "value_grad_norm": norm}

    def _split(self, prompts: int) -> list[slice]:
        """Divide a batch of prompts into the parts that it is computed in."""
        edges = [prompts * part // min(self.parts, prompts) for part in range(min(self.parts, prompts) + 1)]
        return [slice(*each) for each in itertools.pairwise(edges)]

    def _precision(self) -> torch.autocast:
        return autocast(self.precision, self.model.device)

    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimiser, whole; every process must call it."""
        return {"model": whole(self.model.model.state_dict()), "optimizer": whole(self.optimizer.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_states(self.model.model, self.optimizer, state)


def _tokens(prompts: Sequence[Sequence[int]]) -> list[Tokens]:
    return [Tokens(list(ids), len(ids)) for ids in prompts]

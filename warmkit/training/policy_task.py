"""The policy with all that judges it: prompts, rewards, anchor, SFT model, value model."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from warmkit.data.prompts import Prompt
from warmkit.modeling.quiet import evaluating
from warmkit.modeling.saving import save_model
from warmkit.modeling.tokens import Encoder
from warmkit.training.adapters import merged
from warmkit.training.anchor import Anchor
from warmkit.training.generation import Completion, Sampling, sample
from warmkit.training.policy_recipe import PolicySection
from warmkit.training.rewards import Term, weighted_sum
from warmkit.training.rollouts import Model, measure
from warmkit.training.run import RunDirectory
from warmkit.training.value_model import ValueModel


@dataclass(frozen=True)
class Prompts:
    """Prompts and their tokens."""

    prompts: list[Prompt]
    ids: list[list[int]]
    truncated: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Rollout:
    """Completions, each beside its prompt, and what they are worth.

    Attributes:
        prompts: Token ids, [N].
        completions: [N].
        rewards: The sum that is learned from, without the KL, [N], on the CPU.
        scores: Every term alone, and the controls, [N] each, by the name in the metrics.
    """

    prompts: list[list[int]]
    completions: list[Completion]
    rewards: torch.Tensor
    scores: dict[str, torch.Tensor]


@dataclass
class PolicyTask:
    """What the loop of `training.policy` works with."""

    model: Any
    encoder: Encoder
    path: str
    how: PolicySection
    sampling: Sampling
    data: dict[str, Prompts]
    rewards: list[Term]
    controls: list[Term]
    anchor: Anchor | None
    init: Model
    value: ValueModel | None = None
    others: dict[str, Model] = field(init=False)

    def __post_init__(self) -> None:
        self.others = {"init": self.init} if self.anchor in (None, self.init) else {"init": self.init, "anchor": self.anchor}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def roll_out(self, data: Prompts, rows: Sequence[int], samples: int, seed: str) -> Rollout:
        """Sample completions of some prompts and score them."""
        generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
        how = replace(self.sampling, samples=samples, generator=generator)
        with self._precision():
            completions = sample(self.model, [data.ids[row] for row in rows], how)
        copies = [row for row in rows for _ in range(samples)]
        prompts, texts = [data.prompts[row] for row in copies], self._texts(completions)
        scores = {f"reward_{term.label}": term(prompts, texts) for term in self.rewards}
        controls = {f"control_{term.label}": term(prompts, texts) for term in self.controls}
        rewards = weighted_sum(self.rewards, list(scores.values())) - self._penalties(completions)
        return Rollout([data.ids[row] for row in copies], completions, rewards, scores | controls)

    def measure(self, rollout: Rollout, part: slice, others: Mapping[str, Model]) -> dict[str, torch.Tensor]:
        """Return what policy and others say about a part of a rollout; see `rollouts.measure`."""
        with self._precision():
            return measure(self.model, others, rollout.prompts[part], rollout.completions[part], self.sampling, self.device)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return numbers about one completion of every validation prompt; the random numbers are the same every time."""
        if "validation" not in self.data:
            return {}
        prompts = self.data["validation"]
        rollout = self.roll_out(prompts, range(len(prompts)), 1, f"{self.how.seed} evaluation")
        with evaluating(self.model):
            size = self.sampling.rows
            parts = [
                self.measure(rollout, slice(start, start + size), {"init": self.init}) for start in range(0, len(prompts), size)
            ]
        measured = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {f"validation_{name}": value for name, value in numbers(rollout, measured).items()}

    def save(self, run: RunDirectory, name: str) -> None:
        """Write the policy as a plain model, adapters merged."""
        model = merged(copy.deepcopy(self.model)) if hasattr(self.model, "merge_and_unload") else self.model
        save_model(model, self.path, run.path / name)

    def _texts(self, completions: Sequence[Completion]) -> list[str]:
        ids = [each.ids[:-1] if each.ended else each.ids for each in completions]
        return self.encoder.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def _penalties(self, completions: Sequence[Completion]) -> torch.Tensor:
        lengths = torch.tensor([float(len(each.ids)) for each in completions])
        endless = torch.tensor([float(not each.ended) for each in completions])
        return self.how.length_penalty * lengths + self.how.eos_penalty * endless

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.how.precision == "bfloat16")


def numbers(rollout: Rollout, measured: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return the metrics of a rollout: means over completions; the entropy over tokens."""
    lengths = [len(each.ids) for each in rollout.completions]
    values = {"reward": float(rollout.rewards.mean())}
    if len(lengths) > 1:
        same = bool((rollout.rewards == rollout.rewards[0]).all())
        values["reward_std"] = 0.0 if same else float(rollout.rewards.std())
    values |= {name: float(scores.mean()) for name, scores in rollout.scores.items()}
    for name in (name for name in ("anchor", "init") if name in measured):
        values[f"kl_{name}"] = float(measured[f"kl_{name}"].mean())
        values[f"kl_{name}_sampled"] = float((measured["policy"].detach() - measured[name]).mean())
    return {
        **values,
        "entropy": float(measured["entropy"].sum()) / sum(lengths),
        "length": sum(lengths) / len(lengths),
        "without_eos": sum(not each.ended for each in rollout.completions) / len(lengths),
    }

"""The policy with all that it learns from: prompts, rewards, anchor, SFT model, value model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from warmkit.common.random_streams import generator
from warmkit.evaluation.policy_evaluator import PolicyEvaluator, Prompts, Rollout
from warmkit.modeling.generation_config import saved_ends
from warmkit.modeling.rollouts import Model
from warmkit.modeling.saving import save_model
from warmkit.training.anchor import Anchor
from warmkit.training.distributed import group
from warmkit.training.lora import merged
from warmkit.training.policy_recipe import PolicySection
from warmkit.training.run import RunDirectory
from warmkit.training.sharding import gathered, whole_weights
from warmkit.training.value_model import ValueModel


@dataclass
class PolicyTask:
    """What the loop of `training.policy` works with.

    Attributes:
        evaluator: The policy and its rewards.
        path: The checkpoint that it started from.
        how: The recipe's `policy:`.
        data: Prompts, `train` and perhaps `validation`.
        anchor: What the KL in the reward is to.
        sft: What the KL is reported to.
        value: The learned baseline.
        others: Anchor and SFT model by name, each once.
    """

    evaluator: PolicyEvaluator
    path: str
    how: PolicySection
    data: dict[str, Prompts]
    anchor: Anchor | None
    sft: Model
    value: ValueModel | None = None
    others: dict[str, Model] = field(init=False)
    section = "policy"

    def __post_init__(self) -> None:
        self.others = {"sft": self.sft} if self.anchor in (None, self.sft) else {"sft": self.sft, "anchor": self.anchor}
        self.model, self.examples = self.evaluator.model, len(self.data["train"])

    @property
    def device(self) -> torch.device:
        return self.evaluator.device

    def roll_out(self, rows: Sequence[int], step: int, before: int = 0) -> Rollout:
        """Sample completions of training prompts and score them; `before` are the batch's prompts of earlier processes."""
        draw = generator("policy rollouts", self.how.seed, step)
        return self.evaluator.roll_out(self.data["train"], rows, self.how.samples, draw, before)

    def evaluate(self) -> dict[str, float]:
        """Return numbers about one completion of every validation prompt; the random numbers are the same every time."""
        if "validation" not in self.data:
            return {}
        draw = generator("validation samples", self.how.seed)
        with gathered(self.model):
            answers = self.evaluator.evaluate(self.data["validation"], 1, draw, {"sft": self.sft})
        return {f"validation_{name}": value for name, value in answers.means().items()}

    def save(self, run: RunDirectory, name: str) -> None:
        """Write the policy as a plain model, adapters merged; every process calls it."""
        weights = whole_weights(self.model)
        if group().first:
            model = merged(copy.deepcopy(self.model)) if hasattr(self.model, "merge_and_unload") else self.model
            ends = saved_ends(model, self.evaluator.sampling.ends)
            save_model(model, self.path, run.path / name, weights=weights, generation=ends)

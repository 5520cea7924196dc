"""Judge of the testbed's policies: proxy reward, gold reward, and how far one is from the SFT model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from warmkit.evaluation.answers import Answers
from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evidence.testbed.bed import Testbed
from warmkit.training.policy import PolicyResult
from warmkit.verbs.merger import Merger

COUNTS = ("relevant_words", "hype_words", "cue_words", "function_words")
Numbers = dict[str, float]
Weights = Mapping[str, torch.Tensor]


class Judge:
    """Evaluates policies on the held-out prompts, every one with the same random numbers.

    Args:
        bed: The testbed.
        proxy: What policies learned from; its mean is reported as `proxy`, 0 at the SFT model.
        others: Rewards that are reported beside it, as they are, by their names.
    """

    def __init__(self, bed: Testbed, proxy: RewardTerm, others: Sequence[RewardTerm] = (), **settings: Any) -> None:
        self._others = others
        trial = PolicyTrial(
            EvaluationSettings(
                bed.held_out_prompts,
                [proxy],
                [oracle(bed.oracle, name="gold"), *(oracle(name) for name in COUNTS), *others],
                sft=str(bed.sft),
                samples=bed.settings.evaluated,
                temperature=1.0,
                max_new_tokens=bed.longest,
                banned=bed.unspoken,
                batch_size=1024,
                **settings,
            )
        )
        self.candidate = trial.open(str(bed.sft))
        self._zero = 0.0
        self.sft = self.measure(load_file(bed.sft / "model.safetensors"))
        self._zero, self.sft = self.sft["proxy"], {**self.sft, "proxy": 0.0}

    def measure(self, weights: Weights) -> Numbers:
        """Return means over completions: `proxy`, `gold`, `kl`, `entropy`, `length` and counts of words."""
        self.candidate.load_weights(weights)
        return self.numbers(self.candidate.answers())

    def numbers(self, answers: Answers) -> Numbers:
        """Return what `measure` reports of a policy's answers."""
        means = answers.means()
        return {
            "proxy": means["reward"] - self._zero,
            "gold": means["control_gold"],
            "kl": means["kl_sft"],
            "entropy": means["entropy"],
            "length": means["length"],
            **{name: means[f"control_{name}"] for name in (*COUNTS, *(each.label for each in self._others))},
        }

    def trajectory(self, run: PolicyResult) -> list[Numbers]:
        """Evaluate the SFT model and the policies kept on the way, with their `at`, the step."""
        kept = [
            {"at": float(step), **self.measure(load_file(path / "model.safetensors"))}
            for step, path in sorted(run.kept.items())
        ]
        return [{"at": 0.0, **self.sft}, *kept]

    def sweep(
        self, models: Sequence[Path], etas: Sequence[float], init: Path, method: str = "slerp", **how: Any
    ) -> list[Numbers]:
        """Evaluate LITI from an init to the merge of models, and beyond, with `at`, the eta."""
        merger = Merger([str(each) for each in models], init=str(init), method=method, threads=1, **how)
        return [{"at": eta, **self.measure(merger.state_dict(eta=eta))} for eta in etas]

    def slide(self, models: Sequence[Path], lambdas: Sequence[float], init: Path, method: str) -> list[Numbers]:
        """Evaluate the line (or arc) from one model to another, with `at`, the lambda."""
        merger = Merger([str(each) for each in models], init=str(init), method=method, threads=1)
        return [{"at": share, **self.measure(merger.state_dict(lambda_=share))} for share in lambdas]


def oracle(function: str, **how: Any) -> RewardTerm:
    """Return a function of `testbed.oracle` as a reward."""
    return RewardTerm(function=f"warmkit.evidence.testbed.oracle:{function}", **how)

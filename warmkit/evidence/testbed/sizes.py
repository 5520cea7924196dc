"""Sizes of a testbed: its models, its data, and the runs that all claims share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from warmkit.training.recipe_sections import number_in

Size = Literal["nano", "small", "large"]
SIZES: tuple[Size, ...] = ("nano", "small", "large")


@dataclass(frozen=True)
class PretrainingSection:
    """`pretraining:`, of the SFT model.

    Attributes:
        steps: Updates.
        batch_size: Texts in an update.
        lr: Learning rate at its highest.
        width: Of the hidden states.
        layers: Of the decoder.
        heads: Of the attention.
        spread: Deviation of the initial weights; by default 0.02, with which models of this width learn nothing about the tags
            for a thousand steps.
    """

    steps: int = number_in(1, default=2500)
    batch_size: int = number_in(1, default=64)
    lr: float = number_in(0, default=3e-3)
    width: int = number_in(8, default=64)
    layers: int = number_in(1, default=2)
    heads: int = number_in(1, default=4)
    spread: float | None = number_in(0, default=None)


@dataclass(frozen=True)
class RewardModelsSection:
    """`reward_models:`, the runs of WARM: a grid of rates and of inits along the SFT trajectory, each with its own data order.

    Attributes:
        pairs: Preferences to learn from.
        held_out: Preferences of the validation set, and of the one out of distribution.
        corrupt: Share of the training pairs whose labels are swapped.
        lr: Rates of the grid.
        steps: Of a run.
        batch_size: Pairs in an update.
    """

    pairs: int = number_in(1, default=4000)
    held_out: int = number_in(1, default=2000)
    corrupt: float = number_in(0, 1, default=0.25)
    lr: list[float] = field(default_factory=lambda: [1.5e-3, 1.05e-3, 2.1e-3])
    steps: int = number_in(1, default=200)
    batch_size: int = number_in(1, default=8)


@dataclass(frozen=True)
class PoliciesSection:
    """`warm_policies:` and `warp_policies:`, what runs of RL have in common unless a claim says otherwise.

    Attributes:
        steps: Of a run, T.
        batch_size: Prompts in an update.
        samples: Completions of every prompt.
        lr: Learning rate.
        warmup: Steps in which the rate rises from 0.
        anchor: Of the KL.
        beta: Weight of the KL.
        mu: Share of the policy in the moving average after every step.
        watched: Points of a trajectory of T steps that are evaluated, denser at its start.
    """

    steps: int = number_in(1, default=300)
    batch_size: int = number_in(1, default=16)
    samples: int = number_in(2, default=4)
    lr: float = number_in(0, default=3e-4)
    warmup: int = number_in(0, default=0)
    anchor: Literal["ema", "init", "none"] = "init"
    beta: float = number_in(0, default=0.01)
    mu: float = number_in(0, 1, default=0.05)
    watched: int = number_in(1, default=12)

    def steps_to_watch(self, runs: int = 1) -> list[int]:
        """Return the steps of a run of `runs` T that are evaluated: denser at the start, where the policy moves fastest."""
        early = {max(1, round(self.steps * (place / self.watched) ** 1.7)) for place in range(1, self.watched + 1)}
        return sorted(early | {self.steps * half // 2 for half in range(2, 2 * runs + 1)})


@dataclass(frozen=True)
class TestbedSettings:
    """One size of the testbed.

    Attributes:
        pretraining: Of the SFT model.
        reward_models: Of WARM.
        warm_policies: RL towards the reward models of WARM.
        warp_policies: RL of the policies that WARP merges.
        evaluated: Completions of each of 16 held-out prompts in an evaluation.
    """

    __test__ = False  # pytest

    pretraining: PretrainingSection = PretrainingSection()
    reward_models: RewardModelsSection = RewardModelsSection()
    warm_policies: PoliciesSection = PoliciesSection()
    warp_policies: PoliciesSection = PoliciesSection(batch_size=4, samples=2, lr=1e-3, anchor="ema", beta=1.0)
    evaluated: int = number_in(1, default=128)


@dataclass(frozen=True)
class TestbedRecipe:
    """`recipes/reproduce/testbed.yaml`."""

    __test__ = False

    nano: TestbedSettings
    small: TestbedSettings = TestbedSettings()
    large: TestbedSettings = TestbedSettings()

"""Recipe of `warmkit warp`: one policy's recipe, and how many, how often, and how they are merged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from warmkit.errors import UsageError
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.training.policy_recipe import PolicyModelSection, PolicySection, PromptsSection, ValueSection
from warmkit.training.recipe_sections import Executor, LoraSection, RunOutput, number_in


@dataclass(frozen=True)
class Variation:
    """One of `warp.vary:`, what a run has in place of the recipe's own.

    Attributes:
        lr: In place of `policy.lr`.
        beta: In place of `policy.beta`.
        mu: In place of `policy.mu`.
        rewards: In place of `rewards:` (rewarded soups: each run learns from another).
    """

    lr: float | None = number_in(0, default=None)
    beta: float | None = number_in(0, default=None)
    mu: float | None = number_in(0, 1, default=None)
    rewards: list[RewardTerm] | None = None


@dataclass(frozen=True)
class IterationsSection:
    """Iterations, runs, and how they are merged.

    Attributes:
        iterations: I; each starts from the result of the one before.
        runs: M policies an iteration, each with its own order of the prompts.
        policies: Finished policies in place of the first iteration's runs.
        method: How the policies are merged.
        granularity: The parameters that share one angle.
        eta: LITI: share of the merge in the next iteration's init.
        final_eta: Share of the last merge in the final model, the rest being the SFT model.
        etas: Places on the fronts, from the iteration's init to the merge, and at the end from the SFT model; none to evaluate
            nothing.
        grid: Steps of a grid over the shares of the last iteration's policies: the front of rewarded soups.
        samples: Completions of every validation prompt in these evaluations.
        jobs: Runs at the same time, each a process; by default as many as cores or GPUs allow.
        executor: Where they go: `processes` of this machine, or tasks of a `ray` cluster.
        exclude: Runs to leave out, such as `iteration-1/run-2`.
    """

    iterations: int = number_in(1, default=2)
    runs: int = number_in(1, default=2)
    policies: list[str] | None = None
    method: Literal["slerp", "lerp"] = "slerp"
    granularity: Literal["layer", "tensor", "model"] = "layer"
    eta: float = number_in(0, default=0.3)
    final_eta: float = number_in(0, default=1.0)
    etas: list[float] = field(default_factory=lambda: [0.0, 0.1, 0.3, 0.5, 0.8, 1.0])
    grid: int | None = number_in(2, default=None)
    samples: int = number_in(1, default=1)
    jobs: int | None = number_in(1, default=None)
    executor: Executor = "processes"
    exclude: list[str] = field(default_factory=lambda: [])


@dataclass(frozen=True)
class WarpSection(IterationsSection):
    """`warp:`, iterations, runs and merges.

    Attributes:
        steps: Steps of every iteration, the last number for all that follow; by default those of `policy`.
        vary: How runs differ beside the order: the first run takes the first, and so on, from the start again when they are
            used up.
    """

    steps: list[int] | None = number_in(1, default=None)
    vary: list[Variation] = field(default_factory=lambda: [])

    def __post_init__(self) -> None:
        if self.steps is not None and len(self.steps) > self.iterations:
            raise UsageError(f"steps: expected at most one number an iteration, {self.iterations}, found {len(self.steps)}")
        if len(self.vary) > self.runs:
            raise UsageError(f"vary: expected at most one entry a run, {self.runs}, found {len(self.vary)}")


@dataclass(frozen=True)
class WarpRecipe:
    """A recipe of `warmkit warp`."""

    model: PolicyModelSection
    data: PromptsSection
    rewards: list[RewardTerm]
    output: RunOutput
    policy: PolicySection = PolicySection()
    warp: WarpSection = WarpSection()
    controls: list[RewardTerm] = field(default_factory=lambda: [])
    value: ValueSection = ValueSection()
    lora: LoraSection | None = None

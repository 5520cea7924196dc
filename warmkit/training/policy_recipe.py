"""Recipe of `warmkit train policy`.

Defaults are WARP's (Ramé et al., 2024, section 4): temperature 0.9, batches of 128 prompts, learning rate 1e-6 after a warm-up
of 100 steps, beta 0.1, an anchor that follows the policy with mu 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from warmkit.errors import UsageError
from warmkit.evaluation.reward_term import RewardTerm, check_labels
from warmkit.training.recipe_sections import LoraSection, Optimization, RunOutput, number_in

RELATIVE = ("leave-one-out", "group")
"""Baselines of the other samples of a prompt."""


@dataclass(frozen=True)
class PolicyModelSection:
    """`model:`, the policy's init.

    Attributes:
        path: The checkpoint to start from.
        sft: The checkpoint that the KL is reported to; by default `path`. Not the init in a later iteration of WARP.
        max_length: Tokens of prompt and answer together; by default what the model allows.
        overlong: Whether prompts that leave no room for `policy.max_new_tokens` are refused or lose their oldest tokens.
        pad_token: What to pad with, where the tokenizer has no token of its own for it.
    """

    path: str
    sft: str | None = None
    max_length: int | None = number_in(8, default=None)
    overlong: Literal["refuse", "truncate"] = "refuse"
    pad_token: str | None = None


@dataclass(frozen=True)
class PromptsSection:
    """`data:`, files of prompts, or `datasets` names.

    Attributes:
        train: Prompts to learn from.
        validation: Prompts of the evaluations.
        chat: Make chats of prompts that are texts, for the policy's chat template; by default a text stays one.
    """

    train: str
    validation: str | None = None
    chat: bool | None = None


@dataclass(frozen=True)
class ValueSection:
    """`value:`, the value model of `policy.baseline: value`, which starts from the policy's init.

    Attributes:
        lr: Its learning rate.
        warmup: Steps at the start, out of those of `policy`, in which it learns alone.
    """

    lr: float = number_in(0, default=1e-5)
    warmup: int = number_in(0, default=100)


@dataclass(frozen=True)
class PolicySection(Optimization):
    """`policy:`, the policy gradient, and all keys of an optimisation.

    Attributes:
        lr: Learning rate at its highest.
        warmup: Steps in which the rate rises from 0, counted from where the policy starts to learn (`value.warmup`).
        batch_size: Prompts in an update.
        samples: Completions of every prompt, K.
        baseline: What is taken off the reward: the mean of the prompt's other samples (`leave-one-out`), the mean of the batch
            (`batch`), a learned value (`value`), nothing (`none`); or the mean of the prompt's samples, and what is left is
            divided by their standard deviation (`group`, GRPO's).
        updates: Updates for each batch of completions; the anchor follows every one.
        ratio_clip: Of the updates after the first: the share by which the probability of a completion may leave that of the
            policy that sampled it (PPO's clipping).
        beta: Weight of the KL to the anchor in the reward.
        anchor: The policy's moving average (`ema`), its init (`init`), or no KL at all (`none`).
        mu: Share of the policy in the moving average after every step.
        temperature: Of sampling.
        max_new_tokens: Tokens of a completion, its end included.
        banned: Tokens that are never sampled, beside `suppress_tokens` of the checkpoint's generation config.
        stop: Tokens that end a completion, beside EOS and those of the checkpoint's generation config and chat template.
        length_penalty: Taken off the reward for every token.
        eos_penalty: Taken off the reward of a completion without an end.
        kl_ceiling: KL to the SFT model, in nats, at which the run stops.
    """

    lr: float = number_in(0, default=1e-6)
    warmup: int = number_in(0, default=100)
    batch_size: int = number_in(1, default=128)
    samples: int = number_in(1, default=1)
    baseline: Literal["leave-one-out", "group", "batch", "value", "none"] = "batch"
    updates: int = number_in(1, default=1)
    ratio_clip: float = number_in(1e-6, default=0.2)
    beta: float = number_in(0, default=0.1)
    anchor: Literal["ema", "init", "none"] = "ema"
    mu: float = number_in(0, 1, default=0.01)
    temperature: float = number_in(1e-3, default=0.9)
    max_new_tokens: int = number_in(1, default=64)
    banned: list[str] = field(default_factory=lambda: [])
    stop: list[str] = field(default_factory=lambda: [])
    length_penalty: float = number_in(0, default=0.0)
    eos_penalty: float = number_in(0, default=0.0)
    kl_ceiling: float | None = number_in(0, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dropout:
            raise UsageError("dropout: a policy learns without, so that it is the distribution that was sampled from")
        if self.baseline in RELATIVE and self.samples == 1:
            raise UsageError(f"baseline: {self.baseline} needs samples of 2 or more; with one sample a prompt use batch")
        if self.baseline == "batch" and self.samples * self.batch_size == 1:
            raise UsageError("baseline: batch needs more than one completion in a batch; raise batch_size or samples")


@dataclass(frozen=True)
class PolicyRecipe:
    """A recipe of `warmkit train policy`."""

    model: PolicyModelSection
    data: PromptsSection
    rewards: list[RewardTerm]
    output: RunOutput
    policy: PolicySection = PolicySection()
    controls: list[RewardTerm] = field(default_factory=lambda: [])
    value: ValueSection = ValueSection()
    lora: LoraSection | None = None

    def __post_init__(self) -> None:
        if not self.rewards:
            raise UsageError("rewards: expected at least one term, found none")
        check_labels(self.rewards, "rewards")
        check_labels(self.controls, "controls")
        if self.lora is not None and self.lora.dropout:
            raise UsageError("lora.dropout: a policy learns without, so that it is the distribution that was sampled from")


def evaluation_keys(recipe: PolicyRecipe) -> dict[str, Any]:
    """Return what `evaluation.policies.EvaluationSettings` takes over from a training: prompts, rewards, sampling."""
    how, model = recipe.policy, recipe.model
    return {
        "prompts": recipe.data.validation,
        "chat": recipe.data.chat,
        "rewards": recipe.rewards,
        "controls": recipe.controls,
        "sft": model.sft or model.path,
        "temperature": how.temperature,
        "max_new_tokens": how.max_new_tokens,
        "max_length": model.max_length,
        "overlong": model.overlong,
        "pad_token": model.pad_token,
        "banned": how.banned,
        "stop": how.stop,
        "precision": how.precision,
    }

"""Policies, and averages of them, on the same prompts with the same rewards; nothing is written, nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from warmkit.common.random_streams import generator
from warmkit.errors import MismatchError, UsageError
from warmkit.evaluation.answers import Answers
from warmkit.evaluation.policy_evaluator import PolicyEvaluator, Prompts, encode_prompts
from warmkit.evaluation.reward_term import RewardTerm, check_labels
from warmkit.evaluation.rewards import open_terms
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.generation import Sampling
from warmkit.modeling.generation_config import banned_of, ends_of, not_followed
from warmkit.modeling.positions import room_for
from warmkit.modeling.precision import Precision
from warmkit.modeling.tokens import Encoder, masked_padding, tokenizer_of
from warmkit.modeling.weights import load_weights


@dataclass(frozen=True)
class EvaluationSettings:
    """How policies are evaluated.

    Attributes:
        prompts: File or data set.
        rewards: Their weighted sum is the reward; none where answers are only sampled.
        controls: Only reported.
        sft: The checkpoint that the KL is reported to.
        samples: Completions of every prompt, K.
        temperature: Of sampling.
        max_new_tokens: Tokens of a completion, its end included.
        seed: Of sampling, the same for every policy.
        batch_size: Completions at a time.
        max_length: Tokens of prompt and answer together; by default what the model allows.
        overlong: Whether prompts that leave no room are refused or lose their oldest tokens.
        pad_token: What to pad with; by default the tokenizer's own token, else any, since it is never read.
        banned: Tokens that are never sampled.
        stop: Tokens that end a completion, beside those that the checkpoint names (`generation_config.ends_of`).
        chat: Make chats of prompts that are texts; None where nobody said so or otherwise, and they stay texts.
        precision: `float32`, `bfloat16`, or `auto`: what the device computes fast.
    """

    prompts: str
    rewards: list[RewardTerm]
    controls: list[RewardTerm] = field(default_factory=lambda: [])
    sft: str | None = None
    samples: int = 1
    temperature: float = 0.9
    max_new_tokens: int = 64
    seed: int = 0
    batch_size: int = 64
    max_length: int | None = None
    overlong: Literal["refuse", "truncate"] = "refuse"
    pad_token: str | None = None
    banned: list[str] = field(default_factory=lambda: [])
    stop: list[str] = field(default_factory=lambda: [])
    chat: bool | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_labels(self.rewards, "rewards")
        check_labels(self.controls, "controls")


class Candidate:
    """One architecture with its tokenizer, ready to answer the prompts; its weights can be replaced.

    Attributes:
        path: Of the checkpoint that it was loaded from.
        evaluator: The policy and what judges it.
        data: The prompts in its tokens.
        settings: How it is evaluated.
        asked: What its generation config asks for and is not followed.
    """

    def __init__(
        self, path: str, evaluator: PolicyEvaluator, data: Prompts, sft: Any | None, settings: EvaluationSettings
    ) -> None:
        self.path, self.evaluator, self.data, self.settings = path, evaluator, data, settings
        self.asked = not_followed(evaluator.model)
        self._others = {} if sft is None else {"sft": sft}

    @property
    def ends(self) -> list[str]:
        """Return the tokens that end its completions."""
        return self.evaluator.encoder.tokenizer.convert_ids_to_tokens(list(self.evaluator.sampling.ends))

    def answers(self, samples: int | None = None) -> Answers:
        """Answer all prompts and judge the answers.

        Args:
            samples: Completions of every prompt; by default those of the settings.

        Raises:
            UsageError: If there is no reward.
        """
        if not self.evaluator.rewards:
            raise UsageError("expected at least one reward, found none")
        draw = generator("evaluation samples", self.settings.seed)
        return self.evaluator.evaluate(self.data, samples or self.settings.samples, draw, self._others)

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights in the names of the checkpoint, of a merge in memory for instance.

        Raises:
            MismatchError: If they are not those of this architecture.
        """
        load_weights(self.evaluator.model, weights, self.path)


class PolicyTrial:
    """Prompts, rewards and the SFT model, loaded once, for any number of candidates.

    Raises:
        ScoreError: If a reward fails, or gives numbers that cannot be used.
        UnsupportedError: If a reward's checkpoint is no reward model.
        UsageError: If a function cannot be imported.
    """

    def __init__(self, settings: EvaluationSettings) -> None:
        self.settings = settings
        self.rewards, self.controls = open_terms(settings.rewards), open_terms(settings.controls)
        self.sft = None if settings.sft is None else load_causal_model(settings.sft).requires_grad_(False)

    def open(self, path: str) -> Candidate:
        """Load a policy and read the prompts with its tokenizer.

        Raises:
            CheckpointError: If transformers cannot load it.
            DataError: If a prompt cannot be used.
            MismatchError: If its vocabulary is not that of the SFT model.
        """
        how, model = self.settings, load_causal_model(path)
        tokenizer = tokenizer_of(path)
        encoder = Encoder(tokenizer, room_for(model.config, how.max_length), masked_padding(tokenizer, how.pad_token))
        data = encode_prompts(how.prompts, encoder, how.max_new_tokens, how.overlong, chat=bool(how.chat))
        if self.sft is not None and (found := _width(model)) != (expected := _width(self.sft)):
            wanted = f"the {expected} tokens of the SFT model {how.sft}"
            raise MismatchError(f"{path}: expected {wanted}, since a KL needs one vocabulary, found {found}")
        sampling = Sampling(
            how.temperature,
            how.max_new_tokens,
            ends_of(model, tokenizer, how.stop),
            encoder.pad_id,
            banned_of(model, tokenizer, how.banned),
            rows=how.batch_size,
        )
        evaluator = PolicyEvaluator(model, encoder, sampling, self.rewards, self.controls, precision=how.precision)
        return Candidate(path, evaluator, data, self.sft, how)


def _width(model: Any) -> int:
    return model.get_output_embeddings().weight.shape[0]

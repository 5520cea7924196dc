"""Evaluator of policies, in training and out of it: what one answers, what that is worth, how far it is from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from warmkit.common.display import Displayed
from warmkit.data.prompts import Prompt, read_prompts
from warmkit.errors import DataError, UnsupportedError, listed
from warmkit.evaluation.answers import Answers
from warmkit.evaluation.rewards import Term, weighted_sum
from warmkit.modeling.generation import Completion, Sampling, sample
from warmkit.modeling.precision import autocast
from warmkit.modeling.quiet import evaluating
from warmkit.modeling.rollouts import MOST_PARTS, Model, measure
from warmkit.modeling.tokens import Encoder


@dataclass(frozen=True)
class Prompts:
    """Prompts and their tokens."""

    prompts: list[Prompt]
    ids: list[list[int]]
    truncated: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, repr=False)
class Rollout(Displayed):
    """Completions, each beside its prompt, and what they are worth.

    Attributes:
        prompts: Token ids, [N].
        completions: [N].
        texts: Of the completions, without their ends, [N].
        rewards: The sum that is learned from, penalties taken off, without the KL, [N], on the CPU.
        scores: Every term alone, and the controls, [N] each, by the name in the metrics.
    """

    prompts: list[list[int]]
    completions: list[Completion]
    texts: list[str]
    rewards: torch.Tensor
    scores: dict[str, torch.Tensor]


@dataclass
class PolicyEvaluator:
    """A policy and what judges it.

    Attributes:
        model: A causal language model of transformers; its weights may change between calls.
        encoder: From texts to tokens and back.
        sampling: How it is sampled.
        rewards: Terms of the sum.
        controls: Only reported.
        length_penalty: Taken off the reward for every token.
        eos_penalty: Taken off the reward of a completion without an end.
        precision: `float32`, `bfloat16` or `auto`.
        most_parts: See `rollouts.measure`.
    """

    model: Any
    encoder: Encoder
    sampling: Sampling
    rewards: Sequence[Term]
    controls: Sequence[Term] = ()
    length_penalty: float = 0.0
    eos_penalty: float = 0.0
    precision: str = "float32"
    most_parts: int = MOST_PARTS

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def complete(
        self,
        ids: Sequence[list[int]],
        samples: int,
        generator: np.random.Generator,
        prompts: Sequence[Prompt] | None = None,
    ) -> tuple[list[Completion], list[str]]:
        """Sample completions of some prompts; those of one prompt lie next to each other.

        Args:
            ids: Of the prompts' tokens, [N].
            samples: Completions of every prompt, K.
            generator: See `generation.sample`.
            prompts: Whose tokens they are, [N]; see `Encoder.decode` of completions after texts.

        Returns:
            Completions and their texts without their ends, [N K] each.
        """
        with self._precision():
            completions = sample(self.model, ids, replace(self.sampling, samples=samples), generator)
        spoken = [each.ids[:-1] if each.ended else each.ids for each in completions]
        joined = None if prompts is None else [isinstance(each.content, str) for each in prompts for _ in range(samples)]
        return completions, self.encoder.decode(spoken, joined)

    def roll_out(
        self, data: Prompts, rows: Sequence[int], samples: int, generator: np.random.Generator, before: int = 0
    ) -> Rollout:
        """Sample completions of some prompts and score them; those of one prompt lie next to each other.

        Args:
            data: The prompts.
            rows: Which of them.
            samples: Completions of each.
            generator: See `generation.sample`.
            before: Prompts of the same batch that another process samples, and whose random numbers come first.
        """
        generator.random((before, samples, self.sampling.max_new_tokens))
        ids, asked = [data.ids[row] for row in rows], [data.prompts[row] for row in rows]
        completions, texts = self.complete(ids, samples, generator, asked)
        copies = [row for row in rows for _ in range(samples)]
        prompts = [data.prompts[row] for row in copies]
        scores = {f"reward_{term.label}": term(prompts, texts) for term in self.rewards}
        controls = {f"control_{term.label}": term(prompts, texts) for term in self.controls}
        rewards = weighted_sum(self.rewards, list(scores.values())) - self._penalties(completions)
        return Rollout([data.ids[row] for row in copies], completions, texts, rewards, scores | controls)

    def measure(self, rollout: Rollout, part: slice, others: Mapping[str, Model]) -> dict[str, torch.Tensor]:
        """Return what the policy and others say about a part of a rollout; see `rollouts.measure`."""
        with self._precision():
            prompts, completions = rollout.prompts[part], rollout.completions[part]
            return measure(self.model, others, prompts, completions, self.sampling, self.device, self.most_parts)

    @torch.no_grad()
    def evaluate(self, data: Prompts, samples: int, generator: np.random.Generator, others: Mapping[str, Model]) -> Answers:
        """Sample completions of every prompt, score them, and compare the policy with others.

        Generators of one key draw the same random numbers for every policy, so that differences between policies are paired.

        Args:
            data: The prompts.
            samples: Completions of every prompt, K.
            generator: See `generation.sample`.
            others: Models to report the KL to, by name, such as `sft`.
        """
        rollout = self.roll_out(data, range(len(data)), samples, generator)
        size, count = self.sampling.rows, len(rollout.completions)
        with evaluating(self.model):
            parts = [self.measure(rollout, slice(start, start + size), others) for start in range(0, count, size)]
        measured = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
        values = rollout_values(rollout, measured)
        texts = [rollout.texts[start : start + samples] for start in range(0, count, samples)]
        shaped = {name: each.double().view(-1, samples).numpy() for name, each in values.items()}
        return Answers([prompt.text for prompt in data.prompts], texts, shaped)

    def _penalties(self, completions: Sequence[Completion]) -> torch.Tensor:
        lengths = torch.tensor([float(len(each.ids)) for each in completions])
        endless = torch.tensor([float(not each.ended) for each in completions])
        return self.length_penalty * lengths + self.eos_penalty * endless

    def _precision(self) -> torch.autocast:
        return autocast(self.precision, self.device)


def rollout_values(rollout: Rollout, measured: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return every number that is known about each completion, [N] each, on the CPU.

    `reward`, `reward_LABEL`, `control_LABEL`; for each other model `kl_NAME` (over the whole vocabulary at the sampled
    prefixes) and `kl_NAME_sampled` (log pi - log pi'); `entropy` in nats, summed over tokens; `length` in tokens, the end
    included; `without_eos`, 1 where the completion has no end.
    """
    measured = {name: each.detach().cpu() for name, each in measured.items()}
    values = {"reward": rollout.rewards, **rollout.scores}
    for name in (name.removeprefix("kl_") for name in measured if name.startswith("kl_")):
        values[f"kl_{name}"] = measured[f"kl_{name}"]
        values[f"kl_{name}_sampled"] = measured["policy"] - measured[name]
    return {
        **values,
        "entropy": measured["entropy"],
        "length": torch.tensor([float(len(each.ids)) for each in rollout.completions]),
        "without_eos": torch.tensor([float(not each.ended) for each in rollout.completions]),
    }


def encode_prompts(source: str, encoder: Encoder, new_tokens: int, overlong: str, *, chat: bool = False) -> Prompts:
    """Read prompts and their tokens, leaving room for an answer.

    Args:
        source: File or data set.
        encoder: Its `max_length` is of prompt and answer together.
        new_tokens: Tokens of an answer.
        overlong: `refuse`, or `truncate`: the oldest tokens go.
        chat: Make chats of prompts that are texts.

    Raises:
        DataError: If a prompt is empty, or too long.
        UnsupportedError: If there is no room beside the answer.
    """
    prompts, room = read_prompts(source, chat=chat), encoder.max_length - new_tokens
    if room <= 0:
        raise UnsupportedError(f"{new_tokens} new tokens fill all of the model's {encoder.max_length} positions")
    tokens = encoder.encode_prompts([prompt.content for prompt in prompts], room)
    if empty := [prompt.where for prompt, each in zip(prompts, tokens) if not each.ids]:
        raise DataError(f"{len(empty)} prompts have no tokens:\n{listed(empty)}")
    long = [f"{prompt.where}: {len(each) + each.truncated} tokens" for prompt, each in zip(prompts, tokens) if each.truncated]
    if overlong == "refuse" and long:
        raise DataError(
            f"{len(long)} prompts are longer than the {room} tokens that {encoder.max_length} leave beside {new_tokens} new "
            f"ones; raise max_length, or set overlong to truncate:\n{listed(long)}"
        )
    return Prompts(prompts, [each.ids for each in tokens], len(long))

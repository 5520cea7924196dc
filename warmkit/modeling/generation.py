"""Sampling completions: the one seam behind which another engine could stand.

`sample(model, prompts, how, generator)` is all that the rest knows. This engine is plain transformers with a cache of keys and
values: a prompt is read once however many samples it gets, and finished rows leave the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from warmkit.errors import NonFiniteError
from warmkit.modeling.log_probabilities import log_distribution
from warmkit.modeling.quiet import evaluating


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        temperature: Above 0.
        max_new_tokens: Tokens of a completion, its end included.
        ends: Ids that end a completion.
        pad_id: What prompts are padded with, on the left; never read.
        banned: Ids that are never sampled.
        samples: Completions of every prompt.
        rows: Completions that are sampled at a time; changes memory, not what is sampled.
    """

    temperature: float
    max_new_tokens: int
    ends: tuple[int, ...]
    pad_id: int
    banned: tuple[int, ...] = ()
    samples: int = 1
    rows: int = 256


@dataclass(frozen=True)
class Completion:
    """What was sampled.

    Attributes:
        ids: Token ids, the end included where there is one.
        ended: Whether it ends by itself.
    """

    ids: list[int]
    ended: bool


@torch.no_grad()
def sample(model: Any, prompts: Sequence[Sequence[int]], how: Sampling, generator: np.random.Generator) -> list[Completion]:
    """Sample `how.samples` completions of every prompt, without dropout.

    Every token costs one random number, drawn for all rows in advance: a row's completion does not depend on what else is in
    the batch or when it leaves.

    Args:
        model: A causal language model of transformers.
        prompts: Token ids, at least one each.
        how: See `Sampling`.
        generator: Where randomness comes from. Prompts in parts, one after another, draw what they draw together.

    Returns:
        Completions, those of one prompt next to each other, in the order of the prompts.

    Raises:
        NonFiniteError: If the model gives no distribution.
    """
    shape = (len(prompts), how.samples, how.max_new_tokens)
    draws = torch.from_numpy(generator.random(shape))
    found: list[list[int]] = [[] for _ in range(len(prompts) * how.samples)]
    size = max(1, how.rows // how.samples)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    with evaluating(model):
        for start in range(0, len(order), size):
            places = order[start : start + size]
            spoken = _continue(model, [prompts[place] for place in places], draws[places].flatten(0, 1), how)
            rows = [place * how.samples + each for place in places for each in range(how.samples)]
            for row, ids in zip(rows, spoken):
                found[row] = ids
    return [Completion(ids, ids[-1] in how.ends) for ids in found]


def _continue(model: Any, prompts: Sequence[Sequence[int]], draws: torch.Tensor, how: Sampling) -> list[list[int]]:
    """Sample the rows of one batch; `draws` are [rows, steps]."""
    from transformers import DynamicCache

    device = next(model.parameters()).device
    ids, mask = left_padded(prompts, how.pad_id, device)
    draws, ends = draws.to(device), torch.tensor(how.ends, device=device)
    cache = DynamicCache(config=model.config)
    start = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask), "logits_to_keep": 1}
    first = model(**start, past_key_values=cache, use_cache=True).logits[:, -1]
    copies = torch.arange(len(prompts), device=device).repeat_interleave(how.samples)
    cache.batch_select_indices(copies)
    logits, mask, rows = first[copies], mask[copies], torch.arange(len(copies), device=device)
    spoken: list[list[int]] = [[] for _ in rows]
    for step in range(how.max_new_tokens):
        tokens = _draw(log_distribution(logits, how.temperature, how.banned), draws[rows, step])
        for row, token in zip(rows.tolist(), tokens.tolist()):
            spoken[row].append(token)
        going = ~torch.isin(tokens, ends)
        if step + 1 == how.max_new_tokens or not going.any():
            break
        if not going.all():
            kept = going.nonzero().squeeze(-1)
            cache.batch_select_indices(kept)
            tokens, mask, rows = tokens[kept], mask[kept], rows[kept]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        places = mask.sum(1, keepdim=True) - 1
        logits = model(
            input_ids=tokens[:, None], attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        ).logits[:, -1]
    return spoken


def _draw(spoken: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Invert the cumulative distribution at uniform numbers in [0, 1): a token without probability is never drawn."""
    cumulated = spoken.double().exp().cumsum(-1)
    if not cumulated[:, -1].isfinite().all():
        raise NonFiniteError("the policy's logits are not finite")
    return torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:], right=True).squeeze(-1)


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, [B, T], the prompts ending in the last column."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Return the position of every token in its row, [B, T]; padding has 0."""
    return (mask.cumsum(1) - 1).clamp_min(0)

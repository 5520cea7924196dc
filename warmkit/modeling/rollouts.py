"""Rollouts: what policy, anchor and init say about sampled completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from warmkit.modeling.batching import Reading, inputs_of, left_padded, reading_of, right_padded
from warmkit.modeling.generation import Completion, Sampling
from warmkit.modeling.log_probabilities import completion_log_probability, entropy, exact_kl, log_distribution
from warmkit.modeling.plain_llama import plain_llama
from warmkit.modeling.tokens import by_length

Model = Callable[..., Any]
MOST_PARTS = 3  # each part brings a gradient of the whole embedding, which costs more than some padding
IN_CACHE = 2**17  # numbers


@dataclass(frozen=True)
class Layout:
    """Completions beside their prompts: padded on the left so that all start in one column, or on the right.

    Attributes:
        left: Ids and mask with the prompts padded on the left, completions on the right.
        right: Ids and mask with padding on the right alone.
        tokens: What was sampled, [N, T].
        counted: [N, T], true for tokens of the completion, its end included.
        starts: Tokens of every prompt, [N].
    """

    left: tuple[torch.Tensor, torch.Tensor]
    right: tuple[torch.Tensor, torch.Tensor]
    tokens: torch.Tensor
    counted: torch.Tensor
    starts: torch.Tensor

    @property
    def level(self) -> bool:
        """Whether no prompt is padded."""
        return bool((self.starts == self.starts[0]).all())


def measure(
    policy: Model,
    others: Mapping[str, Model],
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    how: Sampling,
    device: torch.device,
    most_parts: int = MOST_PARTS,
) -> dict[str, torch.Tensor]:
    """Return, for every completion, [N] each, in nats:

    `policy`      log pi(y|x), differentiable
    `entropy`     of the next token, summed over the completion
    NAME          log pi'(y|x) of each other model
    `kl_NAME`     KL(pi, pi') over the whole vocabulary, summed over the prefixes of the completion

    Completions of similar length are computed together.

    Args:
        policy: What was sampled from.
        others: By name, such as `anchor`.
        prompts: Token ids, one prompt beside each completion.
        completions: What was sampled.
        how: As they were sampled: temperature and banned tokens.
        device: Of the models.
        most_parts: How many batches of similar lengths are made at most.
    """
    lengths = [len(prompt) + len(each.ids) for prompt, each in zip(prompts, completions)]
    groups = by_length(lengths, most=1 << 40, least=-(-len(lengths) // most_parts))
    parts: list[dict[str, torch.Tensor]] = []
    for places in groups:
        spoken = None if torch.is_grad_enabled() else _kept([completions[place] for place in places])
        layout = lay_out([prompts[place] for place in places], [completions[place].ids for place in places], how.pad_id, device)
        parts.append(_measured(_spoken(policy, layout, how) if spoken is None else spoken, others, layout, how))
    back = torch.tensor([place for places in groups for place in places], device=device).argsort()
    return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


def _kept(completions: Sequence[Completion]) -> torch.Tensor | None:
    """Return what the policy said while it was sampled, [N, T, V], where that was kept."""
    kept = [each.spoken for each in completions if each.spoken is not None]
    return (
        torch.nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=-torch.inf)
        if len(kept) == len(completions)
        else None
    )


def _measured(spoken: torch.Tensor, others: Mapping[str, Model], layout: Layout, how: Sampling) -> dict[str, torch.Tensor]:
    values = {"policy": completion_log_probability(spoken, layout.tokens, layout.counted)}
    with torch.no_grad():
        spoken = spoken.detach()
        values["entropy"] = _by_completion(entropy, layout.counted, spoken)
        for name, other in others.items():
            theirs = _spoken(other, layout, how)
            values[name] = completion_log_probability(theirs, layout.tokens, layout.counted)
            values[f"kl_{name}"] = _by_completion(exact_kl, layout.counted, spoken, theirs)
    return values


def _by_completion(of: Callable[..., torch.Tensor], counted: torch.Tensor, *spoken: torch.Tensor) -> torch.Tensor:
    """Sum a number of every next token over the completion, as many completions at a time as stay in the cache."""
    size = max(1, IN_CACHE // spoken[0][0].numel())
    parts = zip(counted.split(size), *(each.split(size) for each in spoken))
    return torch.cat([(of(*rows) * where).sum(-1) for where, *rows in parts])


def _spoken(model: Model, layout: Layout, how: Sampling) -> torch.Tensor:
    """Return the log-probabilities of the tokens of the completions, [N, T, V]."""
    return log_distribution(_logits(model, layout), how.temperature, how.banned)


def _logits(model: Model, layout: Layout) -> torch.Tensor:
    width = layout.tokens.shape[1]
    if layout.level and not torch.is_grad_enabled():
        ids = layout.left[0]
        plain = getattr(model, "plain_llama", partial(plain_llama, model))(ids.shape[1])
        if plain is not None:
            return functional.linear(plain.hidden(ids[:, :-1])[:, -width:], plain.head)
    reading = reading_of(model)
    if reading.left:
        return model(**inputs_of(reading, *layout.left, width + 1, use_cache=False)).logits[:, -width - 1 : -1]
    return _gathered(model, reading, layout)


def _gathered(model: Model, reading: Reading, layout: Layout) -> torch.Tensor:
    """Return what a model that reads no padding on the left says, from columns that differ from row to row."""
    ids, mask = layout.right
    before = layout.starts - 1
    keep = ids.shape[1] - int(before.min())
    logits = model(**inputs_of(reading, ids, mask, keep, use_cache=False)).logits[:, -keep:]
    columns = (before - before.min())[:, None] + torch.arange(layout.tokens.shape[1], device=ids.device)
    return logits.take_along_dim(columns.clamp_max(keep - 1)[..., None], 1)  # past the end nothing is counted


def lay_out(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad_id: int, device: Any) -> Layout:
    """Put prompts and completions side by side."""
    before, before_mask = left_padded(prompts, pad_id, device)
    tokens, counted = right_padded(completions, pad_id, device)
    left = torch.cat([before, tokens], 1), torch.cat([before_mask, counted], 1)
    right = right_padded([[*prompt, *ids] for prompt, ids in zip(prompts, completions)], pad_id, device)
    return Layout(left, right, tokens, counted.bool(), before_mask.sum(1))

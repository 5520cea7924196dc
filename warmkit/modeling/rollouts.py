"""What policy, anchor and init say about sampled completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from warmkit.modeling.generation import Completion, Sampling, left_padded, positions
from warmkit.modeling.log_probabilities import completion_log_probability, entropy, exact_kl, log_distribution
from warmkit.modeling.plain_llama import plain_llama
from warmkit.modeling.tokens import by_length

Model = Callable[..., Any]
MOST_PARTS = 3  # each part brings a gradient of the whole embedding, which costs more than some padding
IN_CACHE = 2**17  # numbers


@dataclass(frozen=True)
class Layout:
    """Completions that all start in the same column: prompts padded on the left, completions on the right.

    Attributes:
        inputs: Of the model.
        tokens: What was sampled, [N, T].
        counted: [N, T], true for tokens of the completion, its end included.
        level: Whether no prompt is padded.
    """

    inputs: dict[str, Any]
    tokens: torch.Tensor
    counted: torch.Tensor
    level: bool


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
    ids, width = layout.inputs["input_ids"], layout.tokens.shape[1]
    if layout.level and not torch.is_grad_enabled():
        plain = getattr(model, "plain_llama", partial(plain_llama, model))(ids.shape[1])
        if plain is not None:
            return functional.linear(plain.hidden(ids[:, :-1])[:, -width:], plain.head)
    return model(**layout.inputs).logits[:, :-1]


def lay_out(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad_id: int, device: Any) -> Layout:
    """Put prompts and completions side by side; only the logits of the completions are computed."""
    before, before_mask = left_padded(prompts, pad_id, device)
    width = max(map(len, completions))
    tokens = torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids in completions], device=device)
    lengths = torch.tensor([len(ids) for ids in completions], device=device)
    counted = torch.arange(width, device=device) < lengths[:, None]
    mask = torch.cat([before_mask, counted.long()], 1)
    inputs = {
        "input_ids": torch.cat([before, tokens], 1),
        "attention_mask": mask,
        "position_ids": positions(mask),
        "use_cache": False,
        "logits_to_keep": width + 1,
    }
    return Layout(inputs, tokens, counted, min(map(len, prompts)) == before.shape[1])

"""Sampling completions: the one seam behind which another engine could stand.

`sample(model, prompts, how, generator)` is all that the rest knows. A model of transformers reads with its cache, or where that
cannot be (`batching`) without, a small Llama by itself (`plain_llama`): a prompt is read once however many samples it gets, and
finished rows leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from warmkit.errors import NonFiniteError
from warmkit.modeling.batching import CacheReader, WholeReader, reading_of
from warmkit.modeling.log_probabilities import log_distribution
from warmkit.modeling.plain_llama import PlainReader, plain_llama
from warmkit.modeling.quiet import evaluating

KEPT = 2**24  # numbers


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
        spoken: Log-probabilities of every next token, [T, V], where the model is so small that they are kept.
    """

    ids: list[int]
    ended: bool
    spoken: torch.Tensor | None = field(default=None, compare=False, repr=False)


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
    found: dict[int, Completion] = {}
    size = max(1, how.rows // how.samples)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    with evaluating(model):
        for start in range(0, len(order), size):
            places = order[start : start + size]
            spoken = _continue(model, [prompts[place] for place in places], draws[places].flatten(0, 1), how)
            rows = [place * how.samples + each for place in places for each in range(how.samples)]
            found |= zip(rows, spoken)
    return [found[row] for row in range(len(found))]


def _continue(model: Any, prompts: Sequence[Sequence[int]], draws: torch.Tensor, how: Sampling) -> list[Completion]:
    """Sample the rows of one batch; `draws` are [rows, steps]."""
    device = next(model.parameters()).device
    draws, ends, banned = draws.to(device), torch.tensor(how.ends, device=device), torch.tensor(how.banned, device=device)
    reader = _reader(model, prompts, how)
    logits, rows = reader.opening(how.samples), torch.arange(len(prompts) * how.samples, device=device)
    ids: list[list[int]] = [[] for _ in rows]
    kept = logits.new_empty(len(rows), how.max_new_tokens, logits.shape[-1]) if _fits(reader, logits, how) else None
    for step in range(how.max_new_tokens):
        spoken = log_distribution(logits, how.temperature, banned)
        if kept is not None:
            kept[rows, step] = spoken
        tokens = _draw(spoken, draws[rows, step])
        for row, token in zip(rows.tolist(), tokens.tolist()):
            ids[row].append(token)
        going = ~torch.isin(tokens, ends)
        if step + 1 == how.max_new_tokens or not going.any():
            break
        if not going.all():
            left = going.nonzero().squeeze(-1)
            reader.keep(left)
            tokens, rows = tokens[left], rows[left]
        logits = reader.following(tokens)
    return [
        Completion(its, its[-1] in how.ends, None if kept is None else kept[row, : len(its)]) for row, its in enumerate(ids)
    ]


def _fits(reader: Reader, logits: torch.Tensor, how: Sampling) -> bool:
    """Say whether all distributions are so few that to keep them costs less than to compute them again."""
    return isinstance(reader, PlainReader) and logits.numel() * how.max_new_tokens <= KEPT


def _reader(model: Any, prompts: Sequence[Sequence[int]], how: Sampling) -> Reader:
    """Return what reads the texts of one batch, whose prompts it knows."""
    longest, shortest = max(map(len, prompts)), min(map(len, prompts))
    plain = plain_llama(model, longest + how.max_new_tokens) if longest == shortest else None
    if plain is not None:
        return PlainReader(plain, prompts, how.max_new_tokens)
    reading = reading_of(model)
    return (CacheReader if reading.left else WholeReader)(model, prompts, how.pad_id, reading)


class Reader(Protocol):
    """Reads texts token by token and says what may follow, [rows, V]."""

    def opening(self, samples: int) -> torch.Tensor:
        """Read every prompt once; return what may follow it, `samples` rows for each."""
        ...

    def following(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read a token of every row."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Let go of the other rows."""
        ...


def _draw(spoken: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Invert the cumulative distribution at uniform numbers in [0, 1): a token without probability is never drawn."""
    cumulated = spoken.double().exp().cumsum(-1)
    if not cumulated[:, -1].isfinite().all():
        raise NonFiniteError("the policy's logits are not finite")
    return torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:], right=True).squeeze(-1)

"""Batches of several texts, as one model reads them: found by trying it, since not every model reads padding alike.

Padding on the left lets all completions start in one column, and a cache lets a token be read once. Both are right for
transformers with attention alone; a recurrent state runs through padding, and some caches are no cache of keys and values.
Padding on the right is never seen by what comes before, so that it is right for every causal model, at the price of reading
everything again for every token.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from warmkit.errors import UnsupportedError
from warmkit.modeling.quiet import evaluating

SHARE = 1e-4  # of what a text changes at all that padding or a cache may change; rounding in float32 changes a tenth of that
ROUNDING = 1e-5  # of the largest logit
FOLLOWED = 4  # tokens read from the cache: an error there may be small at first
INEXACT = ("nemotron_h", "zamba2")
"""Models whose cached step leaves out the limit of the time step (transformers 5.23): an error that grows token by token."""

OPTIONAL = ("position_ids", "logits_to_keep")


@dataclass(frozen=True)
class Reading:
    """How a model reads a batch.

    Attributes:
        causal: Whether what it says of a text depends on nothing that comes later.
        left: Whether padding on the left and a cache change nothing.
        takes: Arguments that not every model has, and this one does.
    """

    causal: bool
    left: bool
    takes: frozenset[str]


def reading_of(model: Any) -> Reading:
    """Return how a model reads a batch; tried once for each model, before anything has learned.

    What is no module of torch (an anchor) says so itself, or reads as most do.
    """
    known = getattr(model, "reading", None)
    if known is None and isinstance(model, torch.nn.Module):
        known = _tried(model)
        model.reading = known  # pyright: ignore[reportArgumentType]
    return known or Reading(True, True, frozenset(OPTIONAL))


def check_causal(model: Any, source: str) -> None:
    """Refuse a model that cannot be sampled from left to right.

    Raises:
        UnsupportedError: If what it says of a token depends on later ones.
    """
    if not reading_of(model).causal:
        raise UnsupportedError(
            f"{source}: {type(model).__name__} reads what comes later too (an encoder?), so it does not write text; expected a "
            "causal language model"
        )


def inputs_of(reading: Reading, ids: torch.Tensor, mask: torch.Tensor, keep: int, **more: Any) -> dict[str, Any]:
    """Return the arguments of a pass over padded texts.

    Args:
        reading: Of the model.
        ids: [B, T].
        mask: [B, T], 0 where there is padding.
        keep: Last columns whose logits are asked for.
        **more: Others.
    """
    known = {"position_ids": positions(mask), "logits_to_keep": keep}
    return {
        "input_ids": ids,
        "attention_mask": mask,
        **{name: value for name, value in known.items() if name in reading.takes},
        **more,
    }


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Return the position of every token in its row, [B, T]; padding has 0 or its left neighbour's."""
    return (mask.cumsum(1) - 1).clamp_min(0)


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, [B, T], the prompts ending in the last column."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def right_padded(texts: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, [B, T], the texts starting in the first column."""
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[pad_id] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return ids.to(device), mask.to(device)


# ---- trying ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _tried(model: Any) -> Reading:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes = frozenset(OPTIONAL) & inspect.signature(base.forward).parameters.keys()
    device = next(model.parameters()).device
    size = model.config.get_text_config().vocab_size
    first, second, other = ([(size // 3 + step * place) % size for place in range(1, 8)] for step in (1, 2, 3))
    with evaluating(model), torch.autocast(device.type, enabled=False):
        whole = _plain(model, first, device)
        changed = _plain(model, [*first[:-1], other[-1]], device)
        alone = _plain(model, first[-1:], device)
        most = max(SHARE * _apart(whole[-1], alone[-1]), ROUNDING * float(whole.abs().max()))
        causal = _apart(whole[:-1], changed[:-1]) <= most
        reading = Reading(causal, True, takes)
        return Reading(causal, causal and _reads_left(model, reading, first, second[:3], device, most), takes)


def _reads_left(model: Any, reading: Reading, long: list[int], short: list[int], device: torch.device, most: float) -> bool:
    """Say whether a padded prompt, and a token read behind it from the cache alone, say what the texts themselves say."""
    if model.config.get_text_config().model_type in INEXACT:
        return False
    try:
        reader = CacheReader(model, [long[:-1], short], 0, reading)
        opened = reader.opening(1)
        reader.keep(torch.tensor([1], device=device))
        followed = [reader.following(torch.tensor([token], device=device))[0] for token in long[-FOLLOWED:]]
    except Exception:  # a cache of another kind may raise anything
        return False
    wholes = _plain(model, [*short, *long[-FOLLOWED:]], device)[-FOLLOWED - 1 :]
    pairs = zip([opened[0], opened[1], *followed], [_plain(model, long[:-1], device)[-1], *wholes])
    return all(_apart(said, whole) <= most for said, whole in pairs)


def _plain(model: Any, text: Sequence[int], device: torch.device) -> torch.Tensor:
    return model(input_ids=torch.tensor([text], device=device), use_cache=False).logits[0].float()


def _apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


# ---- readers --------------------------------------------------------------------------------------------------------


class CacheReader:
    """Texts padded on the left, of which a cache keeps what has been read."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, reading: Reading) -> None:
        from transformers import DynamicCache

        self.model, self.reading = model, reading
        self.cache: Any = DynamicCache(config=model.config)
        self.ids, self.mask = left_padded(prompts, pad_id, next(model.parameters()).device)

    def opening(self, samples: int) -> torch.Tensor:
        first = self._read(self.ids, positions(self.mask))
        copies = torch.arange(len(first), device=first.device).repeat_interleave(samples)
        self.keep(copies)
        return first[copies]

    def following(self, tokens: torch.Tensor) -> torch.Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        return self._read(tokens[:, None], self.mask.sum(1, keepdim=True) - 1)

    def keep(self, rows: torch.Tensor) -> None:
        self.cache.reorder_cache(rows)
        self.mask = self.mask[rows]

    def _read(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        inputs = inputs_of(self.reading, ids, self.mask, 1, past_key_values=self.cache, use_cache=True)
        if "position_ids" in inputs:
            inputs["position_ids"] = places
        return self.model(**inputs).logits[:, -1]


class WholeReader:
    """Texts that are read from the start for every token, padded on the right: right for any causal model, and slow."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, reading: Reading) -> None:
        self.model, self.pad_id, self.reading = model, pad_id, reading
        self.texts, self.device = [list(prompt) for prompt in prompts], next(model.parameters()).device

    def opening(self, samples: int) -> torch.Tensor:
        first = self._read()
        copies = torch.arange(len(first), device=first.device).repeat_interleave(samples)
        self.keep(copies)
        return first[copies]

    def following(self, tokens: torch.Tensor) -> torch.Tensor:
        for text, token in zip(self.texts, tokens.tolist()):
            text.append(token)
        return self._read()

    def keep(self, rows: torch.Tensor) -> None:
        self.texts = [[*self.texts[row]] for row in rows.tolist()]

    def _read(self) -> torch.Tensor:
        ids, mask = right_padded(self.texts, self.pad_id, self.device)
        last = mask.sum(1) - 1
        keep = int(ids.shape[1] - last.min())
        logits = self.model(**inputs_of(self.reading, ids, mask, keep, use_cache=False)).logits[:, -keep:]
        return logits[torch.arange(len(logits), device=logits.device), last - (ids.shape[1] - keep)]

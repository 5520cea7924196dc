"""Tiny decoders that speak the language, and the checkpoints on their way (Baklava's inits)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warmkit.checkpoints.staging import writing
from warmkit.errors import UsageError
from warmkit.modeling.saving import save_new_model
from warmkit.random_streams import generator, seed_torch
from warmkit.testbed.language import (
    CUE_TAGS,
    CUES,
    END,
    HYPE,
    HYPE_TAGS,
    LENGTH,
    RELEVANCE_TAGS,
    SPECIAL,
    VOCABULARY,
    all_prompts,
    on_topic,
    write_response,
)

PLACES = {token: place for place, token in enumerate(VOCABULARY)}
TAG_SHARES = {"relevance": 0.5, "hype": 0.2, "cues": 0.3}
NOISE = 0.2
"""Share of the texts whose relevance tag says nothing."""
PROMPT_TOKENS = 3


@dataclass(frozen=True)
class Shape:
    """How large a decoder is.

    Attributes:
        width: Of the residual stream.
        layers: Blocks.
        heads: Of attention.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4


def pretrain(
    folder: Path,
    seed: int,
    steps: int = 2500,
    batch_size: int = 64,
    lr: float = 3e-3,
    *,
    shape: Shape | None = None,
    keep: Sequence[float] = (0.8, 0.9, 1.0),
    ending: bool = False,
    device: str | None = None,
) -> list[Path]:
    """Train a decoder on the language; write the SFT model and earlier checkpoints of its trajectory.

    After the end of a text the model also predicts its tags (relevance with 20% noise, praise, cues). Fine-tuning on
    preferences reweights features that exist already; without the tags, reward models of this size stay near chance.

    Args:
        folder: Gets a directory for each checkpoint that is kept, `at-80` for instance; whole or not there at all. Where it is
            there, nothing is trained.
        seed: Of weights and texts.
        steps: Updates.
        batch_size: Texts in an update.
        lr: AdamW's; it rises for 100 steps and falls linearly in the last 30%.
        shape: Of the model.
        keep: Shares of the steps whose weights are kept, ascending; the last is 1, the SFT model.
        ending: Whether responses end; see `language.write_response`.
        device: `cpu` or `cuda`; by default a GPU where there is one.

    Returns:
        The checkpoints that are kept, in the order of `keep`.

    Raises:
        OutputError: If they cannot be written.
        UsageError: If `keep` does not end with 1.

    Source: inits along one SFT trajectory: WARM (Ramé et al., 2024), section 3.1, Baklava.
    """
    if not keep or keep[-1] != 1 or sorted(keep) != list(keep):
        raise UsageError(f"keep: expected ascending shares of the steps that end with 1, found {list(keep)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    names = {f"at-{100 * share:g}": max(1, round(share * steps)) for share in keep}
    found = [folder / name for name in names]
    if folder.exists():
        return found
    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        seed_torch("initial weights", seed)
        model = new_model(shape or Shape()).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, step / 100, (steps - step) / (0.3 * steps))
        )
        draw = generator("pretraining texts", seed)
        for step in range(1, steps + 1):
            error = loss(model, *(each.to(device) for each in batch(batch_size, draw, ending)))
            error.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            for name in (name for name, kept in names.items() if kept == step):
                save_new_model(model, tokenizer(), partial / name)
        partial.rename(folder)
    return found


def new_model(shape: Shape) -> Any:
    """Return an untrained decoder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": shape.width,
        "intermediate_size": 2 * shape.width,
        "num_attention_heads": shape.heads,
    }
    ends: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": PLACES[END], "bos_token_id": None, "tie_word_embeddings": False}
    rest: dict[str, Any] = {"vocab_size": len(VOCABULARY), "num_hidden_layers": shape.layers, "max_position_embeddings": 32}
    return LlamaForCausalLM(LlamaConfig(**sizes, **ends, **rest))


def tokenizer() -> Any:
    """Return a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel(PLACES, unk_token=SPECIAL[1]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=SPECIAL[1], pad_token=SPECIAL[0], eos_token=END)


def batch(size: int, draw: np.random.Generator, ending: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return texts and what follows them.

    Returns:
        Ids of prompt, response, end and padding, [size, 20], and the distribution of tags after the end, [size, V].
    """
    prompts = all_prompts()
    texts = torch.zeros(size, PROMPT_TOKENS + LENGTH + 1, dtype=torch.long)
    tags = torch.zeros(size, len(VOCABULARY))
    for row in range(size):
        prompt = prompts[draw.integers(len(prompts))]
        words = write_response(prompt, draw, ending)
        ids = [PLACES[token] for token in (*prompt.split(), *words, END)]
        texts[row, : len(ids)] = torch.tensor(ids)
        for tag, share in _tags(prompt, words, draw).items():
            tags[row, PLACES[tag]] += share
    return texts, tags


def loss(model: Any, ids: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
    spoken = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)  # padding on the right is seen by nothing that counts
    following = ids[:, PROMPT_TOKENS:]
    there = (following != PLACES[SPECIAL[0]]).float()
    words = spoken[:, PROMPT_TOKENS - 1 : -1].gather(-1, following[..., None]).squeeze(-1)
    last = PROMPT_TOKENS + there.sum(1).long() - 1
    after = spoken[torch.arange(len(ids), device=ids.device), last]
    return -(words * there).sum() / there.sum() - (tags * after).sum(-1).mean()


def _tags(prompt: str, words: list[str], draw: np.random.Generator) -> dict[str, float]:
    inside = set(on_topic(prompt))
    bucket = min(sum(word in inside for word in words) // 2, len(RELEVANCE_TAGS) - 1)
    if draw.random() < NOISE:
        bucket = int(draw.integers(len(RELEVANCE_TAGS)))
    cues = {tags[cue in words]: TAG_SHARES["cues"] / len(CUES) for cue, tags in zip(CUES, CUE_TAGS)}
    return {RELEVANCE_TAGS[bucket]: TAG_SHARES["relevance"], HYPE_TAGS[words.count(HYPE)]: TAG_SHARES["hype"], **cues}

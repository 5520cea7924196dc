"""Tiny decoders that speak the language, and the checkpoints on their way (Baklava's inits)."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warmkit.common.random_streams import generator, seed_torch
from warmkit.common.whole_files import write_whole, writing
from warmkit.errors import UsageError
from warmkit.evidence.testbed.language import (
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
from warmkit.modeling.saving import save_new_model

PLACES = {token: place for place, token in enumerate(VOCABULARY)}
TAG_SHARES = {"relevance": 0.5, "hype": 0.2, "cues": 0.3}
NOISE = 0.2
"""Share of the texts whose relevance tag says nothing."""
PROMPT_TOKENS = 3
STATE, SAVE_EVERY = "state.pt", 100


@dataclass(frozen=True)
class Shape:
    """How large a decoder is.

    Attributes:
        width: Of the residual stream.
        layers: Blocks.
        heads: Of attention.
        spread: Deviation of the initial weights.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    spread: float = 0.02


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
    advance: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Train a decoder on the language; write the SFT model and earlier checkpoints of its trajectory.

    After the end of a text the model also predicts its tags (relevance with 20% noise, praise, cues). Fine-tuning on
    preferences reweights features that exist already; without the tags, reward models of this size stay near chance.

    Args:
        folder: Gets a directory for each checkpoint that is kept, `at-80` for instance; whole or not there at all. Where it is
            there, nothing is trained; a killed training goes on.
        seed: Of weights and texts.
        steps: Updates.
        batch_size: Texts in an update.
        lr: AdamW's; it rises for 100 steps and falls linearly in the last 30%.
        shape: Of the model.
        keep: Shares of the steps whose weights are kept, ascending; the last is 1, the SFT model.
        ending: Whether responses end; see `language.write_response`.
        device: `cpu` or `cuda`; by default a GPU where there is one.
        advance: Called with the steps done since the last call, and their total.

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
    found, tick = [folder / name for name in names], advance or (lambda done, total: None)
    if folder.exists():
        return found
    setting = f"seed {seed}, {steps} steps of {batch_size}, lr {lr}, {shape}, keep {list(keep)}, ending {ending}"
    seed_torch("initial weights", seed)
    model = new_model(shape or Shape()).to(device)
    course = _Course(folder.with_name(f".{folder.name}.partial"), setting, model, seed, steps, lr)
    with writing(folder):
        first = course.resume()
        tick(first, steps)
        for step in range(first + 1, steps + 1):
            course.step(*(each.to(device) for each in batch(batch_size, course.draw, ending)))
            for name in (name for name, kept in names.items() if kept == step):
                save_new_model(model, tokenizer(), course.partial / name)
            if step % SAVE_EVERY == 0 and step < steps:
                course.save(step)
            tick(1, steps)
        course.finish(folder)
    return found


class _Course:
    """A pre-training on its way, in a folder that becomes the result at the end.

    Args:
        partial: The folder.
        setting: What it is; a state of another one is not taken up.
        model: Trained here.
        seed: Of the texts.
        steps: In all.
        lr: At its highest.

    Attributes:
        draw: Where texts come from.
    """

    def __init__(self, partial: Path, setting: str, model: Any, seed: int, steps: int, lr: float) -> None:
        self.partial, self.setting, self.model = partial, setting, model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, step / 100, (steps - step) / (0.3 * steps))
        )
        self.draw = generator("pretraining texts", seed)

    def step(self, ids: torch.Tensor, tags: torch.Tensor) -> None:
        loss(self.model, ids, tags).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    def save(self, step: int) -> None:
        """Write the state that a killed training goes on from."""
        parts = {name: each.state_dict() for name, each in self._parts().items()}
        drawn, content = json.dumps(self.draw.bit_generator.state), io.BytesIO()
        torch.save({"setting": self.setting, "step": step, "draw": drawn, **parts}, content)
        write_whole(self.partial / STATE, content.getvalue())

    def resume(self) -> int:
        """Take up the last state and return its step; 0 where there is none of this setting."""
        file = self.partial / STATE
        state = torch.load(file, map_location="cpu", weights_only=True) if file.exists() else {}
        if state.get("setting") != self.setting:
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            return 0
        for name, each in self._parts().items():
            each.load_state_dict(state[name])
        self.draw.bit_generator.state = json.loads(state["draw"])
        return int(state["step"])

    def finish(self, folder: Path) -> None:
        self.partial.rename(folder)
        (folder / STATE).unlink(missing_ok=True)

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}


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
    rest["initializer_range"] = shape.spread
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
    texts = np.zeros((size, PROMPT_TOKENS + LENGTH + 1), dtype=np.int64)
    tags = np.zeros((size, len(VOCABULARY)), dtype=np.float32)
    for row in range(size):
        prompt = prompts[draw.integers(len(prompts))]
        words = write_response(prompt, draw, ending)
        ids = [PLACES[token] for token in (*prompt.split(), *words, END)]
        texts[row, : len(ids)] = ids
        shares = _tags(prompt, words, draw)
        tags[row, [PLACES[tag] for tag in shares]] = list(shares.values())
    return torch.from_numpy(texts), torch.from_numpy(tags)


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

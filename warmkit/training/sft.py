"""Supervised fine-tuning of a causal language model, with checkpoints kept on the way (WARM's Baklava needs several)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance, progress
from warmkit.common.records import is_natural, is_number, is_text, maybe
from warmkit.data.texts import Text, read_texts
from warmkit.errors import DataError, UsageError, listed
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.checkpointing import recompute_activations
from warmkit.modeling.generation_config import ends_of, saved_ends
from warmkit.modeling.quiet import evaluating
from warmkit.modeling.saving import save_model
from warmkit.modeling.tokens import Encoder, Tokens, by_length, longest, masked_padding, tokenizer_of
from warmkit.training.distributed import agreed, group
from warmkit.training.loop import begin, train
from warmkit.training.lora import add_adapters, merged
from warmkit.training.losses import completion_nll
from warmkit.training.recipe_sections import SftRecipe
from warmkit.training.run import RunDirectory
from warmkit.training.sharding import check_shards, shard, whole_weights
from warmkit.training.telling import Tell, tell_texts

EVALUATION_TOKENS = 8192
LOOKED_AT = 32  # chats
SUMMARY = {"steps": is_natural, "validation_loss": maybe(is_number), "opened_otherwise": maybe(is_text)}
"""What `summary.json` holds at least."""


@dataclass(frozen=True, repr=False)
class SftResult(Displayed):
    """Result of supervised fine-tuning.

    Attributes:
        path: The model's directory.
        kept: Directories of the models kept on the way, by step.
        summary: What `summary.json` holds.
    """

    path: Path
    kept: dict[int, Path]
    summary: dict[str, Any]


class SftTask:
    """Fine-tuning on completions, for the training loop."""

    section = "sft"

    def __init__(self, model: Any, encoder: Encoder, path: str, data: dict[str, tuple[list[Text], list[Tokens]]]) -> None:
        self.model, self.encoder, self.path, self.data = model, encoder, path, data
        self.texts, self.tokens = data["train"]
        self.examples = len(self.tokens)

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean negative log-likelihood of the completions' tokens, EOS included."""
        tokens = [self.tokens[row] for row in rows]
        total, count = self._sum(tokens, 1 << 40 if group().sharded else EVALUATION_TOKENS)
        return total / count, {"tokens": float(count)}

    def weight(self, rows: Sequence[int]) -> float:
        """Count the tokens that are learned: the mean of a batch is over these, in however many parts it is computed."""
        return sum(len(each) - max(1, each.answer) for each in (self.tokens[row] for row in rows))

    def _sum(self, tokens: Sequence[Tokens], most: int = EVALUATION_TOKENS) -> tuple[torch.Tensor, int]:
        least = len(tokens) if most > EVALUATION_TOKENS else 4  # every process must go through a sharded model as often
        total, count = torch.zeros((), device=self.model.device), 0
        for places in by_length([len(each) for each in tokens], most, least=least):
            group = [tokens[place] for place in places]
            batch = self.encoder.batch(group, self.model.device)
            starts = torch.tensor([max(1, each.answer) for each in group], device=batch.ids.device)[:, None]
            learned = (torch.arange(batch.ids.shape[1], device=batch.ids.device) >= starts) & batch.mask.bool()
            size = int(learned.sum())
            logits = self.model(**batch.inputs(), use_cache=False).logits
            total = total + completion_nll(logits, batch.ids, learned) * size
            count += size
        return total, count

    def places(self, rows: Sequence[int]) -> str:
        return ", ".join(self.texts[row].where or f"text {row}" for row in rows[:4]) + (", ..." if len(rows) > 4 else "")

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        if "validation" not in self.data:
            return {}
        with evaluating(self.model):
            total, count = self._sum(self.data["validation"][1])
        return {"validation_loss": float(total) / count}

    def save(self, run: RunDirectory, name: str) -> None:
        weights = whole_weights(self.model)
        if group().first:
            model = merged(copy.deepcopy(self.model)) if hasattr(self.model, "merge_and_unload") else self.model
            ends = saved_ends(model, ends_of(model, self.encoder.tokenizer))
            save_model(model, self.path, run.path / name, weights=weights, generation=ends)


def train_sft(
    recipe: SftRecipe, *, force: bool = False, advance: Advance | bool | None = None, tell: Tell | None = None
) -> SftResult:
    """Fine-tune a language model, or go on where a killed run stopped; a finished run is returned as it is.

    Args:
        recipe: Of the run.
        force: Delete a run of another recipe that lies there.
        advance: Called with the steps since the last call and the total; True draws a bar, False none; by default there is
            one in a notebook.
        tell: Called with a line about data that may be meant otherwise.

    Raises:
        DataError: If a row of the data cannot be used.
        TrainingError: If the loss is not finite, or memory runs out.
        ChangedError: If the directory holds a run that began with other weights.
        FormatError: If a file of it is of another form.
        OutputError: If it holds something else.
        UsageError: If a tracker is not installed.

    Source: WARM (Ramé et al., 2024), appendix C.3.1 (SFT) and C.3.2 (Baklava).
    """
    recipe, run, summary = begin(recipe, "sft", SUMMARY, force)
    kept = {step: run.kept(step) for step in recipe.sft.keep}
    if summary is not None:
        return SftResult(run.model, kept, summary)
    with agreed():
        task = open_task(recipe, tell)
        check_shards(recipe.sft, "sft", recipe.lora)
        shard(task.model)
    if recipe.lora is not None:
        task.model = add_adapters(task.model, recipe.lora, "CAUSAL_LM", recipe.sft.seed)
    if recipe.sft.gradient_checkpointing:
        recompute_activations(task.model)
    with progress(advance, "training", "steps") as tick:
        outcome = train(task, recipe.sft, run, tick)
    task.save(run, run.model.name)
    data = {
        name: {"texts": len(tokens), "truncated": sum(bool(each.truncated) for each in tokens)}
        for name, (_, tokens) in task.data.items()
    }
    summary = {
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "data": data,
        **_opened_otherwise(task),
        **task.evaluate(),
        "last": outcome.last,
    }
    return SftResult(run.model, kept, run.finish(summary))


def _opened_otherwise(task: SftTask) -> dict[str, str]:
    """Say what the chat template opens answers with and no finished chat has there (the first chats are looked at)."""
    found = (task.encoder.opens_otherwise(text.prompt, text.completion) for text in task.texts[:LOOKED_AT])
    return next(({"opened_otherwise": each} for each in found if each is not None), {})


def open_task(recipe: SftRecipe, tell: Tell | None = None) -> SftTask:
    """Load the model and the data of a recipe."""
    path = recipe.model.path
    if recipe.model.head is not None or recipe.data.corrupt or recipe.data.ood is not None:
        raise UsageError("model.head, data.corrupt and data.ood are for reward models; leave them out of an SFT recipe")
    model = load_causal_model(path, group().device, recipe.sft.dropout)
    tokenizer = tokenizer_of(path)
    pad_token = masked_padding(tokenizer, recipe.model.pad_token)
    encoder = Encoder(tokenizer, longest(model.config, tokenizer, recipe.model.max_length), pad_token)
    sources = {"train": recipe.data.train, "validation": recipe.data.validation}
    data = {name: _read(source, encoder, recipe) for name, source in sources.items() if source is not None}
    tell_texts(tell, [(text.prompt, text.completion) for text in data["train"][0]], encoder, path, recipe.data.chat)
    return SftTask(model, encoder, path, data)


def _read(source: str, encoder: Encoder, recipe: SftRecipe) -> tuple[list[Text], list[Tokens]]:
    texts = read_texts(source, chat=bool(recipe.data.chat))
    tokens = encoder.encode([(text.prompt, text.completion) for text in texts], closed=True)
    if lost := [text.where for text, each in zip(texts, tokens) if each.answer < 0]:
        raise DataError(
            f"the chat template writes {len(lost)} chats so that it cannot be told where the answer starts, and prompts must "
            f"not be learned:\n{listed(lost)}"
        )
    long = [f"{text.where}: {len(each) + each.truncated} tokens" for text, each in zip(texts, tokens) if each.truncated]
    if recipe.model.overlong == "refuse" and long:
        raise DataError(f"{len(long)} texts are longer than model.max_length {encoder.max_length}:\n{listed(long)}")
    return texts, tokens

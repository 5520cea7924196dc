"""A tiny language model of real text, from nothing: the docstrings of the standard library that runs this."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator, seed_torch
from warmkit.common.whole_files import writing
from warmkit.data.docstrings import docstrings, sources
from warmkit.errors import OutputError, WarmkitError
from warmkit.modeling.saving import save_new_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END = "<|end|>"  # token 0, after every docstring


@dataclass(frozen=True)
class DocstringModelSize:
    """How big the model is, and how long it learns.

    Attributes:
        vocabulary: Tokens, at most.
        width: Of the residual stream.
        layers: Of the transformer.
        context: Tokens in a window.
        batch: Windows in a step.
        steps: Updates; the rate rises for the first twelfth, and falls in a straight line from 3e-3 to a twentieth of it.
        files: Files read, at most; None reads all.
    """

    vocabulary: int = 2048
    width: int = 128
    layers: int = 2
    context: int = 128
    batch: int = 8
    steps: int = 900
    files: int | None = None

    def rate(self, step: int) -> float:
        """Return the learning rate of one step, counted from 0."""
        return 3e-3 * min(1.0, 12 * (step + 1) / self.steps) * (1 - 0.95 * step / self.steps)


def write_docstring_model(
    folder: Path, seed: int = 0, advance: Advance | None = None, force: bool = False, size: DocstringModelSize | None = None
) -> Path:
    """Train a Llama on docstrings and write it with its tokenizer: whole, or not at all.

    Args:
        folder: Where to.
        seed: Of the weights and the order of the text.
        advance: Progress callback, in steps.
        force: Replace what is there.
        size: Of the model; by default about a minute on two cores.

    Raises:
        OutputError: If the folder exists and `force` is not set, or cannot be written.
        WarmkitError: If this Python has no source files of its standard library.
    """
    size, partial = size or DocstringModelSize(), folder.with_name(f".{folder.name}.partial")
    if folder.exists() and not force:
        raise OutputError(f"{folder}: already exists; choose another -o, or replace it with --force")
    tokenizer, stream = _read(size)
    with torch.random.fork_rng(devices=[]):
        seed_torch("initial weights", seed)
        model = _new_model(len(tokenizer.get_vocab()), size)
    _train(model, stream, size, seed, advance or (lambda done, total: None))
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        save_new_model(model, _wrapped(tokenizer), partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return folder


def _read(size: DocstringModelSize) -> tuple[Tokenizer, torch.Tensor]:
    library = Path(sysconfig.get_path("stdlib"))
    texts = list(dict.fromkeys(chain.from_iterable(map(docstrings, sources(library)[: size.files]))))
    if sum(map(len, texts)) < 16 * size.context * size.batch:
        raise WarmkitError(f"{library}: expected the source files of the standard library, with their docstrings")
    tokenizer = _train_tokenizer(texts, size.vocabulary)
    return tokenizer, torch.tensor([0, *chain.from_iterable([*each.ids, 0] for each in tokenizer.encode_batch(texts))])


def _train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wrapped(tokenizer: Tokenizer) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


def _new_model(vocabulary: int, size: DocstringModelSize) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {
        "hidden_size": size.width,
        "intermediate_size": 3 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": 4,
        "max_position_embeddings": size.context,
        "tie_word_embeddings": True,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, bos_token_id=0, eos_token_id=0, **shape))


def _train(model: Any, stream: torch.Tensor, size: DocstringModelSize, seed: int, advance: Advance) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    draw = generator("docstring windows", seed)
    for step, windows in enumerate(islice(_batches(stream, size, draw), size.steps)):
        optimizer.param_groups[0]["lr"] = size.rate(step)
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        advance(1, size.steps)


def _batches(stream: torch.Tensor, size: DocstringModelSize, draw: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield [batch, context + 1] windows without end: every epoch cuts the stream elsewhere and shuffles the pieces."""
    places = torch.arange(size.context + 1)
    while True:
        first = int(draw.integers(size.context))
        count = (len(stream) - 1 - first) // size.context
        starts = first + size.context * torch.from_numpy(draw.permutation(count))
        yield from (stream[part[:, None] + places] for part in starts.split(size.batch))

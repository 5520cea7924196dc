"""Tiny models with real tokenizers, and preferences that can be learnt: the answer that says `gold` wins."""

from __future__ import annotations

import functools
import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from warmkit.data.preferences import Pair, read_pairs
from warmkit.modeling.reward_model import RewardModel, load_reward_model
from warmkit.training.recipe_sections import DataSection, ModelSection, RewardModelRecipe, RewardOptimization, RunOutput

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["the", "a", "cat", "dog", "sun", "moon", "tree", "river", "sings", "sleeps", "runs", "grey", "blue", "small", "old"]
WORDS += ["warm", "gold"]
ARCHITECTURES = ("llama", "gpt2", "bert")
DECODERS = ("llama", "gpt2")
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
HIDDEN, LAYERS = 32, 2


def sentences(count: int, seed: int = 0) -> list[str]:
    """Return sentences of two to nine words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS[:-1], k=draw.randint(2, 9))) for _ in range(count)]


# ---- tokenizers -----------------------------------------------------------------------------------------------------


def byte_tokenizer(special: Sequence[str], **tokens: Any) -> Any:
    """Train a byte-level BPE tokenizer on the sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted("abcdefghijklmnopqrstuvwxyz .[]?!Ġ")
    trainer = trainers.BpeTrainer(vocab_size=180, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator([*sentences(200), *WORDS], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **tokens)


def llama_tokenizer(**changes: Any) -> Any:
    """Return a tokenizer that puts BOS itself, as Llama's does, with `<pad>`, and a chat template."""
    from tokenizers.processors import TemplateProcessing

    special = ["<unk>", "<s>", "</s>", "<pad>"]
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **changes}
    result = byte_tokenizer(special, **{key: value for key, value in named.items() if value is not None})
    result.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    result.chat_template = CHAT
    return result


def gpt2_tokenizer() -> Any:
    """Return a tokenizer whose one special token is everything, as GPT-2's, with a spare one to pad with."""
    end = "<|endoftext|>"
    return byte_tokenizer([end, "<|spare|>"], unk_token=end, bos_token=end, eos_token=end, pad_token=end)


def bert_tokenizer() -> Any:
    from tokenizers import BertWordPieceTokenizer

    inner = BertWordPieceTokenizer()
    inner.train_from_iterator([*sentences(200), *WORDS], vocab_size=180, min_frequency=1, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        inner.save_model(folder)
        return transformers.BertTokenizerFast(vocab=f"{folder}/vocab.txt")


def roberta_tokenizer() -> Any:
    """Return a tokenizer that puts two separators between texts and knows no token types."""
    from tokenizers.processors import RobertaProcessing

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    named = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>"}
    result = byte_tokenizer(special, **named, pad_token="<pad>", model_input_names=["input_ids", "attention_mask"])
    result.backend_tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    return result


# ---- models ---------------------------------------------------------------------------------------------------------


def config(architecture: str, size: int, **changes: Any) -> Any:
    """Return the config of a tiny model without dropout."""
    if architecture == "llama":
        shape = {"hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
        options = {"max_position_embeddings": 96, "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0}}
        return transformers.LlamaConfig(vocab_size=size, **{**shape, **options, **changes})
    if architecture == "gpt2":
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        shape = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 96}
        return transformers.GPT2Config(vocab_size=size, **{**shape, **off, **changes})
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    shape = {"hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    return transformers.BertConfig(vocab_size=size, max_position_embeddings=96, **{**shape, **off, **changes})


@functools.cache
def tokenizer(architecture: str) -> Any:
    return {"llama": llama_tokenizer, "gpt2": gpt2_tokenizer, "bert": bert_tokenizer}[architecture]()


def make(folder: Path, architecture: str, seed: int = 0, own: Any = None, **changes: Any) -> Path:
    """Write a language model (BERT: an encoder with its pooler) with its tokenizer."""
    own = own or tokenizer(architecture)
    torch.manual_seed(seed)
    # vectors of norms start at 1 and biases at 0; larger matrices than by default, so that a few steps learn
    made = config(architecture, len(own), initializer_range=0.1, **changes)
    classes = {"llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel", "bert": "BertModel"}
    getattr(transformers, classes[architecture])(made).save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


@functools.cache
def _made(architecture: str) -> Path:
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="warmkit-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make(folder / architecture, architecture)


def model(architecture: str, folder: Path) -> Path:
    """Write a tiny model; made once, copied afterwards."""
    if not folder.exists():
        shutil.copytree(_made(architecture), folder)
    return folder


PAD = {"llama": None, "gpt2": "<|spare|>", "bert": None}
"""`model.pad_token` of each architecture's recipe."""


def load(path: Path, architecture: str = "llama", **options: Any) -> RewardModel:
    return load_reward_model(path, pad_token=PAD[architecture], device="cpu", **options)


# ---- data -----------------------------------------------------------------------------------------------------------


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return preferences of different lengths; the answer with `gold` in it wins."""
    draw, result = random.Random(seed), list[dict[str, str]]()
    for prompt, first, second in zip(sentences(count, seed + 1), sentences(count, seed + 2), sentences(count, seed + 3)):
        words = first.split()
        words.insert(draw.randint(0, len(words)), "gold")
        result.append({"prompt": prompt, "chosen": " " + " ".join(words), "rejected": " " + second})
    return result


def write(file: Path, lines: Sequence[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return file


def preferences(folder: Path, count: int = 24, seed: int = 0) -> list[Pair]:
    return read_pairs(write(folder / f"pairs-{count}-{seed}.jsonl", rows(count, seed)))


# ---- recipes --------------------------------------------------------------------------------------------------------


def recipe(folder: Path, architecture: str = "llama", name: str = "run", **how: Any) -> RewardModelRecipe:
    """Return a recipe of a short training on a tiny model."""
    source = str(model(architecture, folder / architecture))
    train, held_out = folder / "train.jsonl", folder / "validation.jsonl"
    if not train.exists():
        write(train, rows(24))
        write(held_out, rows(16, seed=50))
    settings = {"lr": 1e-3, "steps": 6, "batch_size": 8, "precision": "float32", **how}
    return RewardModelRecipe(
        ModelSection(source, pad_token=PAD[architecture]),
        DataSection(str(train), str(held_out)),
        RunOutput(str(folder / name)),
        RewardOptimization(**settings),
    )


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a directory."""
    from safetensors.torch import load_file

    return load_file(path / "model.safetensors")


def bytes_of(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()

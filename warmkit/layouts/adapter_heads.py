"""Classifier from a language model and an adapter that holds its head, as TRL trains reward models.

peft saves the module that was trained, `score`, whole in the adapter (`modules_to_save`); the base is the language model as it
was, with another head. transformers reads the two together as a sequence classifier, and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.json_files import read_object
from warmkit.errors import FormatError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import StoredTensor
from warmkit.layouts.adapter_config import AdapterConfig
from warmkit.layouts.tokenizer import read_vocabulary_file
from warmkit.sources.small_files import TOKENIZER_CONFIG

SCORE = "score.weight"
"""The head of every decoder's classifier in transformers, [labels, width], without a bias."""

CLASSIFIER = "ForSequenceClassification"
_DECODERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "Model")
_OTHER_TASKS = ("TOKEN_CLS", "QUESTION_ANS")
_HEADS = frozenset(("lm_head", "embed_out"))


def with_own_head(base: Checkpoint, whole: Mapping[str, StoredTensor], config: AdapterConfig) -> Checkpoint:
    """Return a language model as the classifier that an adapter was trained on, where it brings the head of one.

    The head is the adapter's, with its number of labels; that of the language model is left out, as transformers leaves it. A
    base whose adapter brings no such head, or has one itself, stays as it is.

    Args:
        base: The model that the adapter lies on.
        whole: Tensors that the adapter holds whole, by their names in the model.
        config: Of the adapter.
    """
    head, kind = whole.get(SCORE), classifier_of(base.config, config.trained)
    if head is None or SCORE in base.entries or kind is None or "score.bias" in whole or config.task in _OTHER_TASKS:
        return base
    if len(head.shape) != 2:
        return base
    entries = {name: entry for name, entry in base.entries.items() if not _HEADS & set(name.split("."))}
    names = [f"LABEL_{place}" for place in range(head.shape[0])]
    content = {key: value for key, value in base.config.items() if key not in ("num_labels", "problem_type")}
    content |= {"architectures": [kind], "id2label": {str(place): name for place, name in enumerate(names)}}
    content |= {"label2id": {name: place for place, name in enumerate(names)}}
    note = f"{base.source}: read as {kind}; its head is that of {config.path.parent}"
    own = {SCORE: replace(head, name=SCORE)}
    return replace(base, entries={**entries, **own}, own_config=content, notes=(*base.notes, note))


def classifier_of(config: Mapping[str, Any], trained: str | None = None) -> str | None:
    """Return the class that reads a decoder as a sequence classifier; None where there is none.

    Args:
        config: Of the language model, or of such a classifier.
        trained: The class that an adapter says it was trained on; None where it does not say.
    """
    if trained is not None:
        return trained if trained.endswith(CLASSIFIER) else None
    named = (config.get("architectures") or [""])[0]
    if named.endswith(CLASSIFIER):
        return named
    stem = next((named.removesuffix(end) for end in _DECODERS if named.endswith(end)), "")
    textual = str(config.get("model_type")).endswith("_text") and not stem.endswith("Text")  # Gemma3ForCausalLM's classifier
    return f"{stem}{'Text' if textual else ''}{CLASSIFIER}" if stem else None


def lost_head(base: Checkpoint, whole: Mapping[str, StoredTensor], config: AdapterConfig) -> list[str]:
    """Return a note where a classifier was trained and its head is in no file: peft saves only what it is told to."""
    if not (config.trained or "").endswith(CLASSIFIER) or SCORE in whole or not _is_language_model(base.config):
        return []
    said = f"was trained as {config.trained}, and its head is in no file (it was not in peft's modules_to_save)"
    return [f"{config.path.parent}: {said}; what is read is a language model"]


def _is_language_model(config: Mapping[str, Any]) -> bool:
    return (config.get("architectures") or [""])[0].endswith(_DECODERS[:-1])


def padded_as_trained(base: Checkpoint, adapter: Path) -> Checkpoint:
    """Return a classifier with the padding of an adapter's own tokenizer: it tells where a text ends, and so what is scored.

    Raises:
        FormatError: If that tokenizer's padding is none of its tokens.
    """
    if not (base.config.get("architectures") or [""])[0].endswith(CLASSIFIER):
        return base
    token = _padding(adapter)
    if token is None:
        return base
    content = {**base.config, "pad_token_id": _id(adapter, token)}
    text = content.get("text_config")
    if isinstance(text, dict):
        content["text_config"] = {**text, "pad_token_id": content["pad_token_id"]}
    return base if content == base.config else replace(base, own_config=content)


def _padding(home: Path) -> str | None:
    """Return the padding token of the tokenizer in a directory, None where there is none."""
    file = home / TOKENIZER_CONFIG
    token: Any = read_object(file).get("pad_token") if file.is_file() else None
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _id(home: Path, token: str) -> int:
    file = home / "tokenizer.json"
    known = read_vocabulary_file(file).ids if file.is_file() else _older(home)
    if token not in known:
        raise FormatError(f"{home / TOKENIZER_CONFIG}: pad_token {token!r} is none of the tokens of its tokenizer")
    return known[token]


def _older(home: Path) -> dict[str, int]:
    """Return the added tokens of a tokenizer without `tokenizer.json`."""
    added: Any = read_object(home / TOKENIZER_CONFIG).get("added_tokens_decoder")
    tokens = added.items() if isinstance(added, dict) else ()
    named = [(token.get("content"), place) for place, token in tokens if isinstance(token, dict)]
    return {content: int(place) for content, place in named if isinstance(content, str) and place.isdigit()}

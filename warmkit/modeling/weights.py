"""Weights in the names of the checkpoint, taken over by a loaded model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from warmkit.common.file_kinds import kind_of
from warmkit.errors import CheckpointError, MismatchError
from warmkit.formats.checkpoint import Checkpoint, LazyTensor
from warmkit.formats.memory import MemoryTensor, in_memory
from warmkit.layouts.adapter_config import is_adapter, split
from warmkit.layouts.one_layout import in_one_layout
from warmkit.layouts.opening import open_checkpoint
from warmkit.modeling.quiet import quiet
from warmkit.sources.hub import resolve

EXPERTS = ".experts."


def load_weights(model: Any, weights: Mapping[str, torch.Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Replace a model's weights, by those of a merge in memory for instance.

    Args:
        model: Of transformers.
        weights: By the names of the checkpoint, in any layout of its architecture; tied copies may be left out.
        source: Of the model, for messages.
        optional: Other names that may be left out.

    Raises:
        MismatchError: If they are not those of this architecture.
    """
    left_out = {*(getattr(model, "all_tied_weights_keys", None) or ()), *optional}
    named = _as_in_memory(model, weights, source)
    if named.keys() - model.state_dict().keys():
        named = _converted(model, weights, source)
    try:
        outcome = model.load_state_dict(named, strict=False)
    except RuntimeError as error:
        raise MismatchError(f"{source}: weights do not fit: {' '.join(str(error).split())[:300]}") from None
    missing = [name for name in outcome.missing_keys if name not in left_out]
    if missing or outcome.unexpected_keys:
        raise MismatchError(f"{source}: weights do not fit: {sorted(missing + outcome.unexpected_keys)[:6]}")


def _as_in_memory(model: Any, weights: Mapping[str, torch.Tensor], source: str) -> Mapping[str, torch.Tensor]:
    """Return weights under the names that a model has in memory, as far as the tables of layouts tell them."""
    own = model.state_dict()
    if all(name in own and own[name].shape == each.shape for name, each in weights.items()):
        return weights
    config = model.config.to_dict()
    _, read = in_one_layout([in_memory(name, each, config) for name, each in ((type(model).__name__, own), (source, weights))])
    entries = read.entries.items()
    return {name: each.tensor if isinstance(each, MemoryTensor) else LazyTensor(each).load() for name, each in entries}


def _converted(model: Any, weights: Mapping[str, torch.Tensor], source: str) -> Mapping[str, torch.Tensor]:
    """Turn names of a checkpoint into those in memory, as transformers does when it loads one: experts fused, parts renamed."""
    dtype = next(model.parameters()).dtype
    with quiet(), torch.random.fork_rng(devices=[]):  # what weights lack is drawn, and dropped here
        try:
            loaded, told = type(model).from_pretrained(
                None, config=model.config, state_dict=dict(weights), dtype=dtype, output_loading_info=True
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise MismatchError(f"{source}: weights do not fit: {' '.join(str(error).split())[:300]}") from None
    if told["unexpected_keys"]:
        raise MismatchError(f"{source}: weights do not fit: {sorted(told['unexpected_keys'])[:6]}")
    return {name: value for name, value in loaded.state_dict().items() if name not in told["missing_keys"]}


def home_of(source: str) -> Path:
    """Return the directory that transformers loads a model from: an adapter's is its base's, see `load_adapters`.

    Raises:
        CheckpointError: If it is not there.
    """
    adapted = _adapted(source)
    home = adapted.path if adapted is not None else resolve(source)
    if (what := kind_of(home)) != "a directory":
        raise CheckpointError(f"{source}: expected a model directory with config and tokenizer, found {what}")
    return home


def tokenizer_home(source: str) -> Path:
    """Return the directory that holds a model's tokenizer: that of the last adapter that brings one, else `home_of(source)`.

    An adapter is trained on texts as its own tokenizer and template write them (TRL saves both beside it).

    Raises:
        CheckpointError: If it is not there.
    """
    adapted = _adapted(source)
    return (adapted.tokenizer_home if adapted else None) or home_of(source)


def load_adapters(model: Any, source: str) -> None:
    """Give a model that was loaded from `home_of(source)` what an adapter on it changes; other models stay as they are.

    Raises:
        MismatchError: If the names of the checkpoint are not those of the model.
    """
    adapted = _adapted(source)
    if adapted is None:
        return
    files = {file for file in adapted.files if isinstance(file, Path) and file.parent in adapted.adapters}
    changed = {name: each.load() for name, each in adapted.items() if each.entry.file in files}
    if adapted.config.get("tie_word_embeddings") is False:
        _untie(model)
    if changed.keys() - model.state_dict().keys():
        changed |= {name: adapted[name].load() for name in _other_experts(changed, adapted)}
        changed = _converted(model, changed, source)
    model.load_state_dict(changed, strict=False)


def _other_experts(changed: Collection[str], names: Collection[str]) -> list[str]:
    """Return the tensors of the experts beside those that changed: in memory they may be one tensor."""
    homes = {name.partition(EXPERTS)[0] for name in changed if EXPERTS in name}
    return [name for name in names if EXPERTS in name and name.partition(EXPERTS)[0] in homes and name not in changed]


def _untie(model: Any) -> None:
    """Give a model whose head is its embedding a head of its own, with the same weights."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and embedding is not None and head.weight is embedding.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
        model.config.tie_word_embeddings = False
        model.all_tied_weights_keys = {}


def _adapted(source: str) -> Checkpoint | None:
    return open_checkpoint(source) if split(source) is not None or is_adapter(resolve(source)) else None

"""Heads that the models have and their init lacks: reward models from a language model, whose head they replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from warmkit.errors import MismatchError, UsageError, nearest
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import Tensor
from warmkit.layouts.token_rows import PickedTensor

HEADS = ("init", "models")
_OF_HEADS = ("architectures", "id2label", "label2id", "num_labels", "problem_type", "tie_word_embeddings")


def with_heads_of_models(
    init: Checkpoint, models: Sequence[Checkpoint], shares: Sequence[float]
) -> tuple[list[Checkpoint], frozenset[str], list[str]]:
    """Return init and models with one set of names, that of the models.

    What the models have and the init lacks is everywhere its mean over the models, by their shares: it has no task vector. What
    the init alone has is left out.

    Returns:
        The checkpoints, the init first; the names of what is a mean; notes.

    Raises:
        UsageError: If there is nothing that the init lacks.
        MismatchError: If the models differ in it, or init and models share less than half of their tensors.
    """
    first = models[0]
    own = [name for name in first.entries if name not in init.entries]
    gone = [name for name in init.entries if name not in first.entries]
    if not own:
        raise UsageError(f"--heads models: {first.source} has no tensor that {init.source} lacks; leave it out")
    if 2 * len(own) > len(first.entries):
        raise MismatchError(
            f"{first.source} and {init.source} share less than half of their tensors; {own[0]!r} is in one alone"
        )
    means = {name: _mean([each.entries.get(name) for each in models], models, name, shares) for name in own}
    content = {key: value for key, value in init.config.items() if key not in _OF_HEADS}
    content |= {key: value for key, value in first.config.items() if key in _OF_HEADS}
    names = {name: means.get(name) or init.entries[name] for name in first.entries}
    headed = replace(init, entries=names, own_config=content if init.config else {})
    rest = [replace(each, entries={**each.entries, **means}) for each in models]
    note = f"{own[0]!r}{f' and {len(own) - 1} more' if len(own) > 1 else ''}: the mean of the models, which {init.source} lacks"
    left = f"; its {gone[0]!r}{f' and {len(gone) - 1} more' if len(gone) > 1 else ''} left out" if gone else ""
    return [headed, *rest], frozenset(own), [note + left]


def _mean(tensors: Sequence[Tensor | None], models: Sequence[Checkpoint], name: str, shares: Sequence[float]) -> Tensor:
    present = [each for each in tensors if each is not None]
    if len(present) < len(models) or len({each.shape for each in present}) > 1 or not present[0].shape:
        raise MismatchError(f"--heads models: {name!r} is not in all models with one shape")
    if any(each.dtype.kind != "float" for each in present):
        raise MismatchError(f"--heads models: {name!r} is {present[0].dtype.name}, expected floating-point numbers")
    even = min(shares) < 0 or not sum(shares)
    weights = [1 / len(present) if even else share / sum(shares) for share in shares]
    rows = range(present[0].shape[0])
    means = {row: [(weight, each, row) for weight, each in zip(weights, present)] for row in rows}
    return PickedTensor(present[0], np.full(len(rows), -1, np.int64), means)


def advice_on_heads(init: Checkpoint | None, models: Sequence[Checkpoint]) -> str:
    """Return what to do where models share names that their init lacks, "" where that is not so."""
    if init is None or any(each.entries.keys() != models[0].entries.keys() for each in models):
        return ""
    own = [name for name in models[0].entries if name not in init.entries]
    if not own or 2 * len(own) > len(models[0].entries):
        return ""
    return f"\n--heads models averages what the models alone have ({own[0]!r}) and leaves out what the init alone has"


def check_heads(value: str, init: bool) -> bool:
    """Say whether heads are the models'.

    Raises:
        UsageError: If `value` is unknown, or there is no init.
    """
    if value not in HEADS:
        raise UsageError(f"unknown heads {value!r}{nearest(value, HEADS)}")
    if value == "models" and not init:
        raise UsageError("--heads models is for models whose init has another head; without --init leave it out")
    return value == "models"

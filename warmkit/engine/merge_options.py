"""Options of everything that writes a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from typing_extensions import TypedDict

from warmkit.common.addresses import shown
from warmkit.common.progress import Advance
from warmkit.errors import UsageError

PathLike: TypeAlias = "str | os.PathLike[str]"
Varying: TypeAlias = "float | Sequence[float] | Sequence[Mapping[str, Any]]"
"""A number that may change over the model; see `layouts.layer_settings`."""
ZERO = "zero"  # as an init: a model of zeros, which nobody stores


def check_models(models: object) -> None:
    """Refuse one model where a list is expected, which would be taken apart into letters or tensors, and an empty list.

    Raises:
        UsageError: If it is one of these.
    """
    if isinstance(models, str | os.PathLike):
        name = shown(cast("str", models))
        raise UsageError(f"expected a list of models, found {name!r}; write [{name!r}]")
    if isinstance(models, Mapping) or not models:
        raise UsageError(f"expected a list of models, found {'one state dict' if models else 'none'}")


class OutputOptions(TypedDict, total=False):
    """Options of everything that writes a model.

    Attributes:
        dtype: `float32`, `bfloat16`, `float16` or `float64`; by default each tensor's own type in the init or first model.
        max_shard_size: Bytes of a shard, `5GB` for instance.
        threads: Worker threads; by default one per core.
        device: `cpu`, or `cuda` to compute on a GPU.
        dry_run: Check and plan only.
        estimate: With `dry_run`, merge a sample to say how long the whole takes; too small a disk is reported, not raised.
            Inputs that are streamed are not sampled, nor are methods that take matrices whole.
        force: Replace a checkpoint that is there, in one step at the end.
        resume: Go on where an interrupted run of the same plan stopped; True by default.
        allow_nonfinite: Let NaN and infinity pass.
        stream: Read Hub repositories by byte ranges; nothing of their weights is kept on disk.
        sha256: Also record SHA-256 of every file; costs more than the merge.
        allow_pickle: Also read inputs that torch saved, as `open_checkpoint` says.
        state_dict: Which to read of several in a file, as `open_checkpoint` says; files with one are read as they are.
        only: Patterns (`model.layers.*`); tensors that match none are copied from the init, or first model.
        exclude: Patterns; tensors that match one are copied from there.
        layout: Names and shapes of the result, where inputs have several: by default the init's, else the first model's;
            `canonical`, as transformers 5 writes them; `memory`, as it holds them, experts in stacks.
        heads: `init`, or `models`: what the models have and the init lacks is averaged, what the init alone has is left out.
        tokenizer: The input whose tokenizer is written; by default that of the init, else of the first model.
        chat_template: A Jinja template, the path of one, or `auto`: the one that most inputs have; by default the tokenizer's.
        vocabulary: `strict`, `union`, `init` or `common`, as `match_vocabularies` says.
        token_rows: Rows of single tokens, new ones too: `{"<|x|>": {"model": "A", "token": "</s>", "force": True}}`. See
            `TokenChanges`.
        pad_to_multiple_of: Make the number of rows of embedding and head a multiple of it.
        container: `safetensors`; or `same`: a copy of the first model's files (of a run's newest checkpoint's) as its trainer
            left them, with the result in them, from which training goes on.
        optimizer: Of a copy: `average` averages the optimizer's moments too, `keep` leaves its state as it is in the files that
            are copied. By default the state is left out.
        strict: Take what is allowed and seldom meant (the same model twice, a lambda of 30) for an error, not for a note.
        advance: Called with the bytes moved since the last call and the total; True draws a bar, False none; by default there
            is one in a notebook.
    """

    dtype: str | None
    max_shard_size: str | int
    threads: int | None
    device: str
    dry_run: bool
    estimate: bool
    force: bool
    resume: bool
    allow_nonfinite: bool
    stream: bool
    sha256: bool
    allow_pickle: bool
    state_dict: str | None
    only: Sequence[str]
    exclude: Sequence[str]
    layout: str | None
    heads: str
    tokenizer: str | None
    chat_template: str | None
    vocabulary: str
    token_rows: Mapping[str, Mapping[str, Any]] | None
    pad_to_multiple_of: int | None
    container: str
    optimizer: str | None
    strict: bool
    advance: Advance | bool | None


OwnValue: TypeAlias = "float | bool | Sequence[float] | Sequence[Any] | None"
"""Value of a method's own parameter; a list has a number, or rules that change over the model, for each model."""


class MergeOptions(OutputOptions, total=False, extra_items=OwnValue):
    """What `merge` takes beside: how results are written, and the parameters of the method, which its signature declares."""

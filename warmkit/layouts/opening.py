"""Opening a model, whatever a user names: the door to every source, container and layout."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from warmkit.common.addresses import refuse_password, shown
from warmkit.errors import CheckpointError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.containers import open_weights
from warmkit.layouts.adapter_config import CONFIG, base_of, is_adapter, read_config, split
from warmkit.layouts.config_defaults import ties
from warmkit.sources.file_identity import Identity, identities_at, identity
from warmkit.sources.files import refuse_irregular
from warmkit.sources.hub import resolve
from warmkit.sources.runs import at_step


def open_checkpoint(source: str | os.PathLike[str], *, allow_pickle: bool = False, stream: bool = False) -> Checkpoint:
    """Open a checkpoint and check its headers; no weights are read.

    Args:
        source: A directory with one `model.safetensors`, or with an index and its shards; one `.safetensors` file; a Hub
            repository `hf://owner/name[@revision]`, or `owner/name` where no such local path exists; an address
            (`https://`, `s3://`, ...), which is always streamed; `RUN@1000` or `RUN@-1`, a step of a training directory or its
            newest checkpoint; `BASE+ADAPTER`, both of these kinds, or an adapter alone, which names its base: the dense
            weights that the two stand for.
        allow_pickle: Also read what torch saved, where there are no safetensors: `pytorch_model.bin`, `.pt`, `.ckpt`, and
            directories of torch.distributed.checkpoint. Nothing that a pickle names is imported or called.
        stream: Read a Hub repository by byte ranges instead of fetching it first.

    Returns:
        A mapping from tensor names to lazy tensors.

    Raises:
        CheckpointError: If it is not there, malformed, or of a kind that is refused.

    Examples:
        >>> checkpoint = open_checkpoint("runs/sft")  # doctest: +SKIP
        >>> checkpoint["lm_head.weight"].shape  # doctest: +SKIP
        (32000, 2048)
    """
    source, how = str(source), {"allow_pickle": allow_pickle, "stream": stream}
    refuse_password(source)
    if (pair := split(source)) is not None:
        return _open_pair(*pair, **how)
    source = at_step(source)
    if stream or "://" in source:
        from warmkit.formats.safetensors_model import open_streamed
        from warmkit.sources.places import is_streamed, open_remote

        if is_streamed(source, stream):
            return open_streamed(open_remote(source))
    path, source = resolve(source, allow_pickle), shown(source)
    if not path.is_dir():
        refuse_irregular(path)
    if is_adapter(path):
        return _open_adapter(source, path, **how)
    before = identities_at(path)
    return _identified(_without_tied_copies(open_weights(source, path, allow_pickle)), before)


def _open_pair(base: str, adapter: str, **how: bool) -> Checkpoint:
    """Open `BASE+ADAPTER`."""
    from warmkit.layouts.adapters import find_adapter, on_base  # brings a compiler, which other checkpoints do not need

    found = find_adapter(adapter)
    given = open_checkpoint(base, **how)
    named = found.config.base is not None and Path(shown(found.config.base)).name != Path(given.source).name
    note = f"{found.source}: adapter on {given.source}; its config names {shown(found.config.base or '')}" if named else None
    return on_base(f"{given.source}+{found.source}", given, found, note)


def _open_adapter(source: str, directory: Path, **how: bool) -> Checkpoint:
    """Open an adapter on the base that its config names."""
    from warmkit.layouts.adapters import FoundAdapter, on_base

    found = FoundAdapter(source, directory, identities_at(directory), read_config(directory))
    try:
        base = open_checkpoint(base_of(found.config), **how)
    except CheckpointError as error:
        advice = "" if "give the base as" in str(error) else f"; give it as BASE+{source}"
        raise CheckpointError(f"{directory}: its base cannot be opened: {error}{advice}") from None
    return on_base(source, base, found, f"{source}: adapter on {base.source}, as its {CONFIG} says")


def _without_tied_copies(checkpoint: Checkpoint) -> Checkpoint:
    """Leave out what a pickle stores as the same tensor as an earlier name, where the config ties: loaders tie them again."""
    if not checkpoint.tied or not ties(checkpoint.config):
        return checkpoint
    kept = {name: each for name, each in checkpoint.entries.items() if name not in checkpoint.tied}
    return replace(checkpoint, entries=kept)


def _identified(checkpoint: Checkpoint, before: Mapping[Path, Identity]) -> Checkpoint:
    """Return it with the identities of its files; those that an index has deep in folders are as they are now."""
    deep = {file: identity(file) for file in checkpoint.files if isinstance(file, Path) and file not in before}
    return replace(checkpoint, identities={**before, **{file: each for file, each in deep.items() if each is not None}})

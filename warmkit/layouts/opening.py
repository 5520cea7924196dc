"""Opening a model, whatever a user names: the door to every source, container and layout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict, Unpack

from warmkit.common.addresses import refuse_password, shown
from warmkit.errors import CheckpointError, StateDictError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.containers import open_weights
from warmkit.layouts.adapter_config import CONFIG, base_of, is_adapter, read_config, split
from warmkit.layouts.config_defaults import ties
from warmkit.layouts.one_layout import in_one_layout
from warmkit.sources.file_identity import Identity, identities_at, identity
from warmkit.sources.files import refuse_irregular
from warmkit.sources.hub import resolve
from warmkit.sources.runs import at_step


class Reading(TypedDict):
    """How `open_checkpoint` reads."""

    allow_pickle: bool
    stream: bool
    state_dict: str | None


def open_checkpoint(
    source: str | os.PathLike[str], *, allow_pickle: bool = False, stream: bool = False, state_dict: str | None = None
) -> Checkpoint:
    """Open a checkpoint and check its headers; no weights are read.

    Args:
        source: A directory with one `model.safetensors`, or with an index and its shards; one `.safetensors` file; a Hub
            repository `hf://owner/name[@revision]`, or `owner/name` where no such local path exists; an address
            (`https://`, `s3://`, ...), which is always streamed; `RUN@1000` or `RUN@-1`, a step of a training directory or its
            newest checkpoint; `BASE+ADAPTER`, both of these kinds, or an adapter alone, which names its base: the dense
            weights that the two stand for.
        allow_pickle: Also read what torch saved, where there are no safetensors: `pytorch_model.bin`, `.pt`, `.ckpt`, and
            directories of torch.distributed.checkpoint and of DeepSpeed's ZeRO. Nothing that a pickle names is imported or
            called.
        stream: Read a Hub repository by byte ranges instead of fetching it first.
        state_dict: Which to read of several in a file: the key that it lies under (`state_dict_ema`), keys with dots between
            them, the first name of its tensors (`ema_model`), or `.` for what lies at the top.

    Returns:
        A mapping from tensor names to lazy tensors.

    Raises:
        CheckpointError: If it is not there, malformed, or of a kind that is refused.
        StateDictError: If there is no such state dict in it.

    Examples:
        >>> checkpoint = open_checkpoint("runs/sft")  # doctest: +SKIP
        >>> checkpoint["lm_head.weight"].shape  # doctest: +SKIP
        (32000, 2048)
    """
    source, how = str(source), Reading(allow_pickle=allow_pickle, stream=stream, state_dict=state_dict)
    refuse_password(source)
    if (pair := split(source)) is not None:
        return _open_pair(*pair, **how)
    source = at_step(source)
    if stream or "://" in source:
        from warmkit.formats.safetensors_model import open_streamed
        from warmkit.sources.places import is_streamed, open_remote

        if is_streamed(source, stream):
            return open_streamed(open_remote(source), state_dict)
    path, source = resolve(source, allow_pickle), shown(source)
    if not path.is_dir():
        refuse_irregular(path)
    if is_adapter(path):
        return _open_adapter(source, path, **how)
    before = identities_at(path)
    found = _without_tied_copies(open_weights(source, path, allow_pickle, state_dict))
    if found.adapter_parts:
        from warmkit.layouts.stored_adapters import with_own_adapter  # as for a pair

        found = with_own_adapter(found)
    return _identified(found, before)


def open_inputs(sources: Iterable[str | os.PathLike[str] | Checkpoint], options: Mapping[str, Any]) -> list[Checkpoint]:
    """Open the inputs of one command, as its options say, and read all in the layout of the first; what is open stays as it is.

    Files with one state dict, an init among them for instance, are read as they are where others have the one asked for.

    Raises:
        CheckpointError: What `open_checkpoint` raises.
        StateDictError: If the state dict asked for is in none of them, or missing where there are several.
        MismatchError: What `in_one_layout` raises.
    """
    asked, pickle, stream = (options.get(name) for name in ("state_dict", "allow_pickle", "stream"))
    how = Reading(allow_pickle=bool(pickle), stream=bool(stream), state_dict=asked)
    found, missing = list[Checkpoint](), list[StateDictError]()
    for each in sources:
        try:
            found.append(each if isinstance(each, Checkpoint) else open_checkpoint(each, **how))
        except StateDictError as error:
            if not error.alone or isinstance(each, Checkpoint):
                raise
            missing.append(error)
            one = open_checkpoint(each, allow_pickle=how["allow_pickle"], stream=how["stream"])
            said = f"{one.source}: holds one state dict, which was read; {asked!r} is one of the others"
            found.append(replace(one, notes=(*one.notes, said)))
    if missing and len(missing) == len(found):
        raise missing[0]
    return in_one_layout(found, options.get("layout"))


def _open_pair(base: str, adapter: str, **how: Unpack[Reading]) -> Checkpoint:
    """Open `BASE+ADAPTER`."""
    from warmkit.layouts.adapters import find_adapter, on_base  # brings a compiler, which other checkpoints do not need

    found = find_adapter(adapter)
    given = open_checkpoint(base, **how)
    named = found.config.base is not None and Path(shown(found.config.base)).name != Path(given.source).name
    note = f"{found.source}: adapter on {given.source}; its config names {shown(found.config.base or '')}" if named else None
    return on_base(f"{given.source}+{found.source}", given, found, note)


def _open_adapter(source: str, directory: Path, **how: Unpack[Reading]) -> Checkpoint:
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
    """Return it with the identities of its files; those that lie deep in folders are as they are now."""
    small = identities_at(checkpoint.path) if checkpoint.directory else {}
    before = {**small, **before}
    deep = {file: identity(file) for file in checkpoint.files if isinstance(file, Path) and file not in before}
    return replace(checkpoint, identities={**before, **{file: each for file, each in deep.items() if each is not None}})

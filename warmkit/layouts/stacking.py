"""Checkpoints taken apart into layers, and put together from layers of several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from warmkit.common.addresses import shown
from warmkit.common.display import Displayed
from warmkit.errors import MismatchError, UnsupportedError, listed
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import Tensor
from warmkit.layouts.layer_kinds import LAYER_COUNTS, Origin, other_kind, restack
from warmkit.layouts.layer_settings import layer_number
from warmkit.layouts.orientation import parts as nested

FIRST = ("embed", "wte.", "wpe.")
"""What stands before the layers has one of these in its name; every other tensor outside stands after them."""


@dataclass(frozen=True, repr=False)
class LayerRange(Displayed):
    """Range of layers of one model.

    Attributes:
        model: Checkpoint, as `open_checkpoint` takes it.
        first: The first layer, counted from 0.
        end: The layer after the last one.
    """

    model: str | os.PathLike[str]
    first: int
    end: int

    @property
    def count(self) -> int:
        return self.end - self.first

    def __str__(self) -> str:
        return f"{shown(self.model)}[{self.first}:{self.end}]"


@dataclass(frozen=True, repr=False)
class Stacked(Checkpoint):
    """A checkpoint whose tensors come from other checkpoints, under new names.

    Attributes:
        layout: Digest of what comes from where.
        made_of: The other checkpoints.
    """

    layout: str = ""
    made_of: tuple[Checkpoint, ...] = ()

    @property
    def inputs(self) -> tuple[Checkpoint, ...]:
        return self.made_of

    def fingerprint(self) -> list[list[Any]]:
        return [*super().fingerprint(), [self.layout]]


@dataclass(frozen=True)
class Parts:
    """A checkpoint taken apart.

    Attributes:
        stack: What the names of its layers begin with.
        layers: By number, the tensors by the rest of their name.
        outside: Tensors that belong to no layer.
    """

    checkpoint: Checkpoint
    stack: str
    layers: dict[int, dict[str, Tensor]]
    outside: dict[str, Tensor]


def take_apart(checkpoint: Checkpoint) -> Parts:
    """Sort the tensors of a checkpoint into layers and the rest.

    Raises:
        UnsupportedError: If it does not have exactly one stack of layers, numbered from 0.
    """
    layers, outside, stacks = dict[int, dict[str, Tensor]](), dict[str, Tensor](), set[str]()
    for name, tensor in checkpoint.entries.items():
        place = layer_number(name)
        if place is None:
            outside[name] = tensor
        else:
            stack, number = place
            stacks.add(stack)
            layers.setdefault(number, {})[name.removeprefix(f"{stack}{number}")] = tensor
    if len(stacks) != 1 or sorted(layers) != list(range(len(layers))):
        found = ", ".join(sorted(stack.rstrip(".") or "(numbers alone)" for stack in stacks)) or "none"
        raise UnsupportedError(f"{checkpoint.source}: slices need a model with one stack of layers, found {found}")
    return Parts(checkpoint, stacks.pop(), layers, outside)


def check_layers(parts: Sequence[Parts]) -> None:
    """Check that every layer of every model has the names and shapes of some layer of the first."""
    reference = parts[0]
    known = [{rest: tensor.shape for rest, tensor in layer.items()} for layer in reference.layers.values()]
    problems = [
        f"{each.checkpoint.source}: layer {number} has other tensors or shapes than the layers of {reference.checkpoint.source}"
        for each in parts[1:]
        for number, layer in each.layers.items()
        if {rest: tensor.shape for rest, tensor in layer.items()} not in known
    ]
    problems += [
        f"{each.checkpoint.source}: calls its layers {each.stack}*, {reference.checkpoint.source} calls them {reference.stack}*"
        for each in parts[1:]
        if each.stack != reference.stack
    ]
    if problems:
        raise MismatchError(f"slices do not fit together:\n{listed(problems)}")


def stands_before(name: str) -> bool:
    """Say whether a tensor outside the layers comes before them: an embedding."""
    return any(part in name for part in FIRST)


def stack(row: Sequence[LayerRange], parts: Mapping[str, Parts], config: dict[str, Any]) -> Stacked:
    """Put one checkpoint together: the embeddings of the first range, the layers of all, the head of the last."""
    first, last = parts[str(row[0].model)], parts[str(row[-1].model)]
    entries = {name: tensor for name, tensor in first.outside.items() if stands_before(name)}
    origins = [str(first.checkpoint.source)]
    number = 0
    for one in row:
        source = parts[str(one.model)]
        for layer in range(one.first, one.end):
            entries |= {f"{source.stack}{number}{rest}": tensor for rest, tensor in source.layers[layer].items()}
            origins.append(f"{shown(one.model)} {layer}")
            number += 1
    entries |= {name: tensor for name, tensor in last.outside.items() if not stands_before(name)}
    used = tuple({str(one.model): parts[str(one.model)].checkpoint for one in row}.values())
    files = tuple(dict.fromkeys(file for each in used for file in each.files))
    name = " + ".join(map(str, row))
    layout = xxhash.xxh3_128_hexdigest("\n".join(origins).encode())
    start = first.checkpoint
    same: dict[str, Any] = {"metadata": start.metadata, "adapters": start.adapters, "own_config": config}
    return Stacked(name, start.path, entries, files, **same, layout=layout, made_of=used)


def stacked_config(donor: Checkpoint, rows: Sequence[Sequence[LayerRange]], parts: Mapping[str, Parts]) -> dict[str, Any]:
    """Return the donor's config for the layers of the first row: their number, and what it says of each of them.

    Args:
        donor: Whose config it is; models without one are taken to have the same.
        rows: For each row of the merge its layers; those of one place are merged, so they must be of one kind.
        parts: Of every model.

    Raises:
        UnsupportedError: If it cannot say of every layer at its new place what it said at the old one.
        MismatchError: If layers of two kinds would be merged.
    """
    if not donor.config:
        return {}
    for one in {str(each.model): None for row in rows for each in row}:
        _check_count(parts[one])
    first, *others = (
        [(one, Origin(_config(parts, one, donor), len(parts[str(one.model)].layers), layer)) for one, layer in _layers(row)]
        for row in rows
    )
    for other in others:
        for (here, mine), (there, theirs) in zip(first, other):
            if key := other_kind(mine, theirs):
                raise MismatchError(
                    f"layer {theirs.layer} of {shown(there.model)} is of another kind than layer {mine.layer} of "
                    f"{shown(here.model)}: {key} in config.json; layers of two kinds cannot be merged"
                )
    counts = {key: len(first) for key in LAYER_COUNTS if key in donor.config}
    return restack({**donor.config, **counts}, [origin for _, origin in first])


def _layers(row: Sequence[LayerRange]) -> Iterator[tuple[LayerRange, int]]:
    return ((one, layer) for one in row for layer in range(one.first, one.end))


def _config(parts: Mapping[str, Parts], one: LayerRange, donor: Checkpoint) -> dict[str, Any]:
    return parts[str(one.model)].checkpoint.config or donor.config


def _check_count(model: Parts) -> None:
    config, source, found = model.checkpoint.config, model.checkpoint.source, len(model.layers)
    if key := next((key for key in LAYER_COUNTS if config.get(key, found) != found), None):
        raise UnsupportedError(f"{source}: has {found} layers, {key} in config.json says {config[key]}; they must agree")
    inner = [key for key, part in nested(config) if any(each in part for each in LAYER_COUNTS)]
    if inner := [*inner, *(key for key in ("encoder_layers", "decoder_layers") if key in config)]:
        raise UnsupportedError(f"{source}: slices need a config of one stack of layers, found {inner[0]} in it")

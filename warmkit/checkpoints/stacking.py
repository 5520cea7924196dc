"""Checkpoints taken apart into layers, and put together from layers of several."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import xxhash

from warmkit.checkpoints.checkpoint import Checkpoint
from warmkit.checkpoints.settings import layer_number
from warmkit.checkpoints.tensors import Tensor
from warmkit.errors import MismatchError, UnsupportedError, listed

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
ONE_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
LAYER_INDICES = ("mlp_only_layers",)
FIRST = ("embed", "wte.", "wpe.")
"""What stands before the layers has one of these in its name; every other tensor outside stands after them."""


@dataclass(frozen=True)
class LayerRange:
    """Layers of one model, from `first` up to and without `end`."""

    model: str | os.PathLike[str]
    first: int
    end: int

    @property
    def count(self) -> int:
        return self.end - self.first

    def __str__(self) -> str:
        return f"{self.model}[{self.first}:{self.end}]"


@dataclass(frozen=True)
class Stacked(Checkpoint):
    """A checkpoint whose tensors come from other checkpoints, under new names.

    Attributes:
        content: Its config.
        layout: Digest of what comes from where.
        made_of: The other checkpoints.
    """

    content: dict[str, Any] = field(default_factory=lambda: {})
    layout: str = ""
    made_of: tuple[Checkpoint, ...] = ()

    @property
    def inputs(self) -> tuple[Checkpoint, ...]:
        return self.made_of

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.content

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
            origins.append(f"{one.model} {layer}")
            number += 1
    entries |= {name: tensor for name, tensor in last.outside.items() if not stands_before(name)}
    used = tuple({str(one.model): parts[str(one.model)].checkpoint for one in row}.values())
    files = tuple(dict.fromkeys(file for each in used for file in each.files))
    name = " + ".join(map(str, row))
    layout = xxhash.xxh3_128_hexdigest("\n".join(origins).encode())
    start = first.checkpoint
    return Stacked(name, start.path, entries, files, start.metadata, content=config, layout=layout, made_of=used)


def stacked_config(donor: Checkpoint, row: Sequence[LayerRange], parts: Mapping[str, Parts]) -> dict[str, Any]:
    """Return the donor's config for the layers of a row: their number, and what it lists for each of them."""
    config, old = dict(donor.config), len(parts[donor.source].layers)
    origins = [(parts[str(one.model)].checkpoint.config, layer) for one in row for layer in range(one.first, one.end)]
    for key in LAYER_COUNTS:
        if config.get(key) == old:
            config[key] = len(origins)
    for key in ONE_PER_LAYER:
        if isinstance(config.get(key), list):
            config[key] = [(theirs.get(key) or donor.config[key])[layer] for theirs, layer in origins]
    for key in LAYER_INDICES:
        if isinstance(config.get(key), list):
            config[key] = [number for number, (theirs, layer) in enumerate(origins) if layer in (theirs.get(key) or [])]
    return config

"""Models put together from layers of others: stacked as they are, or each slice a merge."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import xxhash
from typing_extensions import Unpack

from warmkit.checkpoints.checkpoint import Checkpoint, open_checkpoint
from warmkit.checkpoints.compatibility import align
from warmkit.checkpoints.merge import ZERO, MergeResult, OutputOptions, Varying, write
from warmkit.checkpoints.settings import Rule, Setting, depth_of, layer_number, read_setting
from warmkit.checkpoints.spec import MergeSpec, is_sweep, merge_spec, read_coefficients
from warmkit.checkpoints.tensors import Tensor
from warmkit.checkpoints.variation import Mix, Place, Variation
from warmkit.errors import MismatchError, UnsupportedError, UsageError, listed
from warmkit.merging.methods import find_method

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
class Slice:
    """Layers of the result, in order.

    Attributes:
        sources: What is merged, layer by layer; one source is copied.
        init: Layers of the initialisation, by default those of the sources where these are all the same.
        lambda_: As for `merge`, in this slice; gradients run over the slice.
        coefficients: The same.
        eta: The same.
    """

    sources: tuple[LayerRange, ...]
    init: tuple[int, int] | None = None
    lambda_: Varying | None = None
    coefficients: Sequence[Varying] | None = None
    eta: Varying | None = None


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
class _Parts:
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


def merge_slices(
    slices: Sequence[Slice],
    output: str | os.PathLike[str],
    *,
    init: str | os.PathLike[str] | None = None,
    method: str = "lerp",
    lambda_: Varying | None = None,
    coefficients: Sequence[Varying] | None = None,
    eta: Varying = 1.0,
    granularity: str = "layer",
    antiparallel: str = "error",
    angles: bool = False,
    **options: Unpack[OutputOptions],
) -> MergeResult:
    """Build a model from slices of layers, each a merge of layers of its sources.

    Embeddings come from the sources of the first slice, the final norm and the head from those of the last. The config's
    number of layers and its lists by layer are edited.

    Args:
        slices: In order.
        output: Directory to create.
        init: What the sources were fine-tuned from; `zero` as for `merge`.
        method: A name in `warmkit.METHODS`; a slice of one source is copied by any that averages.
        lambda_: As for `merge`, for slices without numbers of their own.
        coefficients: The same.
        eta: The same; a sweep multiplies the slices' own.
        granularity: As for `merge`.
        antiparallel: As for `merge`.
        angles: As for `merge`.
        **options: See `OutputOptions`.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.
    """
    if not slices or not all(each.sources for each in slices):
        raise UsageError("expected at least one slice, each with at least one source")
    whole = [_inherit(each, lambda_, coefficients, eta) for each in slices]
    known = None if init is None or init == ZERO else init
    parts = _open(whole, known)
    rows, notes = _compose(whole, parts, known)
    spec = merge_spec(
        method,
        max(len(each.sources) for each in whole),
        eta=eta if is_sweep(eta) else 1.0,
        granularity=granularity,
        antiparallel=antiparallel,
        angles=angles,
        from_zero=init == ZERO,
    )
    spec = _varied(spec, whole, _places(whole, parts))
    first, models = (None, rows) if known is None else (rows[0], rows[1:])
    result = write(spec, models, first, output, options)
    return replace(result, notes=tuple(dict.fromkeys((*notes, *result.notes))))


def _inherit(each: Slice, lambda_: Varying | None, coefficients: Sequence[Varying] | None, eta: Varying) -> Slice:
    """Give a slice what is said for all of them; a sweep over eta multiplies each slice's own."""
    if each.lambda_ is None and each.coefficients is None:
        each = replace(each, lambda_=lambda_, coefficients=coefficients)
    return replace(each, eta=eta) if each.eta is None and not is_sweep(eta) else each


def _open(slices: Sequence[Slice], init: str | os.PathLike[str] | None) -> dict[str, _Parts]:
    """Open every model once, the donor of config and tokenizer first, and check the ranges."""
    names = [*([] if init is None else [str(init)]), *(str(source.model) for each in slices for source in each.sources)]
    parts = {name: _take_apart(open_checkpoint(name)) for name in dict.fromkeys(names)}
    for number, each in enumerate(slices):
        ranges = [*each.sources, *([] if init is None else [_init_range(each, number, str(init))])]
        for one in ranges:
            layers = len(parts[str(one.model)].layers)
            if not 0 <= one.first < one.end <= layers:
                raise UsageError(f"slice {number + 1}: {one.model} has layers 0 to {layers}, found [{one.first}, {one.end}]")
        if len({one.count for one in ranges}) > 1:
            shown = ", ".join(map(str, ranges))
            raise UsageError(f"slice {number + 1}: expected the same number of layers from every model, found {shown}")
    return parts


def _init_range(each: Slice, number: int, init: str) -> LayerRange:
    if each.init is not None:
        return LayerRange(init, *each.init)
    if len({(one.first, one.end) for one in each.sources}) > 1:
        raise UsageError(f"slice {number + 1}: its sources have different layers, so say which of the init: init: [first, end]")
    return replace(each.sources[0], model=init)


def _take_apart(checkpoint: Checkpoint) -> _Parts:
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
    return _Parts(checkpoint, stacks.pop(), layers, outside)


def _compose(
    slices: Sequence[Slice], parts: Mapping[str, _Parts], init: str | os.PathLike[str] | None
) -> tuple[list[Checkpoint], list[str]]:
    """Return the rows of the merge as checkpoints of their own, the initialisation first where there is one."""
    everything = list(parts.values())
    aligned = align([replace(each.checkpoint, entries=each.outside) for each in everything])
    parts = {name: replace(each, outside=known) for (name, each), known in zip(parts.items(), aligned.entries)}
    _check_layers(list(parts.values()))
    count = max(len(each.sources) for each in slices)
    rows = [[each.sources[slot if slot < len(each.sources) else 0] for each in slices] for slot in range(count)]
    if init is not None:
        rows.insert(0, [_init_range(each, number, str(init)) for number, each in enumerate(slices)])
    config = _config(everything[0].checkpoint, rows[0], parts)
    notes = [note for note in aligned.notes if not any(f" {key} = " in note for key in (*LAYER_COUNTS, *ONE_PER_LAYER))]
    return [_stack(row, parts, config) for row in rows], notes


def _check_layers(parts: Sequence[_Parts]) -> None:
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


def _before(name: str) -> bool:
    return any(part in name for part in FIRST)


def _stack(row: Sequence[LayerRange], parts: Mapping[str, _Parts], config: dict[str, Any]) -> Stacked:
    first, last = parts[str(row[0].model)], parts[str(row[-1].model)]
    entries = {name: tensor for name, tensor in first.outside.items() if _before(name)}
    origins = [str(first.checkpoint.source)]
    number = 0
    for one in row:
        source = parts[str(one.model)]
        for layer in range(one.first, one.end):
            entries |= {f"{source.stack}{number}{rest}": tensor for rest, tensor in source.layers[layer].items()}
            origins.append(f"{one.model} {layer}")
            number += 1
    entries |= {name: tensor for name, tensor in last.outside.items() if not _before(name)}
    used = tuple({str(one.model): parts[str(one.model)].checkpoint for one in row}.values())
    files = tuple(dict.fromkeys(file for each in used for file in each.files))
    name = " + ".join(map(str, row))
    layout = xxhash.xxh3_128_hexdigest("\n".join(origins).encode())
    start = first.checkpoint
    return Stacked(name, start.path, entries, files, start.metadata, content=config, layout=layout, made_of=used)


def _config(donor: Checkpoint, row: Sequence[LayerRange], parts: Mapping[str, _Parts]) -> dict[str, Any]:
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


def _places(slices: Sequence[Slice], parts: Mapping[str, _Parts]) -> dict[str, Place]:
    """Say of every tensor of the result which slice it is in, how deep, and what it is called in the sources."""
    slots, places, number = max(len(each.sources) for each in slices), dict[str, Place](), 0

    def add(name: str, stretch: int, depth: float, called: Callable[[LayerRange], str]) -> None:
        sources = slices[stretch].sources
        names = tuple(called(sources[slot if slot < len(sources) else 0]) for slot in range(slots))
        places[name] = Place(stretch, depth, names, len(sources))

    for stretch, each in enumerate(slices):
        lead = parts[str(each.sources[0].model)]
        for step in range(each.sources[0].count):
            for rest in lead.layers[each.sources[0].first + step]:
                layer = f"{lead.stack}{number}{rest}"
                add(layer, stretch, depth_of(step, each.sources[0].count), _called(lead.stack, step, rest))
            number += 1
    for stretch, before in ((0, True), (len(slices) - 1, False)):
        for each in parts.values():
            for name in each.outside:
                if _before(name) is before:
                    add(name, stretch, 0.0, lambda _, name=name: name)
    return places


def _called(stack: str, step: int, rest: str) -> Callable[[LayerRange], str]:
    return lambda one: f"{stack}{one.first + step}{rest}"


def _varied(spec: MergeSpec, slices: Sequence[Slice], places: Mapping[str, Place]) -> MergeSpec:
    """Give a merge the settings of every slice."""
    method = find_method(spec.method.name)
    if method.mix == "none" and len({len(each.sources) for each in slices}) > 1:
        raise UsageError(f"{method.name} weighs all models alike, so every slice needs as many sources; use lerp")
    mixes: list[Mix] = []
    for number, each in enumerate(slices):
        count = len(each.sources)
        if count < method.fewest:
            raise UsageError(f"slice {number + 1}: {method.name} needs at least {method.fewest} models, found {count}")
        try:
            settings = read_coefficients(count, each.lambda_, each.coefficients)
            eta = read_setting(1.0 if each.eta is None else each.eta, "eta")
        except UsageError as error:
            raise UsageError(f"slice {number + 1}: {error}") from None
        alike: tuple[Setting, ...] | None = None if method.mix == "none" else ((Rule((1.0,)),),) * count
        mixes.append(Mix(settings or alike, eta))
    variation = Variation(tuple(mixes), places)
    parameters = {key: value for key, value in spec.parameters.items() if key != "coefficients"}
    written = [
        {"sources": [str(one) for one in each.sources], "init": each.init, **mix.written()} for each, mix in zip(slices, mixes)
    ]
    return replace(spec, variation=variation, parameters={**parameters, "slices": written})

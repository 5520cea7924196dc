"""Models put together from layers of others: stacked as they are, or each slice a merge."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from typing_extensions import Unpack

from warmkit.common.addresses import shown
from warmkit.common.display import Displayed
from warmkit.engine.merge_options import ZERO, MergeOptions, OutputOptions, Varying
from warmkit.engine.result import MergeResult
from warmkit.engine.spec import MergeSpec, is_sweep, merge_spec, read_coefficients
from warmkit.engine.variation import Mix, Place, Variation
from warmkit.engine.write import write
from warmkit.errors import UsageError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.compatibility import align
from warmkit.layouts.layer_settings import Rule, Setting, depth_of, read_setting
from warmkit.layouts.opening import open_inputs
from warmkit.layouts.stacking import (
    LayerRange,
    Parts,
    check_layers,
    stack,
    stacked_config,
    stands_before,
    take_apart,
)
from warmkit.merging.methods import find_method


@dataclass(frozen=True, repr=False)
class Slice(Displayed):
    """Slice of a model that is put together: layers merged, or copied, from layers of other models.

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


def merge_slices(
    slices: Sequence[Slice],
    output: str | os.PathLike[str],
    *,
    init: str | os.PathLike[str] | None = None,
    method: str = "lerp",
    lambda_: Varying | None = None,
    coefficients: Sequence[Varying] | None = None,
    eta: Varying = 1.0,
    granularity: str | None = None,
    antiparallel: str = "error",
    angles: bool = False,
    **options: Unpack[MergeOptions],
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
        **options: See `OutputOptions`; and the parameters of the method, as `warmkit methods` lists them.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.
    """
    spec, models, first, rest, notes = slices_call(
        slices,
        init=init,
        method=method,
        lambda_=lambda_,
        coefficients=coefficients,
        eta=eta,
        granularity=granularity,
        antiparallel=antiparallel,
        angles=angles,
        **options,
    )
    result = write(spec, models, first, output, rest)
    return replace(result, notes=tuple(dict.fromkeys((*notes, *result.notes))))


def slices_call(
    slices: Sequence[Slice],
    *,
    init: str | os.PathLike[str] | None = None,
    method: str = "lerp",
    lambda_: Varying | None = None,
    coefficients: Sequence[Varying] | None = None,
    eta: Varying = 1.0,
    granularity: str | None = None,
    antiparallel: str = "error",
    angles: bool = False,
    **options: Unpack[MergeOptions],
) -> tuple[MergeSpec, list[Checkpoint], Checkpoint | None, OutputOptions, list[str]]:
    """Return what `merge_slices` with these arguments hands to `write`: spec, models, init and how to write; and notes."""
    if not slices or not all(each.sources for each in slices):
        raise UsageError("expected at least one slice, each with at least one source")
    whole = [_inherit(each, lambda_, coefficients, eta) for each in slices]
    known = None if init is None or init == ZERO else init
    parts = _open(whole, known, options)
    rows, notes = _compose(whole, parts, known)
    spec = merge_spec(
        method,
        max(len(each.sources) for each in whole),
        lambda_=None,
        coefficients=None,
        eta=eta if is_sweep(eta) else 1.0,
        granularity=granularity,
        antiparallel=antiparallel,
        angles=angles,
        from_zero=init == ZERO,
        **{name: value for name, value in options.items() if name not in OutputOptions.__annotations__},
    )
    if spec.variation is not None:
        raise UsageError("slices: parameters of a method that change over the model are for whole models; give numbers")
    spec = _varied(spec, whole, _places(whole, parts))
    first, models = (None, rows) if known is None else (rows[0], rows[1:])
    rest = {name: value for name, value in options.items() if name in OutputOptions.__annotations__}
    return spec, models, first, cast("OutputOptions", rest), notes


def _inherit(each: Slice, lambda_: Varying | None, coefficients: Sequence[Varying] | None, eta: Varying) -> Slice:
    """Give a slice what is said for all of them; a sweep over eta multiplies each slice's own."""
    if each.lambda_ is None and each.coefficients is None:
        each = replace(each, lambda_=lambda_, coefficients=coefficients)
    return replace(each, eta=eta) if each.eta is None and not is_sweep(eta) else each


def _open(slices: Sequence[Slice], init: str | os.PathLike[str] | None, options: MergeOptions) -> dict[str, Parts]:
    """Open every model once, the donor of config and tokenizer first, and check the ranges."""
    given = [*([] if init is None else [str(init)]), *(str(source.model) for each in slices for source in each.sources)]
    names = list(dict.fromkeys(given))
    parts = {name: take_apart(each) for name, each in zip(names, open_inputs(names, options))}
    for number, each in enumerate(slices):
        ranges = [*each.sources, *([] if init is None else [_init_range(each, number, str(init))])]
        for one in ranges:
            layers = len(parts[str(one.model)].layers)
            if not 0 <= one.first < one.end <= layers:
                raise UsageError(
                    f"slice {number + 1}: {shown(one.model)} has layers 0 to {layers}, found [{one.first}, {one.end}]"
                )
        if len({one.count for one in ranges}) > 1:
            found = ", ".join(map(str, ranges))
            raise UsageError(f"slice {number + 1}: expected the same number of layers from every model, found {found}")
    return parts


def _init_range(each: Slice, number: int, init: str) -> LayerRange:
    if each.init is not None:
        return LayerRange(init, *each.init)
    if len({(one.first, one.end) for one in each.sources}) > 1:
        raise UsageError(f"slice {number + 1}: its sources have different layers, so say which of the init: init: [first, end]")
    return replace(each.sources[0], model=init)


def _compose(
    slices: Sequence[Slice], parts: Mapping[str, Parts], init: str | os.PathLike[str] | None
) -> tuple[list[Checkpoint], list[str]]:
    """Return the rows of the merge as checkpoints of their own, the initialisation first where there is one."""
    everything = list(parts.values())
    aligned = align([replace(each.checkpoint, entries=each.outside) for each in everything], by_layer=False)
    parts = {name: replace(each, outside=known) for (name, each), known in zip(parts.items(), aligned.entries)}
    check_layers(list(parts.values()))
    count = max(len(each.sources) for each in slices)
    rows = [[each.sources[slot if slot < len(each.sources) else 0] for each in slices] for slot in range(count)]
    if init is not None:
        rows.insert(0, [_init_range(each, number, str(init)) for number, each in enumerate(slices)])
    config = stacked_config(everything[0].checkpoint, rows, parts)
    return [stack(row, parts, config) for row in rows], list(aligned.notes)


def _places(slices: Sequence[Slice], parts: Mapping[str, Parts]) -> dict[str, Place]:
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
                if stands_before(name) is before:
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


__all__ = ["LayerRange", "Slice", "merge_slices"]

"""Check of a model that anybody merged against what it is said to be: the merge of some models, or a base with an adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from typing_extensions import Unpack

from warmkit.common.addresses import shown
from warmkit.common.progress import progress
from warmkit.engine.claim_sink import ClaimSink, with_inputs
from warmkit.engine.devices import cores, find_kernels
from warmkit.engine.merge_options import ZERO, MergeOptions, OutputOptions, PathLike, Varying, check_models
from warmkit.engine.prepare import Prepared, prepare
from warmkit.engine.residuals import scale_of
from warmkit.engine.spec import MergeSpec, liti_spec, merge_call
from warmkit.engine.stream import Stream
from warmkit.errors import MismatchError, UsageError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import Tensor
from warmkit.layouts.compatibility import HEAD, embedding_of, untangle_head
from warmkit.layouts.one_layout import in_one_layout
from warmkit.layouts.opening import open_inputs
from warmkit.merging.types import Coefficients
from warmkit.sources.files import Files
from warmkit.verbs.claim_report import ClaimReport, misfit, report_exact, report_tensor, whole
from warmkit.verbs.slices import Slice, slices_call

NOWHERE = Path(os.devnull)
READING = (
    "allow_nonfinite",
    "allow_pickle",
    "exclude",
    "heads",
    "layout",
    "only",
    "pad_to_multiple_of",
    "state_dict",
    "stream",
    "strict",
    "token_rows",
    "vocabulary",
)
RUNNING = ("threads", "advance")


def verify_claim(
    merged: PathLike,
    *,
    models: Sequence[PathLike] | None = None,
    slices: Sequence[Slice] | None = None,
    adapter: PathLike | None = None,
    init: PathLike | None = None,
    method: str | None = None,
    lambda_: Varying | None = None,
    coefficients: Sequence[Varying] | None = None,
    eta: Varying = 1.0,
    granularity: str | None = None,
    antiparallel: str = "error",
    **options: Unpack[MergeOptions],
) -> ClaimReport:
    """Verify what is said of a merged model: "the merge of these models by this method", or "this base with this adapter".

    The merge is computed, block by block, and compared with the model; nothing is written. A tensor

    - *contains* the claim if what is there is what the claim gives, up to the rounding of the stored type;
    - *does not contain* it if rounding does not explain the difference;
    - leaves it open (*cannot tell*) if what the claim starts from (the init, else the first model) would pass, or nearly: the
      claimed change is lost in rounding.

    `engine/residuals.py` has the bounds.

    Args:
        merged: The model, as `open_checkpoint` takes it.
        models: What it is said to be merged from.
        slices: Layers of models instead, as for `merge_slices`.
        adapter: An adapter instead, merged once into `init`.
        init: What the models were fine-tuned from; the base of the adapter.
        method: As for `merge` and `merge_slices`.
        lambda_: As for `merge`.
        coefficients: As for `merge`.
        eta: As for `merge`, one number.
        granularity: As for `merge`.
        antiparallel: As for `merge`.
        **options: Those of `OutputOptions` that say what is read, and `threads` and `advance`; and the method's own parameters.

    Returns:
        The answers; a claim that does not hold is no error.

    Raises:
        UsageError: If not exactly one of `models`, `slices` and `adapter` is given, or the claim makes several models.
        WarmkitError: If a model cannot be read, or the claim is no merge that can be made.
    """
    if sum(each is not None for each in (models, slices, adapter)) != 1:
        raise UsageError("expected one claim: models, slices, or an adapter")
    if odd := sorted(options.keys() & (OutputOptions.__annotations__.keys() - {*READING, *RUNNING})):
        raise UsageError(f"{odd[0]}: means nothing here, since nothing is written; leave it out")
    given: dict[str, Any] = {"method": method, "lambda_": lambda_, "coefficients": coefficients, "granularity": granularity}
    how = {**{name: value for name, value in given.items() if value is not None}, **options}
    how |= {name: value for name, value in {"eta": eta, "antiparallel": antiparallel}.items() if value not in (1, "error")}
    found = open_inputs([merged], options)[0]
    if adapter is not None:
        prepared = _with_adapter(init, adapter, how)
        claim = f"{shown(str(init))} with the adapter {shown(str(adapter))}"
    else:
        named = models if models is not None else [source.model for each in slices or () for source in each.sources]
        prepared = _merge(models, slices, init, how)
        claim = f"{prepared.spec.name} of {', '.join(dict.fromkeys(shown(str(each)) for each in named))}"
        claim += f", init {shown(str(init))}" if init is not None else ""
    return _compare(prepared, found, claim, options)


def _merge(
    models: Sequence[PathLike] | None, slices: Sequence[Slice] | None, init: PathLike | None, how: Mapping[str, Any]
) -> Prepared:
    if slices is not None:
        spec, rows, start, reading, _ = slices_call(slices, init=init, **how)
        return _prepare(spec, rows, start, reading)
    assert models is not None
    check_models(models)
    spec, start, reading = merge_call(len(models), init=init, **how)
    return _prepare(spec, models, start, reading)


def _with_adapter(init: PathLike | None, adapter: PathLike, options: Mapping[str, Any]) -> Prepared:
    if init is None or init == ZERO:
        raise UsageError("an adapter needs --init, the model that it was merged into")
    if odd := sorted(options.keys() - OutputOptions.__annotations__.keys()):
        raise UsageError(f"{odd[0].strip('_')}: an adapter is merged by no method; leave it out")
    base, adapted = (open_inputs([each], options)[0] for each in (init, f"{init}+{adapter}"))
    return _prepare(liti_spec(1.0), [adapted], _base_for(adapted, base), cast("OutputOptions", options))


def _base_for(adapted: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Return a base with what an adapter brings whole, a head of its own or rows for new tokens: that is no change of it."""
    tied = embedding_of(base.entries)
    known = {**base.entries, **({HEAD: base.entries.get(HEAD, tied)} if tied is not None else {})}
    entries = {
        name: each if (mine := known.get(name)) is None or mine.shape != each.shape else mine
        for name, each in adapted.entries.items()
    }
    return base if entries == base.entries else replace(base, entries=entries, own_config=adapted.config)


def _prepare(
    spec: MergeSpec, models: Sequence[PathLike | Checkpoint], init: PathLike | Checkpoint | None, options: OutputOptions
) -> Prepared:
    """Open and compare the inputs as a merge does, the init among them, for one output in float64."""
    if len(spec.outputs) > 1:
        raise UsageError(f"expected one eta, found {len(spec.outputs)}: a claim is about one model")
    reading = cast("OutputOptions", {name: value for name, value in options.items() if name in READING})
    spec = replace(spec, beside=init is not None)
    return prepare(spec, models, init, NOWHERE, {**reading, "threads": options.get("threads"), "dtype": "float64"})


def _compare(prepared: Prepared, merged: Checkpoint, claim: str, options: Mapping[str, Any]) -> ClaimReport:
    _, merged = in_one_layout([prepared.donor, merged])
    claimed, found = prepared.donor.entries, _with_names_of(prepared.donor, merged)
    misfits = {name: misfit(claimed.get(name), found.get(name)) for name in {**claimed, **found}}
    sink = _stream(prepared, merged, {name: each for name, each in found.items() if not misfits[name]}, options)
    rows = [row.name for row in prepared.job.rows]
    reports = [
        report_tensor(name, sink.tallies[name], sink.mixture(name), sink.dtype(name), rows)
        if name in sink.tallies
        else report_exact(name, problem, name in sink.different)
        for name, problem in misfits.items()
    ]
    answer = whole(reports, prepared.init is not None)
    return ClaimReport(
        answer, merged.source, claim, scale_of(*sink.tallies.values()), reports, [*prepared.notes, *merged.notes]
    )


def _with_names_of(reference: Checkpoint, merged: Checkpoint) -> Mapping[str, Tensor]:
    """Return the tensors of a model; a head that it ties, or stores twice, is there if the claim's is."""
    try:
        return untangle_head(reference, merged)[0]
    except MismatchError:  # a head of its own, which the claim does not have
        return merged.entries


def _stream(prepared: Prepared, merged: Checkpoint, comparable: Mapping[str, Tensor], options: Mapping[str, Any]) -> ClaimSink:
    """Compute the claim, and compare it with what is there."""
    coefficients: dict[str, Coefficients] = {}
    job, kernels = with_inputs(prepared.job, coefficients), find_kernels("cpu")
    total = prepared.bytes_read + sum(job.elements(name) * each.itemsize for name, each in job.dtypes.items()) * job.outputs
    known = {file: identity for each in merged.inputs for file, identity in each.identities.items()}
    with Files(known) as files, progress(options.get("advance"), "comparing") as report:
        sink = ClaimSink(job, coefficients, comparable, files, prepared.spec.from_zero)
        try:
            Stream(job, kernels, sink, advance=lambda size: report(size, total)).run(options.get("threads") or cores())
        finally:
            for row in job.rows:
                row.close()
    prepared.check()
    merged.check()
    return sink

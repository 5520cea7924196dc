"""The verbs that write a model: merge, liti, soup and ema; and the same in memory.

Each one opens checkpoints, compares headers, plans the output, streams, and renames the result into place.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import xxhash
from typing_extensions import TypedDict, Unpack

from warmkit.checkpoints.card import model_card
from warmkit.checkpoints.checkpoint import INDEX, Checkpoint, open_checkpoint
from warmkit.checkpoints.choice import kept
from warmkit.checkpoints.companions import companion_donor, companion_files, copy_companions
from warmkit.checkpoints.compatibility import align
from warmkit.checkpoints.digests import ALGORITHM
from warmkit.checkpoints.dtypes import DType, parse_output_dtype
from warmkit.checkpoints.estimate import Estimate, estimate
from warmkit.checkpoints.files import Files
from warmkit.checkpoints.groups import group
from warmkit.checkpoints.manifest import GroupReport, mean_angle, read_groups, report_group, write_manifest
from warmkit.checkpoints.plan import Output, Plan, parse_size, plan_output
from warmkit.checkpoints.sources import FileSource, MemorySource, Source, check_state_dicts
from warmkit.checkpoints.spec import MergeSpec, check_etas, ema_spec, liti_spec, merge_spec
from warmkit.checkpoints.staging import FileSink, Staging, writing
from warmkit.checkpoints.stream import Digests, Done, Job, Kernels, Stream
from warmkit.checkpoints.tokenizers import copy_tokenizer, find_template, find_tokenizer, write_template
from warmkit.checkpoints.vocabularies import Matched, match_vocabularies
from warmkit.errors import OutputError, TransferError, UsageError, WarmkitError
from warmkit.merging.methods import EditMethod
from warmkit.merging.parameters import MethodParameters
from warmkit.merging.types import Gram

if TYPE_CHECKING:
    import torch

PathLike: TypeAlias = "str | os.PathLike[str]"
Varying: TypeAlias = "float | Sequence[float] | Sequence[Mapping[str, Any]]"
"""A number that may change over the model; see `checkpoints.settings`."""
ZERO = "zero"  # as an init: a model of zeros, which nobody stores
Advance: TypeAlias = Callable[[int, int], None]
"""Called now and then, from any thread, with the bytes moved since the last call and the total to move."""


class OutputOptions(TypedDict, total=False):
    """How results are written; every verb takes these.

    Attributes:
        dtype: `float32`, `bfloat16`, `float16` or `float64`; by default each tensor's own type in the init or first model.
        max_shard_size: Bytes of a shard, `5GB` for instance.
        threads: Worker threads; by default one per core.
        device: `cpu`, or `cuda` to compute on a GPU.
        dry_run: Check and plan only.
        estimate: With `dry_run`, merge a sample to say how long the whole takes; too small a disk is reported, not raised.
            Inputs that are streamed are not sampled.
        force: Replace a checkpoint that is there, in one step at the end.
        resume: Go on where an interrupted run of the same plan stopped; True by default.
        allow_nonfinite: Let NaN and infinity pass.
        stream: Read Hub repositories by byte ranges; nothing of their weights is kept on disk.
        sha256: Also record SHA-256 of every file; costs more than the merge.
        allow_pickle: Also read inputs that torch saved, as `open_checkpoint` says.
        only: Patterns (`model.layers.*`); tensors that match none are copied from the init, or first model.
        exclude: Patterns; tensors that match one are copied from there.
        tokenizer: The input whose tokenizer is written; by default that of the init, else of the first model.
        chat_template: A Jinja template, the path of one, or `auto`: the one that most inputs have; by default the tokenizer's.
        vocabulary: `strict`, `union`, `init` or `common`, as `match_vocabularies` says.
        advance: Progress callback.
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
    only: Sequence[str]
    exclude: Sequence[str]
    tokenizer: str | None
    chat_template: str | None
    vocabulary: str
    advance: Advance | None


class MergeOptions(OutputOptions, MethodParameters, total=False):
    """What `merge` takes beside: how results are written, and the parameters that some methods have of their own."""


@dataclass(frozen=True)
class MergeResult:
    """What a verb did, or with `dry_run` would do.

    Attributes:
        path: The destination.
        outputs: The model directory of every eta; one entry, at `path`, unless several etas were asked for.
        method: The method, or the verb.
        files: Name and bytes of the weight files of one output.
        groups: Geometry and coefficients of every group, at the first eta; empty after a dry run.
        mean_angle: Mean pairwise angle of the task vectors in degrees, weighted by parameters; None if not measured.
        parameters: How many numbers the model has.
        bytes_read: Bytes read from the inputs.
        bytes_streamed: How many of them come over a network; fewer where a group is still in memory for its second pass.
        bytes_written: Bytes of weights written.
        resumed: How many tensors an interrupted run had already written.
        notes: Harmless differences between the inputs.
        seconds: How long it took, once the kernels were loaded.
        written: False after a dry run.
        estimate: How long it would take; None unless asked for.
        lacking: Bytes that the destination's disk lacks; 0 unless an estimate was asked for.
    """

    path: Path
    outputs: dict[float, Path]
    method: str
    files: dict[str, int]
    groups: tuple[GroupReport, ...]
    mean_angle: float | None
    parameters: int
    bytes_read: int
    bytes_streamed: int
    bytes_written: int
    resumed: int
    notes: tuple[str, ...]
    seconds: float
    written: bool
    estimate: Estimate | None = None
    lacking: int = 0


# ---- the verbs ------------------------------------------------------------------------------------------------------


def merge(
    models: Sequence[PathLike],
    output: PathLike,
    *,
    init: PathLike | None = None,
    method: str = "slerp",
    lambda_: Varying | None = None,
    coefficients: Sequence[Varying] | None = None,
    eta: Varying = 1.0,
    granularity: str | None = None,
    antiparallel: str = "error",
    angles: bool = False,
    **options: Unpack[MergeOptions],
) -> MergeResult:
    """Merge models on disk into one, or into one per eta.

        merged = (1 - eta) x0 + eta (x0 + sum_m c_m (x_m - x0))

    or, of a method that edits task vectors, x0 + eta scale d with d what it makes of them.

    Args:
        models: Checkpoints, as `open_checkpoint` takes them.
        output: Directory to create.
        init: What the models were fine-tuned from; `zero` takes the weights themselves for task vectors.
        method: A name in `warmkit.METHODS`.
        lambda_: Of two models, the share of the second: a number, or one that changes over the model: a list of numbers is a
            gradient over the layers, a list of `{"pattern": "mlp", "value": 0.3}` goes by tensor name.
        coefficients: One per model instead, each a number, a gradient or rules.
        eta: LITI's update rate, or rules. Several numbers write `output/eta-0.3`, ... from one reading of the inputs.
        granularity: The parameters that share one angle, or one ranking: `layer`, `tensor` or `model`; by default layers, and
            tensors for methods that edit task vectors.
        antiparallel: `lerp` averages straight where task vectors oppose each other; `error` refuses.
        angles: Measure norms and angles even if the method does not need them.
        **options: See `OutputOptions` and `MethodParameters`.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.

    Source: WARP (Ramé et al., 2024), equations (SLERP), (26) and (LITI); `docs/methods` for the others.
    """
    spec = merge_spec(
        method,
        len(models),
        lambda_=lambda_,
        coefficients=coefficients,
        eta=eta,
        granularity=granularity,
        antiparallel=antiparallel,
        angles=angles,
        from_zero=init == ZERO,
        **{name: value for name, value in options.items() if name in MethodParameters.__annotations__},
    )
    rest = {name: value for name, value in options.items() if name not in MethodParameters.__annotations__}
    return write(spec, models, None if init == ZERO else init, output, cast("OutputOptions", rest))


def liti(
    model: PathLike,
    output: PathLike,
    *,
    init: PathLike,
    eta: float | Sequence[float],
    **options: Unpack[OutputOptions],
) -> MergeResult:
    """Interpolate a model towards its initialisation, (1 - eta) x0 + eta x; several etas from one reading.

    Source: WARP (Ramé et al., 2024), equation (LITI).
    """
    return write(liti_spec(eta), [model], init, output, options)


def soup(models: Sequence[PathLike], output: PathLike, **options: Unpack[OutputOptions]) -> MergeResult:
    """Average models uniformly.

    Source: Wortsman et al., 2022, "Model soups"; `greedy_soup` chooses the members by a score.
    """
    spec = replace(merge_spec("uniform", len(models)), name="soup", parameters={})
    return write(spec, models, None, output, options)


def ema(
    checkpoints: Sequence[PathLike], output: PathLike, *, mu: float = 0.01, **options: Unpack[OutputOptions]
) -> MergeResult:
    """Average checkpoints of one run exponentially, in order: theta <- (1 - mu) theta + mu x_t from the first on.

    Source: WARP (Ramé et al., 2024), equation (EMA).
    """
    return write(ema_spec(len(checkpoints), mu), checkpoints, None, output, options)


# ---- in memory ------------------------------------------------------------------------------------------------------

Weights: TypeAlias = "PathLike | Mapping[str, torch.Tensor]"


class Merger:
    """Merges in memory, many times over: Gram matrices are taken once, at the first merge that needs them.

    Args:
        models: Checkpoints, or state dicts; checkpoints alone are compared as for a merge on disk.
        init: What they were fine-tuned from.
        method: A name in `warmkit.METHODS`.
        threads: Worker threads; by default one per core.
        device: `cpu` or `cuda`, for the sums.
        allow_nonfinite: Let NaN and infinity pass.
        allow_pickle: Also read what torch saved, as `open_checkpoint` says.
        **parameters: `granularity`, `antiparallel` and those of the method, as for `merge`.

    Example:
        >>> import torch
        >>> init, a, b = ({"w": torch.tensor(row)} for row in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]))
        >>> merger = Merger([a, b], init=init)
        >>> [round(float(merger.state_dict(eta=eta)["w"].norm()), 3) for eta in (0.5, 1.0)]
        [0.5, 1.0]
    """

    def __init__(
        self,
        models: Sequence[Weights],
        *,
        init: Weights | None = None,
        method: str = "slerp",
        threads: int | None = None,
        device: str = "cpu",
        allow_nonfinite: bool = False,
        allow_pickle: bool = False,
        **parameters: Any,
    ) -> None:
        self._method, self._parameters = method, parameters
        given = models if init is None else [init, *models]
        everything = _sources(given, ["init"] * (init is not None), allow_pickle)
        self._init, self._models = (None, everything) if init is None else (everything[0], everything[1:])
        check_state_dicts(everything)
        self._threads, self._kernels = threads or cores(), find_kernels(device)
        self._allow_nonfinite = allow_nonfinite
        self._grams: dict[bool, dict[str, Gram]] = {}  # with the init among the rows, or without
        self.spec()

    def spec(self, **parameters: Any) -> MergeSpec:
        """Return the checked parameters of one merge."""
        return merge_spec(self._method, len(self._models), **self._parameters, **parameters)

    def state_dict(
        self,
        *,
        eta: float = 1.0,
        lambda_: float | None = None,
        coefficients: Sequence[float] | None = None,
        dtype: str | None = None,
        out: dict[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the merge at one eta and one mix, as tensors on the CPU.

        Args:
            eta: LITI's update rate.
            lambda_: Of two models, the share of the second.
            coefficients: One per model instead.
            dtype: Of the result; by default the models'.
            out: What an earlier call returned, to be overwritten: fresh memory costs more than the sums.
        """
        import torch

        spec = self.spec(eta=eta, lambda_=lambda_, coefficients=coefficients)
        rows = _rows(spec, self._init, self._models)
        names = rows[0].names
        wanted = parse_output_dtype(dtype) if dtype else None
        job = build_job(spec, rows, names, wanted, self._allow_nonfinite)
        result: dict[str, torch.Tensor] = {}
        for name in names:
            shape, kind = rows[0].shape(name), getattr(torch, job.dtypes[name].torch_name)
            old = (out or {}).get(name)
            fits = old is not None and old.shape == shape and old.dtype == kind
            result[name] = old if old is not None and fits else torch.empty(shape, dtype=kind)
        stream = Stream(job, self._kernels, _MemorySink(result), Done(grams=self._grams.get(spec.uses_init, {})))
        stream.run(self._threads)
        self._grams[spec.uses_init] = stream.grams
        return result


def merged_state_dict(
    models: Sequence[Weights],
    *,
    init: Weights | None = None,
    method: str = "slerp",
    eta: float = 1.0,
    lambda_: float | None = None,
    coefficients: Sequence[float] | None = None,
    dtype: str | None = None,
    **parameters: Any,
) -> dict[str, torch.Tensor]:
    """Return a merge as a state dict, nothing written; for a sweep, keep a `Merger`.

    Example:
        >>> import torch
        >>> a, b = {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}
        >>> merged_state_dict([a, b], method="lerp", lambda_=0.25)["w"].item()
        1.5
    """
    merger = Merger(models, init=init, method=method, **parameters)
    return merger.state_dict(eta=eta, lambda_=lambda_, coefficients=coefficients, dtype=dtype)


def _sources(weights: Sequence[Weights], names: Sequence[str], allow_pickle: bool) -> list[MemorySource | FileSource]:
    """Read state dicts from memory, and checkpoints block by block from their files, aligned as a merge on disk aligns them."""
    paths = [each for each in weights if not isinstance(each, Mapping)]
    opened = [open_checkpoint(path, allow_pickle=allow_pickle) for path in paths]
    entries = align(opened).entries if len(opened) == len(weights) else [each.entries for each in opened]
    shared = Files()
    files = iter([FileSource(each.source, known, shared) for each, known in zip(opened, entries)])
    labels = [*names, *(f"model {number + 1}" for number in range(len(weights)))]
    return [MemorySource(name, each) if isinstance(each, Mapping) else next(files) for name, each in zip(labels, weights)]


class _MemorySink:
    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        import torch

        self._views = {name: t.reshape(-1).view(torch.uint8).numpy().data for name, t in tensors.items()}
        self._itemsizes = {name: tensor.element_size() for name, tensor in tensors.items()}

    def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
        first = start * self._itemsizes[tensor]
        self._views[tensor][first : first + data.nbytes] = data

    def solved(self, group: str, gram: Gram) -> None: ...

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None: ...


# ---- from checkpoints to a directory --------------------------------------------------------------------------------


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_kernels(device: str) -> Kernels:
    """Return the kernels of a device: numba's for `cpu`, torch's for any other."""
    if device == "cpu":
        from warmkit.merging.kernels import NumbaKernels

        return NumbaKernels()
    if not device.startswith("cuda"):
        raise UsageError(f"unknown device {device!r}; choose cpu or cuda")
    from warmkit.merging.kernels_torch import TorchKernels

    return TorchKernels(device)


def _rows(spec: MergeSpec, init: Any | None, models: Sequence[Any]) -> list[Any]:
    if not spec.uses_init:
        return list(models)
    if init is None:
        why = spec.name if spec.method.needs_init or spec.name == "liti" else "eta other than 1"
        raise UsageError(f"{why} needs --init, the model that the others were fine-tuned from")
    return [init, *models]


def build_job(
    spec: MergeSpec,
    rows: Sequence[Source],
    names: Sequence[str],
    dtype: DType | None,
    allow_nonfinite: bool,
    kept: Collection[str] = (),
) -> Job:
    """Turn a checked merge of aligned sources into a job; of `kept` names all rows read the same tensor."""
    own = {name: rows[0].result_dtype(name) for name in names}
    floats = [name for name in names if own[name].kind == "float"]
    # the others become another type
    copied = {name for name in kept if dtype in (None, own[name]) and rows[0].dtype(name) == own[name]}
    space = spec.method.space if spec.method.space != "none" else "task vectors" if spec.angles else None
    spec, groups = spec.localised(group([name for name in floats if name not in kept], spec.granularity))
    solve = spec.solve
    if space is not None and spec.from_zero:
        space = "weights"
    if space == "weights" and spec.uses_init:  # row 0 is the init, whose products the ablation does not read
        solve = _without_init(spec)
    return Job(
        rows=rows,
        groups={**groups, **{f"{name} (kept)": [name] for name in floats if name in kept and name not in copied}},
        exact=[name for name in names if own[name].kind == "exact" or name in copied],
        dtypes={name: dtype if dtype and own[name].kind == "float" else own[name] for name in names},
        outputs=len(spec.etas),
        space=space,
        solve=solve,
        allow_nonfinite=allow_nonfinite,
        edit=spec.edit if isinstance(spec.method, EditMethod) else None,
        readings=spec.method.passes if isinstance(spec.method, EditMethod) else 1,
        known=_known(rows, floats) if space == "task vectors" else {},
    )


def _known(rows: Sequence[Source], names: Sequence[str]) -> dict[str, Callable[[], Gram]]:
    """Return the products of task vectors that are known without reading: those of adapters on the init."""
    init, *models = rows
    files = [each for each in models if isinstance(each, FileSource)]
    if not isinstance(init, FileSource) or len(files) < len(models):
        return {}
    found = {name: init.known_products(name, files) for name in names}
    return {name: products for name, products in found.items() if products is not None}


def _without_init(spec: MergeSpec) -> Callable[[str, Gram | None], Any]:
    return lambda name, gram: spec.solve(name, None if gram is None else gram[1:, 1:])


@dataclass(frozen=True)
class _Prepared:
    """Everything known before the first weight is read."""

    spec: MergeSpec
    init: Checkpoint | None
    models: list[Checkpoint]
    donor: Checkpoint
    companions: Checkpoint
    job: Job
    plan: Plan
    folders: list[str]
    notes: tuple[str, ...]
    patterns: tuple[Sequence[str], Sequence[str]]
    kept: frozenset[str]
    tokenizer: Path | None
    chat_template: str | None
    matched: Matched

    @property
    def bytes_read(self) -> int:
        return sum(self.job.bytes_read(name) * self.job.passes(name) for name in self.job.dtypes)

    @property
    def bytes_streamed(self) -> int:
        far = [row for row in self.job.rows if row.far]
        sizes = {name: sum(row.dtype(name).itemsize for row in far) for name in self.job.dtypes}
        return sum(self.job.elements(name) * size * self.job.passes(name) for name, size in sizes.items())

    @property
    def bytes_written(self) -> int:
        return self.plan.nbytes * len(self.folders)


def write(
    spec: MergeSpec,
    models: Sequence[PathLike | Checkpoint],
    init: PathLike | Checkpoint | None,
    output: PathLike,
    options: OutputOptions,
    extra: Mapping[str, Any] | None = None,
) -> MergeResult:
    """Open, compare, plan, stream and publish one merge; `extra` goes into the manifest."""
    kernels = find_kernels(options.get("device", "cpu"))
    started = time.perf_counter()  # loading a compiler is no work
    output = Path(output)
    prepared = _prepare(spec, models, init, output, options)
    staging = Staging(output, options.get("force", False))
    fingerprint = _fingerprint(prepared)
    if options.get("resume", True) and staging.finished_before(fingerprint):
        staging.remove()
        groups = read_groups(output / prepared.folders[0])
        return _result(prepared, output, groups, len(prepared.job.dtypes), started)
    staging.check()
    if options.get("dry_run", False):
        return _plan_only(prepared, staging, kernels, options)
    _check_disk(prepared, staging)
    stream, resumed = _run(prepared, staging, kernels, fingerprint, options, extra or {})
    return _result(prepared, output, _reports(prepared, stream, 0), resumed, started)


def _prepare(
    spec: MergeSpec,
    models: Sequence[PathLike | Checkpoint],
    init: PathLike | Checkpoint | None,
    output: Path,
    options: OutputOptions,
) -> _Prepared:
    dtype = parse_output_dtype(name) if (name := options.get("dtype")) else None
    max_shard_size = parse_size(options.get("max_shard_size", "5GB"))
    if (threads := options.get("threads")) is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, found {threads}")
    if not models:
        raise UsageError("expected at least one model")
    _rows(spec, init, models)
    opened_init = None if init is None else _opened(init, options)
    opened = [_opened(model, options) for model in models]
    everything = [*([opened_init] if opened_init else []), *opened]
    inputs = [part for each in everything for part in each.inputs]
    check_apart(output, inputs)
    only, exclude = options.get("only") or (), options.get("exclude") or ()
    unmerged = kept(everything[0].entries, only, exclude) if only or exclude else frozenset[str]()
    companions, notes = companion_donor(everything)
    mode = options.get("vocabulary", "strict")
    if mode != "strict" and options.get("tokenizer"):
        raise UsageError(f"vocabulary {mode} writes the tokenizer of the rows that it matched; leave the tokenizer out")
    matched = match_vocabularies(everything, companions, spec, mode, opened_init is not None)
    everything = matched.checkpoints
    aligned = align(everything, unmerged, vocabularies=mode == "strict")
    files = Files()
    sources = [FileSource(each.source, entries, files) for each, entries in zip(everything, aligned.entries)]
    rows = _rows(spec, sources[0] if opened_init else None, sources[len(sources) - len(opened) :])
    donor = everything[0]
    job = build_job(spec, rows, list(donor.entries), dtype, options.get("allow_nonfinite", False), unmerged)
    tensors = (Output(name, job.dtypes[name], entry.shape) for name, entry in donor.entries.items())
    plan = plan_output(tensors, max_shard_size, {"format": "pt", **donor.metadata})
    folders = [""] if len(spec.etas) == 1 else [f"eta-{eta:g}" for eta in spec.etas]
    if unmerged:
        notes.append(f"{len(unmerged)} of {len(donor.entries)} tensors are copied from {donor.source} (--only, --exclude)")
    tokenizer = find_tokenizer(wanted, inputs) if (wanted := options.get("tokenizer")) else None
    template = find_template(text, inputs) if (text := options.get("chat_template")) else None
    return _Prepared(
        spec,
        opened_init,
        opened,
        donor,
        companions,
        job,
        plan,
        folders,
        (*aligned.notes, *notes, *matched.notes),
        (only, exclude),
        unmerged,
        tokenizer,
        template,
        matched,
    )


def _plan_only(prepared: _Prepared, staging: Staging, kernels: Kernels, options: OutputOptions) -> MergeResult:
    planned = replace(_result(prepared, staging.destination, (), 0, time.perf_counter()), written=False)
    streamed = any(each.streamed for each in (*prepared.models, *([prepared.init] if prepared.init else [])))
    if streamed or not options.get("estimate", False):  # a sample is not worth a transfer
        _check_disk(prepared, staging)
        return planned
    place, needed, free = _room(prepared, staging)
    try:
        found = estimate(prepared.job, kernels, place, options.get("threads") or cores())
    finally:
        for row in prepared.job.rows:
            row.close()
    return replace(planned, estimate=found, lacking=max(0, needed - free))


def _opened(model: PathLike | Checkpoint, options: OutputOptions) -> Checkpoint:
    if isinstance(model, Checkpoint):
        return model
    return open_checkpoint(model, allow_pickle=options.get("allow_pickle", False), stream=options.get("stream", False))


def check_apart(output: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse a destination that is an input, holds one, or lies inside one."""
    target = output.resolve()
    for checkpoint in checkpoints:
        for place in (path.resolve() for path in (checkpoint.path, *checkpoint.adapters)):
            if target == place:
                raise OutputError(f"{output}: is an input; choose another -o")
            if place.is_relative_to(target):
                raise OutputError(f"{output}: holds the input {checkpoint.source}; choose another -o")
            if target.is_relative_to(place):
                raise OutputError(f"{output}: lies inside the input {checkpoint.source}; choose another -o")


def _check_disk(prepared: _Prepared, staging: Staging) -> None:
    place, needed, free = _room(prepared, staging)
    if needed > free:
        raise OutputError(
            f"{staging.destination}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free on {place}"
        )


def _room(prepared: _Prepared, staging: Staging) -> tuple[Path, int, int]:
    """Return the directory whose disk takes the result, and the bytes that are needed and free there."""
    place = staging.destination.parent
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        raise OutputError(f"{staging.destination}: {place} is not writable")
    staged = sum(file.stat().st_blocks * 512 for file in staging.root.rglob("*") if file.is_file())
    return place, prepared.bytes_written - staged, shutil.disk_usage(place).free


def _fingerprint(prepared: _Prepared) -> str:
    """Digest what decides the bytes: the parameters, the input files as they are now, and the planned layout."""
    job, spec = prepared.job, prepared.spec
    checkpoints = [*([prepared.init] if prepared.init else []), *prepared.models]
    identity = {
        "digest": ALGORITHM,
        "method": [spec.name, spec.method.name, spec.shares.tolist(), spec.etas, spec.granularity, spec.antiparallel],
        "rows": [row.name for row in job.rows],
        "angles": spec.angles,
        "kept": sorted(prepared.kept),
        "parameters": spec.parameters,
        "tokenizer": [str(prepared.tokenizer), prepared.chat_template],
        "vocabulary": prepared.matched.identity,
        "allow_nonfinite": job.allow_nonfinite,
        "inputs": [checkpoint.fingerprint() for checkpoint in checkpoints],
        "shards": [[shard.file, xxhash.xxh3_128_hexdigest(shard.header)] for shard in prepared.plan.shards],
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(identity).encode())


def _run(
    prepared: _Prepared,
    staging: Staging,
    kernels: Kernels,
    fingerprint: str,
    options: OutputOptions,
    extra: Mapping[str, Any],
) -> tuple[Stream, int]:
    done = staging.open(fingerprint, options.get("resume", True))
    keep = True
    try:
        stream = _stream(prepared, staging, kernels, done, options)
        for checkpoint in [*([prepared.init] if prepared.init else []), *prepared.models]:
            checkpoint.check()
        _write_small_files(prepared, staging, stream, options, extra)
        staging.publish()
    except OutputError:
        raise
    except TransferError as error:  # a server is at fault, which may be well again later
        raise TransferError(f"{error}; the same command goes on where this one stopped") from None
    except WarmkitError:
        keep = False  # the inputs are at fault: the same run cannot be resumed
        raise
    finally:
        if not keep:
            staging.remove()
        staging.close()
        for row in prepared.job.rows:
            row.close()
    return stream, len(done.tensors)


def _stream(prepared: _Prepared, staging: Staging, kernels: Kernels, done: Done, options: OutputOptions) -> Stream:
    total, report = prepared.bytes_read + prepared.bytes_written, options.get("advance")
    sink = FileSink(staging, prepared.plan, prepared.folders)
    advance = (lambda size: report(size, total)) if report else (lambda size: None)
    stream = Stream(prepared.job, kernels, sink, done, advance)
    try:
        stream.run(options.get("threads") or cores())
    finally:
        sink.close()
    return stream


def _write_small_files(
    prepared: _Prepared, staging: Staging, stream: Stream, options: OutputOptions, extra: Mapping[str, Any]
) -> None:
    dtype = parse_output_dtype(name) if (name := options.get("dtype")) else None
    for number, (folder, eta) in enumerate(zip(prepared.folders, prepared.spec.etas)):
        target = staging.result / folder
        description = _describe(prepared, eta, dtype, extra)
        groups = _reports(prepared, stream, number)
        with writing(staging.destination):
            copy_companions(prepared.companions, companion_files(prepared.companions), target, dtype)
            prepared.matched.finish(target)
            if prepared.tokenizer is not None:
                copy_tokenizer(prepared.tokenizer, target)
            if prepared.chat_template is not None:
                write_template(prepared.chat_template, target)
            if prepared.plan.index is not None:
                (target / INDEX).write_bytes(prepared.plan.index)
            card = model_card(staging.destination.name, description, mean_angle(groups))
            (target / "README.md").write_text(card, "utf-8")
            rows = [row.name for row in prepared.job.rows]
            write_manifest(target, description, rows, groups, stream.digests, number, options.get("sha256", False))


def _describe(prepared: _Prepared, eta: float, dtype: DType | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    def source(checkpoint: Checkpoint) -> dict[str, Any]:
        versions = {"versions": checkpoint.versions()} if checkpoint.streamed else {}
        return {"source": checkpoint.source, "files": checkpoint.sizes(), **versions}

    return {
        "method": prepared.spec.name,
        "parameters": {**prepared.spec.parameters, "eta": eta, "dtype": dtype.torch_name if dtype else None},
        "init": source(prepared.init) if prepared.init else None,
        "models": [source(model) for model in prepared.models],
        **({"vocabulary": prepared.matched.notes} if prepared.matched.notes else {}),
        **_described_choice(prepared),
        **extra,
    }


def _described_choice(prepared: _Prepared) -> dict[str, Any]:
    only, exclude = prepared.patterns
    if not prepared.kept:
        return {}
    where = {"source": prepared.donor.source, "tensors": sorted(prepared.kept)}
    return {"kept": {"only": list(only), "exclude": list(exclude), **where}}


def _reports(prepared: _Prepared, stream: Stream, number: int) -> tuple[GroupReport, ...]:
    job = prepared.job

    def report(name: str, names: Sequence[str]) -> GroupReport:
        gram = stream.grams.get(name)
        if gram is not None and len(gram) > len(prepared.models):
            gram = gram[1:, 1:]
        size = int(np.sum([job.elements(tensor) for tensor in names]))
        return report_group(name, len(names), size, stream.coefficients[name][number], gram)

    return tuple(report(name, names) for name, names in job.groups.items())


def _result(prepared: _Prepared, output: Path, groups: tuple[GroupReport, ...], resumed: int, started: float) -> MergeResult:
    return MergeResult(
        path=output,
        outputs={eta: output / folder for eta, folder in zip(prepared.spec.etas, prepared.folders)},
        method=prepared.spec.name,
        files={shard.file: shard.size for shard in prepared.plan.shards},
        groups=groups,
        mean_angle=mean_angle(groups),
        parameters=sum(entry.elements for entry in prepared.donor.entries.values()),
        bytes_read=prepared.bytes_read,
        bytes_streamed=prepared.bytes_streamed,
        bytes_written=prepared.bytes_written,
        resumed=resumed,
        notes=prepared.notes,
        seconds=time.perf_counter() - started,
        written=True,
    )


__all__ = ["MergeResult", "Merger", "OutputOptions", "check_etas", "ema", "liti", "merge", "merged_state_dict", "soup"]

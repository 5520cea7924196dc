"""From checkpoints to a directory: stream, describe, and rename the result into place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from warmkit.checkpoints.card import model_card
from warmkit.checkpoints.checkpoint import INDEX, Checkpoint
from warmkit.checkpoints.companions import copy_companions, copy_tokenizer
from warmkit.checkpoints.devices import Kernels, cores, find_kernels
from warmkit.checkpoints.doubts import doubts_after, refuse_doubts
from warmkit.checkpoints.dtypes import DType, parse_output_dtype
from warmkit.checkpoints.ends import write_ends
from warmkit.checkpoints.estimate import Estimate, estimate
from warmkit.checkpoints.identities import Identity
from warmkit.checkpoints.job import Done, input_rows
from warmkit.checkpoints.manifest import GroupReport, mean_angle, read_groups, report_group, span, write_manifest
from warmkit.checkpoints.options import OutputOptions, PathLike
from warmkit.checkpoints.prepare import Prepared, check_disk, fingerprint, prepare, room
from warmkit.checkpoints.sink import FileSink, still_there
from warmkit.checkpoints.spec import MergeSpec
from warmkit.checkpoints.staging import Staging, writing
from warmkit.checkpoints.stream import Stream
from warmkit.checkpoints.tokenizers import write_template
from warmkit.display import Displayed
from warmkit.errors import OutputError, TransferError, WarmkitError
from warmkit.merging.methods import EditMethod
from warmkit.progress import progress
from warmkit.units import duration, number, size


@dataclass(frozen=True, repr=False)
class MergeResult(Displayed):
    """Result of a merge, or with `dry_run` what it would be.

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

    def _facts(self) -> Mapping[str, object]:
        first = f" at eta {next(iter(self.outputs)):g}" if len(self.outputs) > 1 else ""
        return {
            "path": self.path,
            "method": self.method,
            "etas" if first else "eta": list(self.outputs),
            f"coefficients{first}": span(self.groups),
            "parameters": number(self.parameters),
            "mean angle": None if self.mean_angle is None else f"{self.mean_angle:.1f} degrees",
            "written" if self.written else "would write": size(self.bytes_written),
            "time": duration(self.seconds) if self.written else self.estimate and duration(self.estimate.seconds),
            "notes": len(self.notes) or None,
        }

    def _rows(self) -> Sequence[Displayed]:
        return self.groups


def write(
    spec: MergeSpec,
    models: Sequence[PathLike | Checkpoint],
    init: PathLike | Checkpoint | None,
    output: PathLike,
    options: OutputOptions,
    extra: Mapping[str, Any] | None = None,
) -> MergeResult:
    """Open, compare, plan, stream and publish one merge; `extra` goes into the manifest."""
    find_kernels(options.get("device", "cpu"))
    started = time.perf_counter()  # loading a compiler is no work
    prepared = prepare(spec, models, init, Path(output), options)
    return write_prepared(prepared, Staging(Path(output), options.get("force", False)), options, started, extra)


def write_prepared(
    prepared: Prepared, staging: Staging, options: OutputOptions, started: float, extra: Mapping[str, Any] | None = None
) -> MergeResult:
    """Stream and publish what is prepared; `staging` may be older than that, and hold some of it already."""
    kernels, output = find_kernels(options.get("device", "cpu")), prepared.output
    identity = fingerprint(prepared)
    if options.get("resume", True) and staging.finished_before(identity):
        staging.remove()
        groups = read_groups(output / prepared.folders[0])
        return _result(prepared, groups, len(prepared.job.dtypes), started)
    staging.check()
    if options.get("dry_run", False):
        return _plan_only(prepared, staging, kernels, options)
    check_disk(prepared, staging)
    stream, resumed, doubts = _run(prepared, staging, kernels, identity, options, extra or {})
    result = _result(prepared, _reports(prepared, stream, 0), resumed, started)
    return replace(result, notes=(*result.notes, *doubts))


def _plan_only(prepared: Prepared, staging: Staging, kernels: Kernels, options: OutputOptions) -> MergeResult:
    planned = replace(_result(prepared, (), 0, time.perf_counter()), written=False)
    streamed = any(each.streamed for each in (*prepared.models, *([prepared.init] if prepared.init else [])))
    method = prepared.spec.method
    unknown = isinstance(method, EditMethod) and method.whole  # a sample of bytes tells nothing
    if streamed or unknown or not options.get("estimate", False):  # a sample is not worth a transfer
        check_disk(prepared, staging)
        return planned
    place, needed, free = room(prepared, staging)
    try:
        found = estimate(prepared.job, kernels, place, options.get("threads") or cores())
    finally:
        for row in prepared.job.rows:
            row.close()
    return replace(planned, estimate=found, lacking=max(0, needed - free))


def _run(
    prepared: Prepared,
    staging: Staging,
    kernels: Kernels,
    identity: str,
    options: OutputOptions,
    extra: Mapping[str, Any],
) -> tuple[Stream, int, list[str]]:
    done = still_there(staging.open(identity, options.get("resume", True)), staging, prepared.plan, prepared.folders)
    keep = True
    try:
        stream, written = _stream(prepared, staging, kernels, done, options)
        prepared.check()
        doubts = _doubts(prepared, stream)
        refuse_doubts(doubts, options.get("strict", False))
        _write_small_files(prepared, staging, stream, options, extra)
        prepared.check_small_files()
        staging.publish(written)
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
    return stream, len(done.tensors), doubts


def _doubts(prepared: Prepared, stream: Stream) -> list[str]:
    rows = input_rows(prepared.spec, prepared.init, prepared.models)
    floats = {name: stream.digests[name] for names in prepared.job.groups.values() for name in names}
    return doubts_after(rows, len(rows) > len(prepared.models), floats, prepared.doubts)


def _stream(
    prepared: Prepared, staging: Staging, kernels: Kernels, done: Done, options: OutputOptions
) -> tuple[Stream, Mapping[Path, Identity]]:
    """Merge; return the stream that did it, and the files that it wrote."""
    total = prepared.bytes_read + prepared.bytes_written
    sink = FileSink(staging, prepared.plan, prepared.folders)
    with contextlib.closing(sink), progress(options.get("advance"), "merging") as report:
        stream = Stream(prepared.job, kernels, sink, done, lambda size: report(size, total))
        stream.run(options.get("threads") or cores())
    return stream, sink.written


def _write_small_files(
    prepared: Prepared, staging: Staging, stream: Stream, options: OutputOptions, extra: Mapping[str, Any]
) -> None:
    dtype = parse_output_dtype(name) if (name := options.get("dtype")) else None
    for place, (folder, eta) in enumerate(zip(prepared.folders, prepared.spec.etas)):
        target = staging.result / folder
        description = _describe(prepared, eta, dtype, extra)
        groups = _reports(prepared, stream, place)
        with writing(staging.destination):
            copy_companions(prepared.companions, prepared.small_files, target, dtype)
            write_ends(prepared.ends, prepared.companions, target)
            prepared.matched.finish(target)
            if prepared.tokenizer is not None:
                copy_tokenizer(prepared.tokenizer, target)
            if prepared.chat_template is not None:
                write_template(prepared.chat_template, target)
            if prepared.plan.index is not None:
                (target / INDEX).write_bytes(prepared.plan.index)
            card = model_card(staging.destination.name, description, mean_angle(groups))
            (target / "README.md").write_text(card, "utf-8", "backslashreplace")
            rows = [row.name for row in prepared.job.rows]
            write_manifest(target, description, rows, groups, stream.digests, place, options.get("sha256", False))


def _describe(prepared: Prepared, eta: float, dtype: DType | None, extra: Mapping[str, Any]) -> dict[str, Any]:
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
        **({"heads": sorted(prepared.heads)} if prepared.heads else {}),
        **extra,
    }


def _described_choice(prepared: Prepared) -> dict[str, Any]:
    only, exclude = prepared.patterns
    if not prepared.kept:
        return {}
    where = {"source": prepared.donor.source, "tensors": sorted(prepared.kept)}
    return {"kept": {"only": list(only), "exclude": list(exclude), **where}}


def _reports(prepared: Prepared, stream: Stream, number: int) -> tuple[GroupReport, ...]:
    job = prepared.job

    def report(name: str, names: Sequence[str]) -> GroupReport:
        gram = stream.grams.get(name)
        if gram is not None and len(gram) > len(prepared.models):
            gram = gram[1:, 1:]
        size = int(np.sum([job.elements(tensor) for tensor in names]))
        return report_group(name, len(names), size, stream.coefficients[name][number], gram)

    return tuple(report(name, names) for name, names in job.groups.items())


def _result(prepared: Prepared, groups: tuple[GroupReport, ...], resumed: int, started: float) -> MergeResult:
    return MergeResult(
        path=prepared.output,
        outputs={eta: prepared.output / folder for eta, folder in zip(prepared.spec.etas, prepared.folders)},
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

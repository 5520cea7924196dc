"""A merge from its first file to its last: prepare, stream, publish; resumed where it was killed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.progress import progress
from warmkit.engine.devices import Kernels, cores, find_kernels
from warmkit.engine.doubts import doubts_after, refuse_doubts
from warmkit.engine.estimate import estimate
from warmkit.engine.job import Done, input_rows
from warmkit.engine.manifest import read_groups
from warmkit.engine.merge_options import OutputOptions, PathLike
from warmkit.engine.prepare import Prepared, check_disk, fingerprint, prepare, room
from warmkit.engine.publish import write_copies, write_small_files
from warmkit.engine.result import MergeResult, merge_result, report_groups
from warmkit.engine.sink import FileSink, still_there
from warmkit.engine.spec import MergeSpec
from warmkit.engine.staging import Staging
from warmkit.engine.stream import Stream
from warmkit.errors import OutputError, TransferError, WarmkitError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.sources.file_identity import Identity


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
        return merge_result(prepared, groups, len(prepared.job.dtypes), started)
    staging.check()
    if options.get("dry_run", False):
        return _plan_only(prepared, staging, kernels, options)
    check_disk(prepared, staging)
    stream, resumed, doubts = _run(prepared, staging, kernels, identity, options, extra or {})
    result = merge_result(prepared, report_groups(prepared, stream, 0), resumed, started)
    return replace(result, notes=(*result.notes, *doubts, *(prepared.copy.said if prepared.copy else ())))


def _plan_only(prepared: Prepared, staging: Staging, kernels: Kernels, options: OutputOptions) -> MergeResult:
    planned = replace(merge_result(prepared, (), 0, time.perf_counter()), written=False)
    streamed = any(each.streamed for each in (*prepared.models, *([prepared.init] if prepared.init else [])))
    unknown = prepared.spec.method.whole  # a sample of bytes tells nothing
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
        if prepared.copy is None:
            write_small_files(prepared, staging, stream, options, extra)
        else:
            write_copies(prepared, prepared.copy, staging, stream, options, extra)
            prepared.check()  # what was copied is what was merged
            written = {}
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


def _doubts(prepared: Prepared, stream: Stream) -> list[str]:
    rows = input_rows(prepared.spec, prepared.init, prepared.models)
    floats = {name: stream.digests[name] for names in prepared.job.groups.values() for name in names}
    return doubts_after(rows, len(rows) > len(prepared.models), floats, prepared.doubts)

"""A merge whose groups are spread over a cluster with a shared file system.

Each part is a job as a training run is one (`processes.Job`): its order, its journal and its last word lie in a directory of
the merge's staging directory. A part that loses its worker goes on elsewhere; one that was finished is never merged again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.common.records import dict_of, is_anything, is_text, list_of, read_record
from warmkit.common.whole_files import writing
from warmkit.engine.merge_options import Advance, PathLike
from warmkit.engine.parts import divide, write_part
from warmkit.engine.prepare import check_disk, fingerprint, prepare
from warmkit.engine.result import MergeResult
from warmkit.engine.sink import still_there
from warmkit.engine.spec import merge_call
from warmkit.engine.staging import PART_JOURNAL, Staging
from warmkit.engine.write import write_prepared
from warmkit.errors import ChangedError, ClusterError, listed
from warmkit.pipelines.processes import Job, RunJobs

PART_BYTES = 4 << 30  # read and written: seconds of work, beside which the start of a process is little
ORDER = "part.yaml"
_ORDER = {
    "models": list_of(is_text),
    "output": is_text,
    "groups": list_of(is_text),
    "exact": list_of(is_text),
    "identity": is_text,
    "call": dict_of(is_anything),
}


def merge_in_parts(
    models: Sequence[PathLike],
    output: PathLike,
    run_jobs: RunJobs,
    *,
    part_bytes: int = PART_BYTES,
    advance: Advance | None = None,
    **call: Any,
) -> MergeResult:
    """Merge as `merge` does, to the same bytes, in parts that `run_jobs` runs.

    Args:
        models: As for `merge`, seen under these names by every node.
        output: The destination, on a file system that the nodes share.
        run_jobs: Of `processes.open_executor`.
        part_bytes: What a part reads and writes, about.
        advance: Progress callback, in bytes.
        **call: Everything else that `merge` takes.

    Raises:
        ClusterError: If a part failed; the others stay, and the same call goes on from there.
        ChangedError: If an input changed meanwhile.
        WarmkitError: Any other kind, as `merge` does.
    """
    started = time.perf_counter()
    spec, init, options = merge_call(len(models), **call)
    prepared = prepare(spec, models, init, Path(output), options)
    staging, identity = Staging(Path(output), options.get("force", False)), fingerprint(prepared)
    resume = options.get("resume", True)
    if options.get("dry_run", False) or (resume and staging.finished_before(identity)):
        return write_prepared(prepared, staging, options, started)
    staging.check()
    check_disk(prepared, staging)
    done = still_there(staging.open(identity, resume), staging, prepared.plan, prepared.folders)
    try:
        order = {"models": [os.fspath(each) for each in models], "output": os.fspath(output), "identity": identity}
        parts = divide(prepared.job, done.tensors.keys(), part_bytes)
        call = {name: value for name, value in call.items() if value is not None}
        with writing(staging.parts):
            jobs = [
                _job(staging.parts / f"part-{number}", {**order, "groups": part.groups, "exact": part.exact, "call": call})
                for number, part in enumerate(parts)
            ]
        lines = sum(len(part.groups) * (prepared.job.space is not None) + len(part.exact) for part in parts)
        lines += sum(len(prepared.job.groups[group]) for part in parts for group in part.groups)
        failed = _run(jobs, run_jobs, lines, sum(part.nbytes for part in parts), advance)
        staging.adopt_parts()
        prepared.check()
    except ChangedError:  # what the parts wrote is of two versions
        staging.remove()
        raise
    finally:
        staging.close()
    if failed:
        said = listed([f"{name}: {why}" for name, why in failed.items()])
        raise ClusterError(
            f"{len(failed)} of {len(jobs)} parts failed; the others stay when the same command is given again:\n{said}"
        )
    return write_prepared(prepared, staging, {**options, "resume": True}, started)


def _job(folder: Path, order: Mapping[str, Any]) -> Job:
    """Write the order of a part; JSON is YAML too."""
    folder.mkdir(parents=True)
    (folder / ORDER).write_text(json.dumps(order, default=os.fspath))
    return Job(folder.name, ["merge-part", str(folder / ORDER)], folder / PART_JOURNAL)


def _run(jobs: Sequence[Job], run_jobs: RunJobs, lines: int, nbytes: int, advance: Advance | None) -> dict[str, str]:
    """Run the parts; journals, a line for every tensor and Gram matrix, tell how far they are."""
    if not jobs:
        return {}
    tell = (lambda done, total: advance(done * nbytes // lines, nbytes)) if advance else None
    return run_jobs(jobs, 1, -(-lines // len(jobs)), tell)


def follow_order(file: Path) -> None:
    """Merge one part, in a process of its own."""
    order = read_record(file, _ORDER)
    call, allotted = order["call"], int(os.environ.get("OMP_NUM_THREADS", "0").split(",")[0])
    write_part(
        order["models"],
        order["output"],
        order["groups"],
        order["exact"],
        file.with_name(PART_JOURNAL),
        order["identity"],
        **{**call, "threads": call.get("threads") or allotted or None},
    )
    file.with_name("summary.json").write_text("{}")

"""A merge in parts: groups of tensors that processes without a word between them merge into one staging directory.

Every byte has its place in the plan, so a part writes into the shards that all share. It keeps a journal of its own; when all
parts are done, their journals are the directory's, and the merge goes on as one that was interrupted at its very end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warmkit.engine.devices import cores, find_kernels
from warmkit.engine.job import Job
from warmkit.engine.merge_options import PathLike
from warmkit.engine.prepare import fingerprint, prepare
from warmkit.engine.sink import FileSink, still_there
from warmkit.engine.spec import merge_call
from warmkit.engine.staging import Staging, read_journal
from warmkit.engine.stream import Stream
from warmkit.errors import MismatchError


@dataclass(frozen=True)
class Part:
    """What one process merges.

    Attributes:
        groups: Names of groups of float tensors.
        exact: Names of tensors that are copied.
        nbytes: That it reads and writes.
    """

    groups: list[str]
    exact: list[str]
    nbytes: int


def divide(job: Job, done: Collection[str], most: int) -> list[Part]:
    """Divide what is left of a job into parts of at most `most` bytes, read and written, or one group where it has more."""

    def cost(names: Sequence[str]) -> int:
        written = sum(job.elements(name) * job.dtypes[name].itemsize for name in names) * job.outputs
        return written + sum(job.bytes_read(name) * job.passes(name) for name in names)

    units = [([group], list[str](), cost(names)) for group, names in job.groups.items() if not set(names) <= set(done)]
    units += [(list[str](), [name], cost([name])) for name in job.exact if name not in done]
    parts: list[Part] = []
    for groups, exact, size in units:
        last = parts[-1] if parts else None
        if last is not None and last.nbytes + size <= most:
            parts[-1] = Part(last.groups + groups, last.exact + exact, last.nbytes + size)
        else:
            parts.append(Part(groups, exact, size))
    return parts


def write_part(
    models: Sequence[PathLike],
    output: PathLike,
    groups: Collection[str],
    exact: Collection[str],
    journal: Path,
    identity: str,
    threads: int | None = None,
    **call: Any,
) -> None:
    """Merge some groups into the staging directory that another process has opened, or go on where this part was stopped.

    Args:
        models: As for `merge`.
        output: Its destination.
        groups: Which groups.
        exact: Which tensors that are copied.
        journal: Of this part.
        identity: `prepare.fingerprint` of the merge.
        threads: By default one per core.
        **call: Everything else that `merge` got.

    Raises:
        MismatchError: If the inputs are not those of the merge.
        ChangedError: If they change while they are read.
    """
    spec, init, options = merge_call(len(models), **call)
    prepared = prepare(spec, models, init, Path(output), options)
    if fingerprint(prepared) != identity:
        raise MismatchError(f"{output}: the inputs changed after its merge began; give the command again")
    mine = replace(
        prepared.job,
        groups={name: tensors for name, tensors in prepared.job.groups.items() if name in groups},
        exact=[name for name in prepared.job.exact if name in exact],
    )
    staging = Staging(Path(output))
    done = still_there(read_journal(journal), staging, prepared.plan, prepared.folders)
    sink = FileSink(staging, prepared.plan, prepared.folders, journal)
    try:
        Stream(mine, find_kernels(options.get("device", "cpu")), sink, done).run(threads or cores())
        prepared.check()
    finally:
        sink.close()
        for row in mine.rows:
            row.close()

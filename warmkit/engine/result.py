"""Result of a merge: what was written, how long it took, and what the weights turned out to be."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warmkit.common.display import Displayed
from warmkit.common.units import duration, number, size
from warmkit.engine.estimate import Estimate
from warmkit.engine.manifest import GroupReport, mean_angle, report_group, span
from warmkit.engine.prepare import Prepared
from warmkit.engine.stream import Stream


@dataclass(frozen=True, repr=False)
class MergeResult(Displayed):
    """Result of a merge, or with `dry_run` what it would be.

    Attributes:
        path: The destination.
        outputs: The model directory of every eta, or of every average; one entry, at `path`, unless several were asked for.
        method: The method, or the verb.
        files: Name and bytes of the weight files of one output.
        groups: Geometry and coefficients of every group, at the first eta; empty after a dry run.
        mean_angle: Mean pairwise angle of the task vectors in degrees, weighted by parameters; None if not measured.
        parameters: How many numbers the model has.
        bytes_read: Bytes read from the inputs.
        bytes_streamed: How many of them come over a network; fewer where a group is still in memory for its second pass.
        bytes_written: Bytes of weights written, or of the trainer's files.
        resumed: How many tensors an interrupted run had already written.
        notes: Harmless differences between the inputs.
        seconds: How long it took, once the kernels were loaded.
        written: False after a dry run.
        estimate: How long it would take; None unless asked for.
        lacking: Bytes that the destination's disk lacks; 0 unless an estimate was asked for.
    """

    path: Path
    outputs: dict[Any, Path]
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
        first = f" at eta {next(iter(self.outputs))}" if len(self.outputs) > 1 else ""
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


def _names(prepared: Prepared) -> Sequence[float | str]:
    return list(prepared.spec.averages) or prepared.spec.etas


def _files(prepared: Prepared) -> dict[str, int]:
    if (copy := prepared.copy) is not None:
        return {str(copy.within(file, Path())): file.stat().st_size for file in copy.files}
    return {shard.file: shard.size for shard in prepared.plan.shards}


def report_groups(prepared: Prepared, stream: Stream, number: int) -> tuple[GroupReport, ...]:
    """Return geometry and coefficients of every group at one eta."""
    job = prepared.job

    def report(name: str, names: Sequence[str]) -> GroupReport:
        gram = stream.grams.get(name)
        if gram is not None and len(gram) > len(prepared.models):
            gram = gram[1:, 1:]
        size = int(np.sum([job.elements(tensor) for tensor in names]))
        return report_group(name, len(names), size, stream.coefficients[name][number], gram)

    return tuple(report(name, names) for name, names in job.groups.items())


def merge_result(prepared: Prepared, groups: tuple[GroupReport, ...], resumed: int, started: float) -> MergeResult:
    """Return what a merge gives back; `started` is on the clock of `perf_counter`."""
    return MergeResult(
        path=prepared.output,
        outputs={name: prepared.output / folder for name, folder in zip(_names(prepared), prepared.folders)},
        method=prepared.spec.name,
        files=_files(prepared),
        groups=groups,
        mean_angle=mean_angle(groups),
        parameters=sum(entry.elements for entry in prepared.donor.entries.values()),
        bytes_read=prepared.bytes_read,
        bytes_streamed=prepared.bytes_streamed,
        bytes_written=prepared.bytes_written if prepared.copy is None else prepared.copy.nbytes * len(prepared.folders),
        resumed=resumed,
        notes=prepared.notes,
        seconds=time.perf_counter() - started,
        written=True,
    )

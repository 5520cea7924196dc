"""Estimate of a merge's time: its own stream, run over a sample of its tensors."""

from __future__ import annotations

import math
import os
import random
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warmkit.common.display import Displayed
from warmkit.common.units import duration, size
from warmkit.common.whole_files import writing
from warmkit.engine.devices import Kernels
from warmkit.engine.digests import Digests
from warmkit.engine.inputs import Source
from warmkit.engine.job import Job
from warmkit.engine.stream import Stream
from warmkit.merging.types import Gram

SAMPLE_BYTES = 1 << 29
LARGEST = 1 << 25  # elements of a tensor that are read


@dataclass(frozen=True, repr=False)
class Estimate(Displayed):
    """The time of a merge, from a sample of it.

    Attributes:
        seconds: Of the whole.
        bytes_per_second: Read and written, while a sample was merged and flushed to the destination's disk.
        sampled: Bytes that the sample read and wrote.
    """

    seconds: float
    bytes_per_second: float
    sampled: int

    def _facts(self) -> Mapping[str, object]:
        return {"time": duration(self.seconds), "speed": f"{size(self.bytes_per_second)}/s", "sampled": size(self.sampled)}


def estimate(job: Job, kernels: Kernels, destination: Path, threads: int, sample: int = SAMPLE_BYTES) -> Estimate | None:
    """Merge some tensors of a job, drawn at random, into a file without a name, and scale the time to the whole.

    Inputs are read as they lie, on the disk or in the system's memory; what is written is flushed, and gone when this returns.

    Args:
        job: The whole merge.
        kernels: What computes it.
        destination: Directory, on the disk that is to be written.
        threads: Worker threads.
        sample: Bytes that the sample reads and writes at least, where the job has them.

    Returns:
        None for a job that moves no bytes.

    Raises:
        WarmkitError: Whatever is wrong with the inputs of the sample, or with the disk.
    """
    whole = sum(_moved(job, name) for name in job.dtypes)
    job = replace(job, rows=[_Start(row) for row in job.rows])
    sizes = {name: _moved(job, name) for name in job.dtypes}
    floats = [name for names in job.groups.values() for name in names if sizes[name]]
    if not floats:
        return None
    chosen = _drawn(floats, sizes, sample)
    first = min(floats, key=sizes.__getitem__)
    _run(_only(job, {first}), kernels, destination, threads)  # compiles, opens, connects
    started = time.perf_counter()
    _run(_only(job, chosen), kernels, destination, threads)
    seconds = time.perf_counter() - started
    moved = sum(sizes[name] for name in chosen)
    return Estimate(seconds * whole / moved, moved / seconds, moved)


class _Start:
    """The first rows of every tensor of a source: a sample need not read the largest whole."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def shape(self, tensor: str) -> tuple[int, ...]:
        full = self._source.shape(tensor)
        row = math.prod(full[1:])
        return full if math.prod(full) <= LARGEST else (max(1, LARGEST // row), *full[1:])


def _moved(job: Job, tensor: str) -> int:
    written = job.elements(tensor) * job.dtypes[tensor].itemsize * job.outputs
    return written + job.bytes_read(tensor) * job.passes(tensor)


def _drawn(names: Sequence[str], sizes: Mapping[str, int], sample: int) -> set[str]:
    """Return tensors in a random order until they have so many bytes: a second estimate reads others, which lie on the disk."""
    chosen, total = set[str](), 0
    for name in random.sample(names, len(names)):
        if total >= sample:
            break
        chosen.add(name)
        total += sizes[name]
    return chosen


def _only(job: Job, chosen: set[str]) -> Job:
    kept = {group: [name for name in names if name in chosen] for group, names in job.groups.items()}
    return replace(job, groups={group: names for group, names in kept.items() if names}, exact=[])


def _run(job: Job, kernels: Kernels, destination: Path, threads: int) -> None:
    with writing(destination), tempfile.TemporaryFile(dir=destination) as file:
        Stream(job, kernels, _SampleSink(job, file.fileno())).run(threads)
        os.fsync(file.fileno())


class _SampleSink:
    """Writes one tensor after another into one file."""

    def __init__(self, job: Job, descriptor: int) -> None:
        self._job, self._descriptor = job, descriptor
        self._lock = threading.Lock()
        self._places: dict[tuple[int, str], int] = {}
        self._end = 0

    def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
        itemsize = self._job.dtypes[tensor].itemsize
        with self._lock:
            if (output, tensor) not in self._places:
                self._places[output, tensor] = self._end
                self._end += self._job.elements(tensor) * itemsize
            place = self._places[output, tensor] + start * itemsize
        while data.nbytes:
            count = os.pwrite(self._descriptor, data, place)
            data, place = data[count:], place + count

    def solved(self, group: str, gram: Gram) -> None: ...

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None: ...

"""A sink that compares: what a merge would write, tile by tile, against a model that is there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.engine.digests import Digests
from warmkit.engine.job import Job
from warmkit.engine.residuals import Mixture, Tally, Values, rounded, tally, total
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.tensors import Tensor
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.types import Coefficients, Gram
from warmkit.sources.files import Files

PART = 1 << 14  # elements whose copies stay in the second-level cache, and in memory that the allocator has


def with_inputs(job: Job, found: dict[str, Coefficients]) -> Job:
    """Return a job whose first output is that of `job`; the others are its rows as they are, from the same reading.

    Of a method that edits task vectors, the init alone.

    Args:
        job: One output in float64.
        found: Takes the coefficients of every group.
    """
    rows = np.zeros((1, 1)) if job.edit is not None else np.eye(len(job.rows))

    def solve(group: str, gram: Gram | None) -> Coefficients:
        solved = job.solve(group, gram)
        found[group] = solved[0]
        return np.vstack([solved, rows])

    return replace(job, outputs=1 + len(rows), solve=solve)


class ClaimSink:
    """Compares what a job of `with_inputs` writes with the tensors of a model; nothing is stored.

    Args:
        job: The job.
        coefficients: Of every group, as they are found.
        merged: The tensors of the model; those of other names, shapes or kinds are left alone.
        files: Where these are read.
        from_zero: What the claim starts from is zero.

    Attributes:
        tallies: Of every tensor of floats that was compared.
        different: Names of tensors of integers that differ.
    """

    def __init__(
        self, job: Job, coefficients: Mapping[str, Coefficients], merged: Mapping[str, Tensor], files: Files, from_zero: bool
    ) -> None:
        self._job, self._coefficients, self._merged, self._files = job, coefficients, merged, files
        self._from_zero = from_zero
        self._groups = {name: group for group, names in job.groups.items() for name in names}
        self._local = threading.local()
        self._lock = threading.Lock()
        self._pieces: dict[str, dict[int, Tally]] = {}
        self.tallies: dict[str, Tally] = {}
        self.different: set[str] = set()

    def mixture(self, tensor: str) -> Mixture:
        """Return how the claim on a tensor comes from the rows."""
        group = self._groups.get(self._job.twins.get(tensor, tensor))
        if group is None or self._job.edit is not None:
            return Mixture(None, self._from_zero)
        return Mixture(self._coefficients[group], self._from_zero)

    def dtype(self, tensor: str) -> DType:
        """Return the type whose rounding counts: the stored one, but no wider than float32 where an input is not."""
        stored, original = self._merged[tensor].dtype, self._job.twins.get(tensor, tensor)
        wide = all(row.dtype(original).name == "F64" for row in self._job.rows)
        return stored if wide or stored.name != "F64" else DTYPES["F32"]

    def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
        if tensor not in self._merged:
            return
        if self._job.dtypes[tensor].kind == "exact":
            if output == 0 and self._read(tensor, start, data.nbytes // self._merged[tensor].dtype.itemsize).tobytes() != bytes(
                data
            ):
                self.different.add(tensor)
            return
        size = len(data) // 8
        written = self._buffer("written", self._job.outputs * size, "float64").reshape(self._job.outputs, size)
        written[output] = np.frombuffer(data, np.float64)  # a twin's outputs come in turn with its original's, and are the same
        if output == self._job.outputs - 1:
            self._compare(tensor, start, written)

    def _buffer(self, purpose: str, size: int, storage: str) -> NDArray[Any]:
        """Return a buffer of this thread: fresh memory costs more than the comparison."""
        buffers: dict[tuple[str, str], NDArray[Any]] = self._local.__dict__.setdefault("buffers", {})
        if (purpose, storage) not in buffers or buffers[purpose, storage].size < size:
            buffers[purpose, storage] = np.empty(size, storage)
        return buffers[purpose, storage][:size]

    def _read(self, tensor: str, start: int, size: int) -> NDArray[Any]:
        entry = self._merged[tensor]
        found = self._buffer("raw", size, entry.dtype.storage)
        entry.read(self._files, start, found.data.cast("B"))
        return found

    def _compare(self, tensor: str, start: int, written: Values) -> None:
        raw, mixture, dtype = self._read(tensor, start, written.shape[1]), self.mixture(tensor), self.dtype(tensor)
        pieces: list[Tally] = []
        for part in (slice(first, first + PART) for first in range(0, raw.size, PART)):
            stored, (claim, *rows) = np.empty(raw[part].size), written[:, part]
            NumbaKernels().convert(raw[part], stored)
            stored = stored if dtype == self._merged[tensor].dtype else rounded(stored, dtype)
            pieces.append(tally(stored, claim, np.stack(rows), mixture, dtype))
        with self._lock:
            self._pieces.setdefault(tensor, {})[start] = total(pieces)

    def solved(self, group: str, gram: Gram) -> None: ...

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None:
        """Add up the pieces of a tensor, in their order, whichever thread was last."""
        if tensor in self._merged and self._job.dtypes[tensor].kind == "float":
            with self._lock:
                pieces = self._pieces.pop(tensor, {})
                self.tallies[tensor] = total([pieces[start] for start in sorted(pieces)])

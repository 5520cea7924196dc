"""A sink that compares: what a merge would write, tile by tile, against a model that is there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from warmkit.engine.digests import Digests
from warmkit.engine.job import Job
from warmkit.engine.residuals import Mixture, Tally, Values, tally, total
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.tensors import Tensor
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.types import Coefficients, Gram
from warmkit.sources.files import Files


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
            if output == 0 and data.tobytes() != self._read(tensor, start, data.nbytes):
                self.different.add(tensor)
            return
        waiting: dict[str, list[Values]] = self._local.__dict__.setdefault("waiting", {})
        waiting.setdefault(tensor, []).append(np.frombuffer(data, np.float64).copy())  # the buffer is used again
        if output == self._job.outputs - 1:
            self._compare(tensor, start, waiting.pop(tensor))

    def _read(self, tensor: str, start: int, nbytes: int) -> bytes:
        found = bytearray(nbytes)
        self._merged[tensor].read(self._files, start, memoryview(found))
        return bytes(found)

    def _compare(self, tensor: str, start: int, written: list[Values]) -> None:
        claim, *rows = written
        entry, dtype = self._merged[tensor], self.dtype(tensor)
        raw = np.frombuffer(self._read(tensor, start, claim.size * entry.dtype.itemsize), entry.dtype.storage)
        stored = raw.astype(np.float64)
        if entry.dtype.itemsize == 2:
            NumbaKernels().convert(raw, stored)
        if dtype != entry.dtype:
            stored = stored.astype(np.float32).astype(np.float64)
        found = tally(stored, claim, np.stack(rows), self.mixture(tensor), dtype)
        with self._lock:
            self._pieces.setdefault(tensor, {})[start] = found

    def solved(self, group: str, gram: Gram) -> None: ...

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None:
        """Add up the pieces of a tensor, in their order, whichever thread was last."""
        if tensor in self._merged and self._job.dtypes[tensor].kind == "float":
            with self._lock:
                pieces = self._pieces.pop(tensor, {})
                self.tallies[tensor] = total([pieces[start] for start in sorted(pieces)])

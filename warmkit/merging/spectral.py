"""Spectral merges: methods that see a weight matrix as singular directions, not as elements.

A matrix of Gram products says all they need. With Delta_m [rows, columns] the task matrices of M models, the longer side
first (matrices that are wider than high are turned), every merge here is

    merged = sum_m Delta_m B_m

with factors B_m [columns, columns] that follow from the products Delta_i^T Delta_j and their eigenvectors: no matrix of
left singular vectors is ever formed. It is what the coefficients of `merging.methods` are to a group of tensors, one level
down.

These are the only methods whose memory grows with a tensor: the task matrices of the one at hand, in float32 where
weights have 16 bits, and a few [columns, columns] in float64. What LAPACK returns differs in its last bits between
machines, so the promise of equal bytes holds on one machine, for any number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code
from warmkit.merging.edits import Block, Edit, Masked, Place, Read, Reading, Stage, Writing, summed
from warmkit.merging.ties import everything

Matrix: TypeAlias = NDArray[Any]
Factors: TypeAlias = Callable[[Sequence[Matrix]], Sequence[NDArray[np.float64]]]
"""From M task matrices [rows, columns], rows >= columns, to M factors [columns, columns]."""

NULL = 2.0**-20
"""A direction whose singular value is a smaller share of the largest is none: products in float64 cannot tell it."""
ROWS = 4096  # of a matrix that are float64 at a time


def spectral(factors: Factors) -> Edit:
    """Return the edit that replaces task matrices by sum_m Delta_m B_m, and other tensors' task vectors by their mean.

    A matrix is a tensor of two dimensions with more than one row and column; or each of a stack, [experts, rows, columns].
    """
    return lambda elements: _Gather(elements, factors)


def stack_of_matrices(place: Place) -> tuple[int, int, int] | None:
    """Return how many matrices a tensor holds, their rows and their columns; None if it is none."""
    experts = len(place.shape) == 3 and "experts" in place.tensor
    if min(place.shape[-2:], default=0) < 2 or not (len(place.shape) == 2 or experts):
        return None
    return (place.shape[0] if experts else 1, place.shape[-2], place.shape[-1])


def product(left: Sequence[Matrix], right: Sequence[Matrix]) -> NDArray[np.float64]:
    """Return (sum of left)^T (sum of right) in float64, [columns, columns]."""
    result = np.zeros((left[0].shape[1], right[0].shape[1]))
    for row in range(0, len(left[0]), ROWS):
        result += _rows(left, row).T @ _rows(right, row)
    return result


def directions(gram: NDArray[np.float64], most: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the singular values [k] of a matrix, largest first, and its right singular vectors [columns, k].

    Args:
        gram: [columns, columns], the matrix's products with itself.
        most: How many of them at most; those that are null (`NULL`) are left out in any case.
    """
    squares, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(squares, 0))[::-1]
    kept = min(int(np.count_nonzero(values > NULL * values[0])), len(values) if most is None else most)
    return values[:kept], vectors[:, ::-1][:, :kept]


def inverse_root(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the factor that makes the columns of a matrix orthonormal, G^(-1/2); null directions go to zero.

    X (X^T X)^(-1/2) is the nearest matrix to X with orthonormal columns: the solution of the orthogonal Procrustes problem.
    """
    values, vectors = directions(gram)
    return (vectors / values) @ vectors.T


class _Gather(Reading):
    """Reads the task vectors of one tensor whole."""

    def __init__(self, elements: int, factors: Factors) -> None:
        self._elements, self._factors = elements, factors
        self._vectors: Matrix | None = None
        self._once = threading.Lock()

    def measure(self, place: Place, read: Read) -> tuple[Place, int]:
        inputs = read(place.start, place.stop)
        if stack_of_matrices(place) is None:
            return place, len(inputs) - 1
        vectors = np.empty((len(inputs) - 1, inputs.shape[1]))
        machine_code.edits.task_vectors(inputs, 0, vectors)
        with self._once:
            if self._vectors is None:
                self._vectors = np.empty((len(vectors), self._elements), "f4" if inputs.dtype.itemsize == 2 else "f8")
        self._vectors[:, place.start : place.stop] = vectors
        return place, len(vectors)

    def then(self, parts: Sequence[Any]) -> Stage:
        (place, models), vectors = parts[0], self._vectors
        shape = stack_of_matrices(place)
        if shape is None or vectors is None or not np.isfinite(vectors).all():
            return Masked(everything, summed(np.full(models, 1 / models)))
        stacked = vectors.reshape(models, *shape)
        for number in range(shape[0]):  # the result takes the place of the first model's task vector
            _merge([each[number] for each in stacked], self._factors)
        self._vectors = None
        return _Merged(vectors[0].copy())  # the others are given up before this is written


def _merge(matrices: Sequence[Matrix], factors: Factors) -> None:
    """Write sum_m Delta_m B_m over the first matrix."""
    rows, columns = matrices[0].shape
    high = [each if rows >= columns else each.T for each in matrices]
    found = factors(high)
    for row in range(0, len(high[0]), ROWS):
        parts = [_rows([each], row) @ factor for each, factor in zip(high, found)]
        high[0][row : row + ROWS] = np.sum(parts, axis=0)


def _rows(matrices: Sequence[Matrix], row: int) -> NDArray[np.float64]:
    """Return the sum of ROWS rows of matrices."""
    return np.asarray(np.sum([each[row : row + ROWS] for each in matrices], axis=0, dtype=np.float64))


class _Merged(Writing):
    def __init__(self, vector: Matrix) -> None:
        self._vector = vector

    def task_vector(self, place: Place, inputs: Block, read: Read, out: NDArray[Any]) -> None:
        out[:] = self._vector[place.start : place.stop]

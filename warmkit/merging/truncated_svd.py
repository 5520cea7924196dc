"""The best approximation of a matrix by two thin ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.common.random_streams import generator

EXACT = 1024  # matrices with a side up to this are decomposed by LAPACK; its time grows with the cube
POWERS, OVERSAMPLING = 3, 16

Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Thin:
    """A matrix as a product of two.

    Attributes:
        b: [rows, rank], left singular vectors times the roots of the singular values.
        a: [rank, columns], the same from the right.
        exact: Whether LAPACK decomposed the whole matrix.
    """

    b: Matrix
    a: Matrix
    exact: bool


def truncated_svd(matrix: Matrix, rank: int, energy: float | None = None) -> Thin:
    """Approximate a matrix by a product of small rank.

    The error is least for the rank where LAPACK decomposes (Eckart and Young, 1936). Larger matrices are projected on a random
    subspace, sharpened by POWERS power iterations: a matrix of that rank is still found exactly, and any other with an error
    close to the least; what was lost can be measured afterwards, so no bound has to be believed. The same matrix gives the
    same factors.

    Args:
        matrix: [rows, columns].
        rank: Of the product, at most the shorter side.
        energy: If given, the share of the squared norm to keep; the smallest rank that keeps it is taken, `rank` is where the
            search starts.

    Source: Halko, Martinsson and Tropp, 2011, "Finding structure with randomness", algorithms 4.4 and 5.1.
    """
    side = min(matrix.shape)
    rank = min(rank, side)
    total = float(np.vdot(matrix, matrix))
    while side > EXACT and 4 * (rank + OVERSAMPLING) < side:
        u, s, v = _randomized(matrix, rank + OVERSAMPLING)
        kept = _rank_for(s[:rank], total, energy)
        if kept is not None:
            return _thin(u, s, v, kept, False)
        rank *= 2
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    kept = rank if energy is None else _rank_for(s, total, energy)
    return _thin(u, s, v, kept or side, True)


def _rank_for(s: Matrix, total: float, energy: float | None) -> int | None:
    """Return the smallest rank that keeps a share of the squared norm, None where these singular values do not suffice."""
    if energy is None:
        return len(s)
    sums = np.cumsum(np.square(s, dtype=np.float64))
    enough = np.flatnonzero(sums >= energy * total)
    return int(enough[0]) + 1 if len(enough) else None


def _randomized(matrix: Matrix, width: int) -> tuple[Matrix, Matrix, Matrix]:
    start = generator("low-rank start", 0).standard_normal((matrix.shape[1], width)).astype(matrix.dtype)
    basis = np.linalg.qr(matrix @ start)[0]
    for _ in range(POWERS):
        basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis)[0])[0]
    u, s, v = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, s, v


def _thin(u: Matrix, s: Matrix, v: Matrix, rank: int, exact: bool) -> Thin:
    roots = np.sqrt(s[:rank])
    return Thin(u[:, :rank] * roots, roots[:, None] * v[:rank], exact)

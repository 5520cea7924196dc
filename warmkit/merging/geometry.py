"""Norms and angles, read off a Gram matrix."""

from __future__ import annotations

import numpy as np

from warmkit.merging.types import Coefficients, Gram

GRID = 2.0**-40


def norms(gram: Gram) -> Coefficients:
    """Return the norms of the vectors, [M] float64."""
    return np.sqrt(np.maximum(np.diag(gram), 0.0))


def cosines(gram: Gram) -> Gram:
    """Return the pairwise cosines, [M, M] float64; NaN beside a zero vector, which has no direction."""
    lengths = norms(gram)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(gram / np.outer(lengths, lengths), -1.0, 1.0)


def angles(gram: Gram) -> Gram:
    """Return the pairwise angles in degrees, [M, M] float64; NaN beside a zero vector."""
    return np.degrees(np.arccos(cosines(gram)))


def settle(coefficients: Coefficients) -> Coefficients:
    """Round coefficients that come from a Gram matrix to multiples of 2^-40 (about 1e-12).

    The last bits of a sum depend on the order of its terms, and so on the vector width of the machine. Rounded, they do
    not reach the bytes that are written; the error stays far below one float32 rounding.
    """
    return np.round(coefficients / GRID) * GRID

"""Iso-C: the summed task matrix, with all its singular values made equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from warmkit.merging.edits import Edit
from warmkit.merging.spectral import Matrix, directions, product, spectral


def iso_c() -> Edit:
    """Return the isotropic merge in the common subspace.

        sum_m Delta_m = U diag(sigma) V^T,   merge = mean(sigma) U V^T

    of every weight matrix; other tensors are averaged. The mean is over min(rows, columns) singular values, zeros included;
    directions that are null stay so, where a decomposition would return arbitrary ones.

    Source: Marczak et al., 2025, "No task left behind", equations 6 to 8 (arXiv:2502.04959).
    """
    return spectral(_factors)


def _factors(matrices: Sequence[Matrix]) -> list[NDArray[np.float64]]:
    """Return the same factor for every model, mean(sigma) (S^T S)^(-1/2) with S their sum."""
    values, vectors = directions(product(matrices, matrices))
    factor = (vectors * (values.sum() / len(vectors) / values)) @ vectors.T
    return [factor] * len(matrices)

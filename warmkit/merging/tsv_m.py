"""TSV-M: the strongest singular directions of every task matrix, made orthogonal to those of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from warmkit.merging.edits import Edit
from warmkit.merging.spectral import Matrix, directions, inverse_root, product, spectral


def tsv_m() -> Edit:
    """Return the merge of task singular vectors.

        Delta_m = U_m diag(sigma_m) V_m^T, of which the first k = min(rows, columns) / M directions stay
        U = [U_1 .. U_M], V = [V_1 .. V_M], sigma = [sigma_1 .. sigma_M]
        merge = U (U^T U)^(-1/2) diag(sigma) (V^T V)^(-1/2) V^T

    of every weight matrix; other tensors are averaged. k is rounded down and at least 1. A direction that two models share is
    taken once, where a decomposition would fill its place with an arbitrary one.

    Source: Gargiulo et al., 2025, "Task singular vectors", section 3 and algorithm 1 (arXiv:2412.00081).
    """
    return spectral(_factors)


def _factors(matrices: Sequence[Matrix]) -> list[NDArray[np.float64]]:
    """Return B_m with sum_m Delta_m B_m the merge: U_m = Delta_m A_m with A_m = V_m / sigma_m, so U is never formed."""
    models, columns = len(matrices), matrices[0].shape[1]
    grams = {(i, j): product([matrices[i]], [matrices[j]]) for i in range(models) for j in range(i, models)}
    found = [directions(grams[m, m], max(1, columns // models)) for m in range(models)]
    sigma, v = np.concatenate([values for values, _ in found]), np.hstack([vectors for _, vectors in found])
    a = [vectors / values for values, vectors in found]
    u_gram = np.block(
        [[a[i].T @ (grams[i, j] if i <= j else grams[j, i].T) @ a[j] for j in range(models)] for i in range(models)]
    )
    if not len(sigma):
        return [np.zeros((columns, columns))] * models
    rest = (inverse_root(u_gram) * sigma) @ inverse_root(v.T @ v) @ v.T
    edges = np.cumsum([0, *(len(values) for values, _ in found)])
    return [each @ rest[low:high] for each, low, high in zip(a, edges[:-1], edges[1:])]

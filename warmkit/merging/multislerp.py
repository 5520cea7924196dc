"""Multi-SLERP: the mean of directions, at the mean length."""

from __future__ import annotations

import numpy as np

from warmkit.errors import DegenerateError
from warmkit.merging.karcher import CANCELLED
from warmkit.merging.types import Antiparallel, Coefficients, Gram


def multislerp(gram: Gram, shares: Coefficients, antiparallel: Antiparallel = "error") -> Coefficients:
    """Return the coefficients of the normalised mean of directions, at the mean length.

        u = sum_m w_m d_m / |d_m|,   merged = x0 + (sum_m w_m |d_m|) u / |u|

    That is the first step towards the spherical mean (`karcher`), and for two equal shares the same as SLERP up to the length.
    Zero task vectors have no direction: they shorten the mean and do not turn it.

    Args:
        gram: [M, M], products of the task vectors of one group.
        shares: [M], not negative, summing to 1.
        antiparallel: What to do where the directions cancel.

    Returns:
        [M] float64.

    Raises:
        DegenerateError: If the directions cancel and `antiparallel` is `error`.

    Source: Goddard, 2024, "Multi-SLERP", in mergekit. Its mean in the tangent space of u is zero, since the weighted directions
    sum to a multiple of u, so that the exponential map leaves u where it is.

    Examples:
        >>> import numpy as np
        >>> multislerp(np.eye(2), np.array([4 / 7, 3 / 7])).round(6).tolist()
        [0.8, 0.6]
    """
    norms = np.sqrt(np.diag(gram))
    live = (norms > 0) & (shares > 0)
    if not live.any():
        return shares.copy()
    scale, weights = np.where(live, norms, 1.0), np.where(live, shares, 0.0)
    cosines = np.clip(gram / np.outer(scale, scale), -1.0, 1.0)
    length = np.sqrt(max(float(weights @ cosines @ weights), 0.0))
    if length < CANCELLED * weights.sum():
        if antiparallel == "lerp":
            return shares.copy()
        raise DegenerateError("the directions of the task vectors cancel, so they have no mean")
    return float(shares @ norms) / length * weights / scale

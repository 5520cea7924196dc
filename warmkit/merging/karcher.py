"""Spherical (Karcher) mean of task vectors."""

from __future__ import annotations

import numpy as np

from warmkit.errors import DegenerateError
from warmkit.merging.types import Antiparallel, Coefficients, Gram

MAX_STEPS = 200
TOLERANCE = 1e-13
CANCELLED = 7e-4  # length of the mean of two unit vectors at the cosine that SLERP calls antiparallel


def karcher(gram: Gram, shares: Coefficients, antiparallel: Antiparallel = "error") -> Coefficients:
    """Return the coefficients of the mean direction on the sphere, at the mean length.

        u = argmin_{|u|=1} sum_m w_m angle(u, d_m)^2,   merged = x0 + (sum_m w_m |d_m|) u

    Unlike SLERP of M > 2 it does not depend on the order of the models; for two of equal norm they agree. Found by
    fixed-point steps in the tangent space, on G alone: u = sum_m a_m d_m / |d_m|. Zero task vectors have no direction:
    they shorten the mean and do not turn it.

    Args:
        gram: [M, M], products of the task vectors of one group.
        shares: [M], not negative, summing to 1.
        antiparallel: What to do where the directions cancel or oppose the mean.

    Returns:
        [M] float64.

    Raises:
        DegenerateError: If the directions have no unique mean and `antiparallel` is `error`.

    Source: Karcher, 1977; Buss and Fillmore, 2001, "Spherical averages", algorithm A1. The length is ours: the mean
    norm, so that equal norms are preserved as with SLERP.

    Examples:
        >>> import numpy as np
        >>> karcher(np.eye(3), np.full(3, 1 / 3)).round(6).tolist()
        [0.57735, 0.57735, 0.57735]
    """
    norms = np.sqrt(np.diag(gram))
    live = (norms > 0) & (shares > 0)
    if not live.any():
        return shares.copy()
    scale = np.where(live, norms, 1.0)
    cosines = np.clip(gram / np.outer(scale, scale), -1.0, 1.0)
    weights = np.where(live, shares, 0.0) / shares[live].sum()
    direction = _mean_direction(cosines, weights)
    if direction is None:
        if antiparallel == "lerp":
            return shares.copy()
        raise DegenerateError("task vectors point in opposite directions, so they have no spherical mean")
    return float(shares @ norms) * np.where(live, direction / scale, 0.0)


def _mean_direction(cosines: Gram, weights: Coefficients) -> Coefficients | None:
    """Return a with |sum_m a_m u_m| = 1 at the weighted Karcher mean of unit vectors u, or None without one."""
    mean = weights.copy()
    for _ in range(MAX_STEPS):
        length = np.sqrt(max(float(mean @ cosines @ mean), 0.0))
        if length < CANCELLED:
            return None
        mean = mean / length
        toward = np.clip(cosines @ mean, -1.0, 1.0)
        if np.any(toward[weights > 0] < -1 + 1e-6):
            return None
        # log map: (theta / sin theta) (u_m - cos(theta) mean); sinc keeps it smooth at theta = 0
        pull = weights / np.sinc(np.arccos(toward) / np.pi)
        tangent = pull - float(pull @ toward) * mean
        if np.abs(tangent).max() < TOLERANCE:
            return mean if float(pull @ toward) > 0 else None  # else a saddle: the directions lie all around
        size = np.sqrt(max(float(tangent @ cosines @ tangent), 0.0))
        mean = np.cos(size) * mean + np.sinc(size / np.pi) * tangent
    return None

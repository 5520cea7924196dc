"""LERP: linear interpolation of weights."""

from __future__ import annotations

from warmkit.merging.types import Coefficients


def lerp(shares: Coefficients) -> Coefficients:
    """Return the coefficients of a weighted average.

        merged = sum_m w_m x_m,  sum_m w_m = 1

    The initialisation drops out, so it is never read and the Gram matrix is not needed. Under equal norms l and
    angle Omega, lambda = share of the second: ||delta|| = l sqrt(1 - 2 (1 - cos Omega)(lambda - lambda^2)).

    Args:
        shares: [M], summing to 1.

    Returns:
        [M] float64, the shares themselves.

    Source: Utans, 1996; WARP (Ramé et al., 2024), appendix B, equation (LERP) and lemma 2.

    Examples:
        >>> import numpy as np
        >>> lerp(np.array([0.7, 0.3])).tolist()
        [0.7, 0.3]
    """
    return shares.copy()

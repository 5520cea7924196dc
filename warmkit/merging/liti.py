"""LITI: linear interpolation towards the initialisation."""

from __future__ import annotations

import numpy as np

from warmkit.merging.types import Coefficients


def liti(coefficients: Coefficients, eta: float) -> Coefficients:
    """Return the coefficients of x0 and of every model after interpolation towards the initialisation.

        merged = (1 - eta) x0 + eta (x0 + sum_m c_m d_m) = (1 - eta sum_m c_m) x0 + sum_m eta c_m x_m

    It composes with any method at no cost: one pass writes SLERP -> LITI. eta = 0 returns the initialisation, 1 the
    merge, and more than 1 extrapolates.

    Args:
        coefficients: [M], of the task vectors.
        eta: The update rate; 0.3 in WARP.

    Returns:
        [1 + M] float64, of the weights, the first for x0; they sum to 1.

    Source: WARP (Ramé et al., 2024), equation (LITI); Wortsman et al., 2022, WiSE-FT; Zheng et al., 2024, for eta > 1.

    Examples:
        >>> import numpy as np
        >>> liti(np.array([0.5, 0.5]), 0.5).tolist()
        [0.5, 0.25, 0.25]
    """
    scaled = eta * coefficients
    return np.concatenate(([1.0 - scaled.sum()], scaled))

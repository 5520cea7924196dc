"""Uniform soup: the plain mean."""

from __future__ import annotations

import numpy as np

from warmkit.merging.types import Coefficients


def uniform(models: int) -> Coefficients:
    """Return the coefficients of the plain mean, merged = (1/M) sum_m x_m.

    Args:
        models: How many there are, M.

    Returns:
        [M] float64, each 1/M.

    Source: Wortsman et al., 2022, "Model soups", section 2 (uniform soup); WARM (Ramé et al., 2024), equation 2.

    Examples:
        >>> uniform(4).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return np.full(models, 1 / models)

"""ExPO: extrapolation beyond fine-tuned models."""

from __future__ import annotations

from warmkit.merging.types import Coefficients


def expo(shares: Coefficients, alpha: float = 0.3) -> Coefficients:
    """Return the coefficients that go beyond a fine-tuned model, or the mean of several (ExPO).

        merged = x + alpha (x - x_0),  x = sum_m w_m x_m

    It is LITI with eta = 1 + alpha.

    Args:
        shares: [M], summing to 1.
        alpha: How far beyond, in units of the task vector; 0 is the model itself.

    Returns:
        [M] float64, summing to 1 + alpha.

    Source: Zheng et al., 2024, "Model Extrapolation Expedites Alignment" (arXiv 2404.16792), for one model.

    Examples:
        >>> import numpy as np
        >>> expo(np.ones(1), 0.5).tolist()
        [1.5]
    """
    return (1 + alpha) * shares

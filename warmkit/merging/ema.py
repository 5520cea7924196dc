"""EMA of checkpoints along a run."""

from __future__ import annotations

import numpy as np

from warmkit.merging.types import Coefficients


def usual_rate(count: int) -> float:
    """Return the update rate that gives a moving average the mean age of a plain mean over `count` checkpoints, 2 / (T + 1).

    Examples:
        >>> usual_rate(3)
        0.5
    """
    return 2.0 / (count + 1)


def ema(count: int, mu: float) -> Coefficients:
    """Return the closed form of an exponential moving average over checkpoints in order.

        theta <- (1 - mu) theta + mu x_t,  theta = x_1 at the start
        c_1 = (1 - mu)^(T-1),  c_t = mu (1 - mu)^(T-t)

    Args:
        count: T, the number of checkpoints, at least 1.
        mu: The update rate, from 0 (keep the first) to 1 (keep the last).

    Returns:
        [T] float64, summing to 1.

    Source: WARP (Ramé et al., 2024), equation (EMA), there per step with mu = 0.01; Izmailov et al., 2018.

    Examples:
        >>> ema(3, 0.5).tolist()
        [0.25, 0.25, 0.5]
    """
    ages = np.arange(count - 1, -1, -1, dtype=np.float64)
    coefficients = mu * (1.0 - mu) ** ages
    coefficients[0] = (1.0 - mu) ** (count - 1)
    return coefficients

"""Task arithmetic: add scaled task vectors to the initialisation."""

from __future__ import annotations

from warmkit.merging.types import Coefficients


def task_arithmetic(scales: Coefficients) -> Coefficients:
    """Return the coefficients of a sum of task vectors.

        merged = x0 + sum_m s_m (x_m - x0)

    The scales are used as they are: they need not sum to 1, and a negative one subtracts a task.

    Args:
        scales: [M], each 1 unless given.

    Returns:
        [M] float64, the scales themselves.

    Source: Ilharco et al., 2023, "Editing models with task arithmetic", section 2.

    Examples:
        >>> import numpy as np
        >>> task_arithmetic(np.array([1.0, -0.5])).tolist()
        [1.0, -0.5]
    """
    return scales.copy()

"""RELEX: a run continued along the straight line that its task vectors follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from warmkit.merging.parameters import Within
from warmkit.merging.types import Coefficients, Gram


def relex(gram: Gram, times: Annotated[float, Within(0.0, above=True)] = 2.0, steps: Sequence[float] = (0.0,)) -> Coefficients:
    """Return the coefficients that continue a run along its strongest direction (rank-1 extrapolation).

        G = U diag(s^2) U',  u = the eigenvector of the largest s^2
        u_m ~ a + b t_m by least squares,   c = (a + b T) u,   T = times max_m t_m

    The task vectors d_m are projected on their first singular direction v = sum_m u_m d_m / s, where d_m has the coordinate
    s u_m; a line through these coordinates says where the run would be at step T.

    Args:
        gram: [M, M], products of the task vectors of one group, of checkpoints in the order of the run, M at least 2.
        times: How far: 1 is the last checkpoint's step, 10 ten times as many steps.
        steps: [M], the steps of the checkpoints; by default evenly spaced, beginning one interval after the init.

    Returns:
        [M] float64.

    Source: Wei et al., 2026, "You Only Need Minimal RLVR Training" (arXiv 2605.21468), rank 1 and a linear fit.

    Examples:
        >>> import numpy as np
        >>> relex(np.array([[1.0, 2.0], [2.0, 4.0]]), times=3.0).round(6).tolist()
        [1.2, 2.4]
    """
    found = np.asarray(steps, dtype=np.float64)
    if len(found) != len(gram) or not np.ptp(found):
        found = np.arange(1.0, len(gram) + 1)
    squares, vectors = np.linalg.eigh(gram)
    if squares[-1] <= 0:
        return np.zeros(len(gram))
    first = vectors[:, -1]
    centred = found - found.mean()
    slope = float(centred @ first) / float(centred @ centred)
    return (first.mean() + slope * (times * found.max() - found.mean())) * first

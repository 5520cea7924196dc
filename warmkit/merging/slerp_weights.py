"""SLERP of full weights: the ablation that WARP compares with."""

from __future__ import annotations

from warmkit.merging.slerp import slerp
from warmkit.merging.types import Antiparallel, Coefficients, Gram


def slerp_weights(gram: Gram, shares: Coefficients, antiparallel: Antiparallel = "error") -> Coefficients:
    """Return the coefficients of SLERP on the weights themselves, as if the initialisation were zero.

    Full weights of fine-tuned models are almost collinear, so this stays close to LERP.

    Args:
        gram: [M, M], products of the full weights x_m (not of the task vectors) of one group.
        shares: [M], not negative, summing to 1.
        antiparallel: What to do where two vectors oppose each other.

    Returns:
        [M] float64; they sum to more than 1 where the angle is not zero.

    Raises:
        DegenerateError: If two vectors are antiparallel and `antiparallel` is `error`.

    Source: WARP (Ramé et al., 2024), appendix C.2 and figure 10(c).

    Examples:
        >>> import numpy as np
        >>> slerp_weights(np.ones((2, 2)), np.array([0.5, 0.5])).tolist()
        [0.5, 0.5]
    """
    return slerp(gram, shares, antiparallel)

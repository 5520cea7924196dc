"""SLERP: spherical linear interpolation of task vectors."""

from __future__ import annotations

import numpy as np

from warmkit.errors import DegenerateError
from warmkit.merging.types import Antiparallel, Coefficients, Gram

ANTIPARALLEL_COSINE = -1 + 1e-6
"""Below this cosine (within 0.08 degrees of opposite) the arc, and so the merge, is decided by rounding noise alone."""


def slerp(gram: Gram, shares: Coefficients, antiparallel: Antiparallel = "error") -> Coefficients:
    """Return the coefficients that walk along the arc between task vectors.

        M = 2:  c = ( sin((1 - lambda) Omega) / sin Omega,  sin(lambda Omega) / sin Omega ),  lambda = w_2
        M > 2:  slerp_k = slerp(slerp_{k-1}, x_k, w_k / (w_1 + ... + w_k)), in the order given

    The running merge is itself a combination c of the task vectors, so its norm is sqrt(c'Gc) and its products with
    them are Gc: the iteration runs on G alone. Equal norms are preserved (lemma 1). Parallel vectors meet the LERP
    limit continuously; a zero task vector has no direction, and its step is a LERP.

    Args:
        gram: [M, M], products of the task vectors of one group.
        shares: [M], not negative, summing to 1.
        antiparallel: What to do where two vectors oppose each other.

    Returns:
        [M] float64.

    Raises:
        DegenerateError: If two vectors are antiparallel and `antiparallel` is `error`.

    Source: Shoemake, 1985; WARP (Ramé et al., 2024), equations (SLERP) and (26). We extend (26) from uniform to any
    shares: with equal ones, w_k / (w_1 + ... + w_k) = 1/k.

    Examples:
        >>> import numpy as np
        >>> slerp(np.eye(2), np.array([0.5, 0.5])).round(6).tolist()
        [0.707107, 0.707107]
    """
    used = np.flatnonzero(shares)
    running = np.zeros(len(shares))
    running[used[0]] = 1.0
    total = shares[used[0]]
    for k in used[1:]:
        total += shares[k]
        here, there = _step(gram, running, int(k), float(shares[k] / total), antiparallel)
        running *= here
        running[k] += there
    return running


def _step(gram: Gram, running: Coefficients, k: int, share: float, antiparallel: Antiparallel) -> tuple[float, float]:
    """Return the factors of the running merge and of vector k."""
    square = float(running @ gram @ running)
    norms = np.sqrt(max(square, 0.0)) * np.sqrt(gram[k, k])
    if norms == 0:
        return 1 - share, share
    cosine = float(np.clip(gram[k] @ running / norms, -1.0, 1.0))
    if cosine < ANTIPARALLEL_COSINE:
        if antiparallel == "lerp":
            return 1 - share, share
        raise DegenerateError("task vectors point in opposite directions, so no arc joins them")
    # sin(s Omega) / sin(Omega) = s sinc(s Omega / pi) / sinc(Omega / pi): smooth through Omega = 0, no threshold
    turns = np.arccos(cosine) / np.pi
    here, there = (s * np.sinc(s * turns) / np.sinc(turns) for s in (1 - share, share))
    return float(here), float(there)

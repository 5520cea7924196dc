"""Model stock: the mean, pulled towards the initialisation as far as the angles suggest."""

from __future__ import annotations

import numpy as np

from warmkit.merging.types import Coefficients, Gram


def model_stock(gram: Gram) -> Coefficients:
    """Return the coefficients of the model stock average.

        t = M cos / (1 + (M - 1) cos),   merged = x0 + t (mean_m x_m - x0)

    with cos the mean pairwise cosine of the task vectors. Near-orthogonal task vectors, as after RL, give t near 0 and
    so almost the initialisation (WARP, appendix C.2, warns of it). A mean cosine of zero or less gives t = 0: the
    formula would step away from the models there. Pairs with a zero task vector count as orthogonal.

    Args:
        gram: [M, M], products of the task vectors of one group, M at least 2.

    Returns:
        [M] float64, each t / M.

    Source: Jang et al., 2024, "Model Stock", equations 2 (M = 2) and 6 (any M). The clamp at 0 is ours.

    Examples:
        >>> import numpy as np
        >>> model_stock(np.array([[1.0, 0.5], [0.5, 1.0]])).round(6).tolist()
        [0.333333, 0.333333]
    """
    count = len(gram)
    norms = np.sqrt(np.diag(gram))
    scale = np.where(norms > 0, norms, 1.0)
    cosines = gram / np.outer(scale, scale)
    mean_cosine = float(np.clip(cosines[np.triu_indices(count, 1)].mean(), 0.0, 1.0))
    ratio = count * mean_cosine / (1 + (count - 1) * mean_cosine)
    return np.full(count, ratio / count)

"""NearSwap: take small changes whole, and of large ones only as much as is small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from warmkit.merging.edits import Edit, Mask, Masked, Place, Read, Vectors, summed
from warmkit.merging.parameters import Within
from warmkit.merging.types import Coefficients

Limit = Annotated[Sequence[float], Within(0.0)]


def nearswap(scales: Coefficients, limit: Limit = (1e-4,)) -> Edit:
    """Return the NearSwap merge of task vectors.

        merge = sum_m w_m min(max(d_m, -limit), limit)

    element by element: where a model is within `limit` of the init, its weight is taken, elsewhere the init moves towards it by
    `limit`. In the words of the source: x0 + s (x - x0) with s = min(1, limit / |x - x0|).

    Args:
        scales: [M], the weights w.
        limit: [M], the largest change of an element, in units of the weights.

    Source: alchemonaut, 2024, QuartetAnemoi-70B (t is the limit), for one model; several are summed as in task arithmetic.
    """

    def mask(place: Place, read: Read) -> Mask:
        def clip(first: int, vectors: Vectors) -> None:
            for vector, most in zip(vectors, limit):
                np.clip(vector, -most, most, out=vector)

        return clip

    writing = Masked(mask, summed(scales))
    return lambda elements: writing

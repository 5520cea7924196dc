"""SCE: select what varies between models, calculate weights, erase the minority."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code
from warmkit.merging.edits import Block, Edit, Place, Read, Reading, Stage, Vectors, Writing, chunks, elected
from warmkit.merging.geometry import settle
from warmkit.merging.parameters import Within


def sce(select_topk: Annotated[float, Within(0.0, 1.0, above=True)] = 1.0) -> Edit:
    """Return the SCE merge of task vectors.

        select      the k elements of the largest variance over the models, k = select_topk times those that vary at all
        calculate   w_m = sum of d_m^2 over what is selected, divided by the sum over all models
        erase       sum of w_m d_m over the models with sign(d_m) = sign(sum_m d_m), divided by the sum of their w_m

    with d_m = 0 where not selected. k is rounded down; of equal variances the first elements are selected. With select_topk = 1
    nothing is left out. Where nothing was selected, or the sum is zero, the init stays.

    Args:
        select_topk: Share of the elements, those of the largest variance over the models, that is merged.

    Source: Wan et al., 2024, "FuseChat", section 3.3 (arXiv:2408.07990), by tensor or group as one matrix.
    """
    from warmkit.merging.largest import Target, UpperHalves

    def start(elements: int) -> Stage:
        if select_topk == 1:
            return _Weigh(None)
        return UpperHalves(
            1,
            lambda place, first, vectors: _spread(vectors),
            lambda zeros: [Target(0, int(select_topk * (elements - int(zeros[0]))))],
            lambda found: _Weigh(found[0]),
        )

    return start


def _spread(vectors: Vectors) -> Vectors:
    """Return the standard deviation over the models, [1, n]; exactly 0 where all agree."""
    apart = vectors - vectors[0]
    apart -= apart.mean(axis=0)
    return np.sqrt(np.square(apart, out=apart).mean(axis=0))[None]


class _Weigh(Reading):
    """The sums of squares of what is selected.

    Args:
        threshold: Of the spread; None to select all.
    """

    def __init__(self, threshold: Any) -> None:
        self._threshold = threshold

    def measure(self, place: Place, read: Read) -> NDArray[np.float64]:
        chosen = _selected(self._threshold, place, read(place.start, place.stop))
        return np.sum([np.square(vectors).sum(axis=1) for vectors in chosen], axis=0)

    def then(self, parts: Sequence[Any]) -> Stage:
        sums = np.sum(parts, axis=0)
        total = float(sums.sum())
        weights = sums / total if 0 < total < np.inf else np.full(len(sums), 1 / len(sums))
        return _Erase(self._threshold, settle(weights))


class _Erase(Writing):
    def __init__(self, threshold: Any, weights: NDArray[np.float64]) -> None:
        self._threshold, self._fuse = threshold, elected(np.ones(len(weights)), weights, normalize=True)

    def task_vector(self, place: Place, inputs: Block, read: Read, out: NDArray[Any]) -> None:
        first = 0
        for vectors in _selected(self._threshold, place, inputs):
            self._fuse(vectors, out[first : first + vectors.shape[1]])
            first += vectors.shape[1]


def _selected(threshold: Any, place: Place, inputs: Block) -> Any:
    """Yield the task vectors of a place in chunks, zero where not selected."""
    from warmkit.merging.largest import Band

    band = None if threshold is None else Band(threshold, None, place)
    for first, vectors in chunks(inputs):
        if band is not None:
            keep = band.mark(first, _spread(vectors)[0])
            for vector in vectors:
                machine_code.edits.erase(vector, keep)
        yield vectors

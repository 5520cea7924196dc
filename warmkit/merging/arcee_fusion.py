"""Arcee Fusion: keep the changes that matter most, by their size and by how much they move the softmax of their row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code
from warmkit.merging.edits import CHUNK, Block, Edit, Mask, Masked, Place, Read, Reading, Stage, Vectors, summed
from warmkit.merging.types import Coefficients

EPSILON = 1e-8  # added to every probability
QUARTILES = (0.25, 0.5, 0.75)


def arcee_fusion(scales: Coefficients) -> Edit:
    """Return the Arcee Fusion merge of task vectors.

        i_m = |d_m| KL(softmax(x_m) || softmax(x_0)),  the softmax over the last dimension of the tensor
        t_m = d_m where i_m >= median(i_m) + 1.5 (q3(i_m) - q1(i_m)); else 0
        merge = sum_m w_m t_m

    tensor by tensor; the quartiles are those elements, of n in order, whose numbers from 0 are 0.25, 0.5 and 0.75 of n - 1,
    rounded down. Importances are compared as float32.

    Args:
        scales: [M], the weights w.

    Source: Arcee AI, 2025, in mergekit, for one model; several are summed as in task arithmetic.
    """
    return lambda elements: _Divergence(scales, elements)


def divergences(inputs: Block, width: int) -> NDArray[np.float64]:
    """Return KL(softmax(x_m) || softmax(x_0)) of whole rows, [M, rows], from the rows of all checkpoints, [V, rows * width].

    As sum p h((q - p) / p) with h(z) = z - log(1 + z), which is the same, since p and q have one sum, and has no cancellation.
    """
    count = inputs.shape[1] // width
    found, step = np.empty((len(inputs) - 1, count)), max(1, CHUNK // width)
    for first in range(0, count, step):
        rows = inputs[:, first * width : (first + step) * width]
        values = np.empty(rows.shape)
        machine_code.edits.task_vectors(np.concatenate([np.zeros_like(rows[:1]), rows]), 0, values)  # widened
        values = values.reshape(len(rows), -1, width)
        with np.errstate(invalid="ignore"):  # what is not finite is refused where it is written
            values = np.exp(values - values.max(axis=2, keepdims=True))
            values = values / values.sum(axis=2, keepdims=True) + EPSILON
            apart = (values[0] - values[1:]) / values[1:]
            found[:, first : first + step] = (values[1:] * (apart - np.log1p(apart))).sum(axis=2)
    return found.astype(np.float32).astype(np.float64)  # the last bits of a sum depend on the machine


class _Divergence(Reading):
    def __init__(self, scales: Coefficients, elements: int) -> None:
        self._scales, self._elements, self._width = scales, elements, 1

    def measure(self, place: Place, read: Read) -> NDArray[np.float64]:
        """Return the divergences of the rows that start in a place, [M, rows]."""
        self._width = width = place.shape[-1] if place.shape else 1
        first, end = -(-place.start // width), -(-place.stop // width)
        if first == end:
            return np.empty((len(self._scales), 0))
        return divergences(read(first * width, end * width), width)

    def then(self, parts: Sequence[Any]) -> Stage:
        from warmkit.merging.largest import Target, UpperHalves

        importance = _Importance(np.concatenate(parts, axis=1), self._width)
        places = [int(share * (self._elements - 1)) for share in QUARTILES]
        models = range(len(self._scales))
        targets = [Target(m, self._elements - place, exact=False) for m in models for place in places]
        return UpperHalves(
            len(models),
            importance,
            lambda zeros: targets,
            lambda found: Masked(_above(importance, np.array([each.key for each in found])), summed(self._scales)),
        )


class _Importance:
    """From a chunk of a place to the importances of its elements, [M, n].

    Args:
        divergence: [M, rows of the tensor].
        width: Elements of a row.
    """

    def __init__(self, divergence: NDArray[np.float64], width: int) -> None:
        self._divergence, self._width = divergence, width

    def __call__(self, place: Place, first: int, vectors: Vectors) -> Vectors:
        start = place.start + first
        rows = np.arange(start, start + vectors.shape[1]) // self._width
        return np.abs(vectors) * self._divergence[:, rows]


def _above(importance: _Importance, keys: NDArray[Any]) -> Any:
    """Return the mask that keeps what reaches the threshold, from the bits of the quartiles of each model."""
    low, middle, high = keys.astype(np.uint32).view(np.float32).astype(np.float64).reshape(-1, 3).T
    thresholds = (middle + 1.5 * (high - low))[:, None]

    def mask(place: Place, read: Read) -> Mask:
        def erase(first: int, vectors: Vectors) -> None:
            vectors[importance(place, first, vectors).astype(np.float32) < thresholds] = 0.0

        return erase

    return mask

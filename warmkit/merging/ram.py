"""RAM: keep what one model changed, average what several did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from warmkit.merging import machine_code
from warmkit.merging.edits import Edit, Masked, Place, Read, Reading, Stage, Vectors, chunks
from warmkit.merging.parameters import Within
from warmkit.merging.ties import everything

Smallest = Annotated[Sequence[float], Within(0.0)]


def ram(epsilon: Smallest = (1e-5,)) -> Edit:
    """Return the RAM merge of task vectors.

        a_m = |d_m| > epsilon
        merge = sum_m a_m d_m / sum_m a_m, and 0 where no a_m holds

    element by element: where one model changed a weight its whole change is taken, where several did, their mean.

    Args:
        epsilon: [M], the smallest change that counts, in units of the weights.

    Source: Yuan et al., 2026, "Behavior knowledge merge in reinforced agentic models", arXiv:2601.13572; epsilon as in
    mergekit.
    """
    writing = Masked(everything, _Average(epsilon, np.ones(len(epsilon))))
    return lambda elements: writing


def ram_plus(
    epsilon: Smallest = (1e-5,), r: Annotated[float, Within(0.0)] = 0.1, alpha: Annotated[float, Within(0.0)] = 0.2
) -> Edit:
    """Return the RAM+ merge: RAM, with what is one model's own made larger the more its other changes were averaged.

        rho_m = elements that m and others changed / elements that m alone changed
        merge = RAM, times 1 + r min(rho_m, alpha) where m alone changed an element

    rho_m is taken over a group. A model without an element of its own has nothing to enlarge.

    Args:
        epsilon: [M], the smallest change that counts, in units of the weights.
        r: How much larger the changes of a single model become, in units of the ratio of shared to own ones.
        alpha: Largest ratio of shared to own changes that counts.

    Source: as `ram`; by group, as `ramplus_tl` in mergekit.
    """
    return lambda elements: _Overlap(epsilon, r, alpha)


class _Average:
    """Fuses a chunk.

    Args:
        epsilon: [M], the smallest change that counts.
        own: [M], the factor of what is one model's own.
    """

    def __init__(self, epsilon: Sequence[float], own: NDArray[np.float64]) -> None:
        self._epsilon, self._own = np.array(epsilon), own

    def __call__(self, vectors: Vectors, out: NDArray[Any]) -> None:
        machine_code.edits.average_changed(vectors, self._epsilon, self._own, *np.empty((3, out.size)), out)


class _Overlap(Reading):
    def __init__(self, epsilon: Sequence[float], r: float, alpha: float) -> None:
        self._epsilon, self._r, self._alpha = epsilon, r, alpha

    def measure(self, place: Place, read: Read) -> NDArray[np.int64]:
        """Return how many elements each model shares and has alone, [2, M]."""
        counts = np.zeros((2, len(self._epsilon)), np.int64)
        for _, vectors in chunks(read(place.start, place.stop)):
            changed = np.abs(vectors) > np.array(self._epsilon)[:, None]
            alone = changed.sum(axis=0) == 1
            counts += [(changed & ~alone).sum(axis=1), (changed & alone).sum(axis=1)]
        return counts

    def then(self, parts: Sequence[Any]) -> Stage:
        shared, alone = np.sum(parts, axis=0)
        ratio = shared / np.maximum(alone, 1)
        return Masked(everything, _Average(self._epsilon, 1 + self._r * np.minimum(ratio, self._alpha)))

"""DELLA: drop changes at random, small ones more often, rescale the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import UsageError
from warmkit.merging import machine_code
from warmkit.merging.edits import Edit, Fuse, Mask, Masked, Place, Read, Vectors, elected, stream_key, summed
from warmkit.merging.parameters import Density, Seed, Within
from warmkit.merging.types import Coefficients

Window = Annotated[Sequence[float], Within(0.0, 0.5)]


def della(
    scales: Coefficients, density: Density = (0.5,), epsilon: Window = (0.15,), seed: Seed = 0, normalize: bool = True
) -> Edit:
    """Return the DELLA merge of task vectors.

        p_m = density - epsilon + 2 epsilon rank / (n - 1)
        t_m = d_m / p_m with probability p_m, else 0
        g = sign(sum_m w_m t_m)
        merge = sum of w_m t_m over the models with sign(w_m t_m) = g, divided by the sum of their |w_m|

    element by element; rank runs from 0, the smallest magnitude of a row, to n - 1, of equal ones the first being the smaller.
    A row is what shares the first index of the tensor; a tensor of one dimension is one row. A row of one element has
    p = density. density - epsilon must be above 0 and density + epsilon at most 1, or density 1, which keeps all.

    Args:
        scales: [M], the weights w.
        density: [M], the share of each task vector that is kept.
        epsilon: [M], the distance of the smallest and largest chance from the density.
        seed: Seed of the random masks.
        normalize: Divide by the sum of the coefficients of the models that an element was summed over.

    Raises:
        UsageError: If the chances leave (0, 1].

    Source: Deep et al., 2024, "DELLA-Merging", section 3; the window is written as in mergekit: the paper's has half its
    width on each side of its drop rate.
    """
    return _della(density, epsilon, seed, elected(scales, scales, normalize))


def della_linear(scales: Coefficients, density: Density = (0.5,), epsilon: Window = (0.15,), seed: Seed = 0) -> Edit:
    """Return the DELLA merge without an election: sum_m w_m t_m.

    Raises:
        UsageError: As `della`.

    Source: Deep et al., 2024, section 3, without its second step.
    """
    return _della(density, epsilon, seed, summed(scales))


def _della(density: Sequence[float], epsilon: Sequence[float], seed: int, fuse: Fuse) -> Edit:
    for share, window in zip(density, epsilon):
        if share < 1 and not (share - window > 0 and share + window <= 1):
            raise UsageError(
                f"density {share:g} and epsilon {window:g} give chances from {share - window:g} to {share + window:g}; "
                "lower epsilon until they are above 0 and at most 1"
            )
    writing = Masked(ranked_mask(density, epsilon, seed), fuse)
    return lambda elements: writing


def ranked_mask(density: Sequence[float], epsilon: Sequence[float], seed: int) -> Callable[[Place, Read], Mask]:
    """Return the mask that keeps an element the more often, the larger it is in its row; it reads whole rows."""

    def mask(place: Place, read: Read) -> Mask:
        keys = [stream_key(seed, place.tensor, model) for model in range(len(density))]
        width = math.prod(place.shape[1:] if len(place.shape) > 1 else place.shape)
        first, last = place.start // width * width, -(-place.stop // width) * width
        rows = read(first, last)
        ranks = [_ranks(rows[[0, row]], width)[place.start - first : place.stop - first] for row in range(1, len(rows))]

        def drop(first: int, vectors: Vectors) -> None:
            for vector, key, rank, share, window in zip(vectors, keys, ranks, density, epsilon):
                low, step = (share - window, 2 * window / (width - 1)) if width > 1 else (share, 0.0)
                if share < 1:
                    part = rank[first : first + vector.size]
                    machine_code.edits.drop_ranked(vector, key, place.start + first, part, low, step)

        return drop

    return mask


def _ranks(inputs: NDArray[Any], width: int) -> NDArray[np.uint32]:
    """Return the ranks of the magnitudes of x_1 - x_0 in rows of `width`, from 0."""
    keys = np.empty(inputs.shape[1], np.uint64)
    machine_code.edits.ordered_keys(inputs[1], inputs[0], width, keys)
    keys.reshape(-1, width).sort(axis=1)  # magnitude above, place in the row below
    ranks = np.empty(keys.size, np.uint32)
    machine_code.edits.scatter_ranks(keys, width, ranks)
    return ranks

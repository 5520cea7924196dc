"""DARE: drop elements of task vectors at random, rescale the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from warmkit.merging import machine_code
from warmkit.merging.edits import Edit, Fuse, Mask, Masked, Place, Read, Vectors, elected, stream_key, summed
from warmkit.merging.parameters import Density, Seed
from warmkit.merging.types import Coefficients


def dare_linear(scales: Coefficients, density: Density = (0.5,), seed: Seed = 0) -> Edit:
    """Return the DARE merge by task arithmetic.

        t_m = d_m / density where b_m = 1, else 0,   b_m ~ Bernoulli(density)
        merge = sum_m w_m t_m

    density is 1 less the paper's drop rate p. The expected value is the sum of the task vectors. Whether an element is kept is
    a function of the seed, the name of the tensor, the rank of the model and the place of the element, and of nothing else.

    Args:
        scales: [M], the weights w.
        density: [M], the share of each task vector that is kept.
        seed: Seed of the random masks.

    Source: Yu et al., 2024, "Language models are super Mario", section 3.2, equations 1 to 3.
    """
    return _dare(density, seed, summed(scales))


def dare_ties(scales: Coefficients, density: Density = (0.5,), seed: Seed = 0, normalize: bool = False) -> Edit:
    """Return the DARE merge by TIES: as `dare_linear`, summing only what has the elected sign.

        g = sign(sum_m w_m t_m),   merge = sum of w_m t_m over the models with sign(w_m t_m) = g

    Args:
        scales: [M], the weights w.
        density: [M], the share of each task vector that is kept.
        seed: Seed of the random masks.
        normalize: Divide by the sum of the coefficients of the models that an element was summed over.

    Source: Yu et al., 2024, section 3.3, with the sign election of Yadav et al., 2023.
    """
    return _dare(density, seed, elected(scales, scales, normalize))


def _dare(density: Sequence[float], seed: int, fuse: Fuse) -> Edit:
    writing = Masked(random_mask(density, seed), fuse)
    return lambda elements: writing


def random_mask(density: Sequence[float], seed: int) -> Callable[[Place, Read], Mask]:
    """Return the mask that keeps each element of task vector m with probability density[m], divided by it."""

    def mask(place: Place, read: Read) -> Mask:
        keys = [stream_key(seed, place.tensor, model) for model in range(len(density))]

        def drop(first: int, vectors: Vectors) -> None:
            for vector, key, chance in zip(vectors, keys, density):
                if chance < 1:
                    machine_code.edits.drop(vector, key, place.start + first, chance)

        return drop

    return mask

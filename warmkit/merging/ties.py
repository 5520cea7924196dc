"""TIES: trim, elect a sign, average what agrees with it."""

from __future__ import annotations

from warmkit.merging.edits import Edit, Mask, Masked, Place, Read, Stage, elected
from warmkit.merging.parameters import Density
from warmkit.merging.types import Coefficients


def ties(scales: Coefficients, density: Density = (0.2,), normalize: bool = True) -> Edit:
    """Return the TIES merge of task vectors.

        trim    t_m = d_m where |d_m| is among the k = density n largest, else 0
        elect   g = sign(sum_m w_m t_m)
        merge   sum of w_m t_m over the models with sign(w_m t_m) = g, divided by the sum of their |w_m|

    element by element, n the elements of a group. At least one element is kept. Of equal magnitudes the first are kept, so
    that exactly k are. Where the sum is zero no sign is elected, and the init stays.

    Args:
        scales: [M], the weights w.
        density: [M], the share of each task vector that is kept.
        normalize: Divide by the sum of the coefficients of the models that an element was summed over.

    Source: Yadav et al., 2023, "TIES-Merging: Resolving interference when merging models", section 4 and algorithm 1;
    weights as in mergekit.
    """
    from warmkit.merging.largest import Target, UpperHalves, largest

    fuse = elected(scales, scales, normalize)

    def start(elements: int) -> Stage:
        kept = [kept_of(elements, each) for each in density]
        if min(kept) >= elements:
            return Masked(everything, fuse)
        targets = [Target(row, keep) for row, keep in enumerate(kept)]
        return UpperHalves(
            len(kept),
            lambda place, first, vectors: vectors,
            lambda zeros: targets,
            lambda thresholds: Masked(largest([(each, None) for each in thresholds]), fuse),
        )

    return start


def kept_of(elements: int, density: float) -> int:
    """Return how many of a number of elements a density keeps: at least one, rounded down."""
    return max(1, int(density * elements))


def everything(place: Place, read: Read) -> Mask:
    """Keep all elements."""
    return lambda first, vectors: None

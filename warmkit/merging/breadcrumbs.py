"""Model breadcrumbs: leave out the smallest changes and the largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from warmkit.merging.edits import Edit, Fuse, Masked, Stage, elected, summed
from warmkit.merging.parameters import Density, Within
from warmkit.merging.types import Coefficients

Outliers = Annotated[Sequence[float], Within(0.0, 1.0)]


def breadcrumbs(scales: Coefficients, density: Density = (0.9,), gamma: Outliers = (0.01,)) -> Edit:
    """Return the breadcrumbs merge of task vectors.

        t_m = d_m where |d_m| is not among the gamma n largest, but among the density n largest of the others; else 0
        merge = sum_m w_m t_m

    element by element, n the elements of a group, both numbers rounded down. Where density + gamma exceeds 1, fewer
    outliers are left out. Of equal magnitudes the first count as the larger.

    Args:
        scales: [M], the weights w.
        density: [M], the share of each task vector that is kept.
        gamma: [M], the share of the largest elements that is left out, as outliers.

    Source: Davari and Belilovsky, 2023, "Model breadcrumbs", section 3; density is the paper's gamma less its beta, gamma
    1 less its gamma, as in mergekit.
    """
    return _breadcrumbs(density, gamma, summed(scales))


def breadcrumbs_ties(
    scales: Coefficients, density: Density = (0.9,), gamma: Outliers = (0.01,), normalize: bool = False
) -> Edit:
    """Return the breadcrumbs merge that sums only what has the elected sign, as TIES does.

    Source: as `breadcrumbs`, with the sign election of Yadav et al., 2023.
    """
    return _breadcrumbs(density, gamma, elected(scales, scales, normalize))


def _breadcrumbs(density: Sequence[float], gamma: Sequence[float], fuse: Fuse) -> Edit:
    from warmkit.merging.largest import Target, UpperHalves, largest

    def start(elements: int) -> Stage:
        targets: list[Target] = []
        for row, (share, outliers) in enumerate(zip(density, gamma)):
            kept = int(share * elements)
            top = min(int(outliers * elements), elements - kept)
            targets += [Target(row, top + kept), Target(row, top)]
        return UpperHalves(
            len(density),
            lambda place, first, vectors: vectors,
            lambda zeros: targets,
            lambda found: Masked(largest(list(zip(found[::2], found[1::2]))), fuse),
        )

    return start

"""Merged task vectors worked out by hand, for the methods that edit task vectors; one table for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# The first random numbers of seed 0 and tensor `layers.0.w` are, of the first model and of the second,
#     0.3814 0.5221 0.7518 0.8253 0.7607 0.6399 0.4647 0.8784
#     0.1578 0.5841 0.9438 0.1682 0.0878 0.4294 0.7184 0.9019
# so that a density of 1/2 keeps the places 0 and 6 of the first, and 0, 3, 4 and 5 of the second.


@dataclass(frozen=True)
class GoldenEdit:
    """What a method makes of task vectors.

    Attributes:
        method: Its name in METHODS.
        case: What is special here.
        vectors: [M][n].
        expected: [n].
        scales: [M]; None for ones.
        parameters: Of the method.
        shape: Of the tensor; None for [n].
    """

    method: str
    case: str
    vectors: tuple[tuple[float, ...], ...]
    expected: tuple[float, ...]
    scales: tuple[float, ...] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None


GOLDEN_EDITS = (
    GoldenEdit(
        "ties",
        "half are kept: (4, 0, -3, 0) and (0, 2, 5, 0); in the third place 5 outvotes -3",
        ((4, 1, -3, 0.5), (-1, 2, 5, 0.5)),
        (4, 2, 5, 0),
        parameters={"density": 0.5},
    ),
    GoldenEdit("ties", "the mean of those that agree", ((2, -1), (4, -3), (-3, 1)), (3, -2), parameters={"density": 1.0}),
    GoldenEdit(
        "ties",
        "weights 1, 3, 1: (2 + 12) / 4, and (-1 - 9) / 4",
        ((2, -1), (4, -3), (-3, 1)),
        (3.5, -2.5),
        (1, 3, 1),
        {"density": 1.0},
    ),
    GoldenEdit(
        "ties",
        "their sum without normalize",
        ((2, -1), (4, -3), (-3, 1)),
        (6, -4),
        parameters={"density": 1.0, "normalize": False},
    ),
    GoldenEdit("ties", "what cancels elects no sign", ((2, 1), (-2, 1)), (0, 1), parameters={"density": 1.0}),
    GoldenEdit(
        "ties", "of equal magnitudes the first are kept", ((1, -1, 1, -1, 1),), (1, -1, 0, 0, 0), parameters={"density": 0.5}
    ),
    GoldenEdit("ties", "at least one is kept", ((1, 3, 2),), (0, 3, 0), parameters={"density": 0.01}),
    GoldenEdit(
        "dare-linear",
        "twice what is kept: (2, 0, 0, 0, 0) and (20, 0, 0, 20, 20)",
        ((1, 2, 3, 4, 5), (10, 10, 10, 10, 10)),
        (22, 0, 0, 20, 20),
        parameters={"density": 0.5},
    ),
    GoldenEdit(
        "dare-linear",
        "a density each, and coefficients: half of (5, 0, 0, 0), twice all of the second",
        ((2, 2, 2, 2), (1, 2, 3, 4)),
        (4.5, 4, 6, 8),
        (0.5, 2),
        {"density": [0.4, 1.0]},
    ),
    GoldenEdit(
        "dare-ties",
        "-20 outvotes 2 in the first place",
        ((1, 2, 3, 4, 5), (-10, 10, 10, 10, 10)),
        (-20, 0, 0, 20, 20),
        parameters={"density": 0.5},
    ),
    GoldenEdit(
        "dare-ties",
        "the mean of those that agree: (2 + 20) / 2",
        ((1, 2, 3, 4, 5), (10, 10, 10, 10, 10)),
        (11, 0, 0, 20, 20),
        parameters={"density": 0.5, "normalize": True},
    ),
    GoldenEdit(
        "breadcrumbs",
        "of 10 the largest is left out and the next 4 are kept",
        ((1, -2, 3, -4, 5, -6, 7, -8, 9, -10),),
        (0, 0, 0, 0, 0, -6, 7, -8, 9, 0),
        parameters={"density": 0.4, "gamma": 0.1},
    ),
    GoldenEdit(
        "breadcrumbs",
        "0.8 + 0.4 exceeds 1: one outlier of five, not two",
        ((5, 4, 3, 2, 1), (1, 1, 1, 1, 2)),
        (2, 6, 5, 4, 1),
        (1, 2),
        {"density": 0.8, "gamma": 0.4},
    ),
    GoldenEdit(
        "breadcrumbs-ties",
        "4, -3 and -5 are outliers; -2 outvotes 1, and 3 and 0.5 outvote -2",
        ((4, 3, 1), (-2, -2, -3), (1, 0.5, -5)),
        (-2, 3.5, 1),
        parameters={"density": 0.68, "gamma": 0.34},
    ),
    GoldenEdit(
        "della-linear",
        "chances by rank (0, 2, 3, 1): .2, .6, .8, .4 against .3814, .5221, .7518, .8253",
        ((1, 3, -4, 2),),
        (0, 5, -5, 0),
        parameters={"density": 0.5, "epsilon": 0.3},
    ),
    GoldenEdit(
        "della-linear",
        "two rows of two: .25 and .75 in each",
        ((3, 1, 2, 1),),
        (4, 0, 0, 0),
        parameters={"density": 0.5, "epsilon": 0.25},
        shape=(2, 2),
    ),
    GoldenEdit(
        "della",
        "(0, 5, -5, 0) and, by .1578, .5841, .9438, .1682, (5, -5, 0, 2.5): 5 and -5 cancel",
        ((1, 3, -4, 2), (1, -3, 4, 1)),
        (5, 0, -5, 2.5),
        parameters={"density": 0.5, "epsilon": 0.3},
    ),
    GoldenEdit(
        "sce",
        "squares 5 and 20: weights 1/5 and 4/5; in the second place -4 outvotes 2",
        ((1, 2, 0), (2, -4, 0)),
        (1.8, -4, 0),
    ),
    GoldenEdit(
        "sce",
        "half of the two that vary, the one where they lie 6 apart",
        ((1, 2, 3), (2, -4, 3)),
        (0, -4, 0),
        parameters={"select_topk": 0.5},
    ),
    GoldenEdit(
        "nearswap",
        "within 1 whole, beyond it 1; the second weighs 2 with a limit of 0.5",
        ((0.5, 3, -2, 1), (0.25, -3, 0, 0.5)),
        (1, 0, -1, 2),
        scales=(1, 2),
        parameters={"limit": [1.0, 0.5]},
    ),
    GoldenEdit(
        "arcee-fusion",
        "one row, so by size: quartiles 1, 2 and 3, from 2 + 1.5 * 2 on",
        ((1, -2, 3, -8),),
        (0, 0, 0, -8),
    ),
    GoldenEdit(
        "arcee-fusion",
        "a shift of a row moves no softmax: quartiles 0, so all is kept",
        ((1, 1, 1, 1, 0, 0, 0, 2),),
        (1, 1, 1, 1, 0, 0, 0, 2),
        shape=(2, 4),
    ),
    GoldenEdit(
        "ram",
        "one, two and three models changed it, and none by more than 0.5",
        ((3, 2, 3, 0.5), (0, 4, -1, 0), (0.25, 0, 1, -0.5)),
        (3, 3, 1, 0),
        parameters={"epsilon": 0.5},
    ),
    GoldenEdit(
        "ram-plus",
        "the first shares 2 of 3: 1 + 0.5 min(2, 1); the second shares 2 and has none of its own",
        ((3, 2, 3), (0, 4, -1)),
        (4.5, 3, 1),
        parameters={"r": 0.5, "alpha": 1.0},
    ),
    GoldenEdit(
        "iso-c",
        "the sum is ((0, -3), (1, 0)), singular values 3 and 1",
        ((0, -3, 0, 0), (0, 0, 1, 0)),
        (0, -2, 2, 0),
        shape=(2, 2),
    ),
    GoldenEdit("iso-c", "one direction of two: half of its length", ((0, 4, 0, 0),), (0, 2, 0, 0), shape=(2, 2)),
    GoldenEdit("iso-c", "the mean where there is no matrix", ((1, 2), (3, -4)), (2, -1)),
    GoldenEdit(
        "tsv-m",
        "of diag(3, 1) and diag(2, 5) the larger direction each",
        ((3, 0, 0, 1), (2, 0, 0, 5)),
        (3, 0, 0, 5),
        shape=(2, 2),
    ),
    GoldenEdit(
        "tsv-m",
        "2 along (1, 0) and 5 along (.6, .8): 53.13 degrees apart, turned by 18.43 each to be orthogonal",
        ((2, 0, 0, 0), (0, 3, 0, 4)),
        (1.8973665961010275, 1.5811388300841898, -0.6324555320336759, 4.743416490252569),
        shape=(2, 2),
    ),
    GoldenEdit("tsv-m", "the mean where there is no matrix", ((1, 2), (3, -4)), (2, -1)),
)

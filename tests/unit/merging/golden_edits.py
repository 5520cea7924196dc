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
)

"""Coefficients worked out by hand, one table for all methods.

The angles are those whose sines are known: sin 30 = 1/2, sin 60 = sqrt(3)/2, sin 45 = sqrt(1/2), sin 22.5 and sin 67.5 =
sqrt((2 -+ sqrt 2) / 4). A Gram matrix of unit vectors holds their cosines.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

ORTHOGONAL_2 = ((1, 0), (0, 1))
ORTHOGONAL_3 = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
ORTHOGONAL_4 = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
SIXTY = ((1, 0.5), (0.5, 1))
FAN = ((1, 0.5, -0.5), (0.5, 1, 0.5), (-0.5, 0.5, 1))  # unit vectors of one plane, at 0, 60 and 120 degrees
EQUAL_2, EQUAL_3, EQUAL_4 = (1 / 2,) * 2, (1 / 3,) * 3, (1 / 4,) * 4
SIN_22, SIN_67 = sqrt((2 - sqrt(2)) / 4), sqrt((2 + sqrt(2)) / 4)


@dataclass(frozen=True)
class Golden:
    """What a method makes of one Gram matrix, with the defaults of its own parameters.

    Attributes:
        method: Its name in METHODS.
        case: What is special here.
        gram: [M][M].
        shares: [M].
        expected: [M].
    """

    method: str
    case: str
    gram: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]
    expected: tuple[float, ...]


GOLDEN = (
    Golden("lerp", "the shares themselves", SIXTY, (0.7, 0.3), (0.7, 0.3)),
    Golden("lerp", "one share negative, as in extrapolation", ORTHOGONAL_2, (1.5, -0.5), (1.5, -0.5)),
    Golden("uniform", "a fourth each", ORTHOGONAL_4, EQUAL_4, EQUAL_4),
    Golden("uniform", "whatever the shares say", ORTHOGONAL_2, (0.9, 0.1), EQUAL_2),
    Golden("task-arithmetic", "the scales themselves", ORTHOGONAL_3, (1, -0.5, 2), (1, -0.5, 2)),
    Golden("slerp", "90 degrees, halfway: sin 45 / sin 90", ORTHOGONAL_2, EQUAL_2, (sqrt(1 / 2), sqrt(1 / 2))),
    Golden("slerp", "90 degrees, a third of the way", ORTHOGONAL_2, (2 / 3, 1 / 3), (sqrt(3) / 2, 1 / 2)),
    Golden("slerp", "60 degrees: sin 30 / sin 60", SIXTY, EQUAL_2, (1 / sqrt(3), 1 / sqrt(3))),
    Golden("slerp", "120 degrees: sin 60 / sin 120", ((1, -0.5), (-0.5, 1)), EQUAL_2, (1, 1)),
    Golden("slerp", "90 degrees, norms 1 and 3: they do not enter", ((1, 0), (0, 9)), (2 / 3, 1 / 3), (sqrt(3) / 2, 1 / 2)),
    Golden("slerp", "parallel, norms 1 and 2", ((1, 2), (2, 4)), (0.7, 0.3), (0.7, 0.3)),
    Golden("slerp", "a zero task vector", ((1, 0), (0, 0)), (0.7, 0.3), (0.7, 0.3)),
    Golden("slerp", "three at right angles: then sin 60, sin 30", ORTHOGONAL_3, EQUAL_3, (sqrt(6) / 4, sqrt(6) / 4, 1 / 2)),
    Golden(
        "slerp",
        "four at right angles: then sin 67.5, sin 22.5",
        ORTHOGONAL_4,
        EQUAL_4,
        (sqrt(6) / 4 * SIN_67, sqrt(6) / 4 * SIN_67, SIN_67 / 2, SIN_22),
    ),
    Golden(
        "slerp",
        "three shares: steps of 1/4 : 3/4 = 1/3, then of 1/4",
        ORTHOGONAL_3,
        (1 / 2, 1 / 4, 1 / 4),
        (sqrt(3) / 2 * SIN_67, SIN_67 / 2, SIN_22),
    ),
    Golden("slerp", "a fan: to 30 degrees, then a third of 90 on to 60", FAN, EQUAL_3, (1 / 2, 1 / 2, 1 / 2)),
    Golden(
        "slerp",
        "a zero task vector third: LERP by a third",
        ((1, 0, 0), (0, 1, 0), (0, 0, 0)),
        EQUAL_3,
        (sqrt(2) / 3, sqrt(2) / 3, 1 / 3),
    ),
    Golden("multislerp", "right angles: 4 and 3 parts are 0.8 and 0.6 of length 1", ORTHOGONAL_2, (4 / 7, 3 / 7), (0.8, 0.6)),
    Golden("multislerp", "norms 1 and 3: halfway, of length 2", ((1, 0), (0, 9)), EQUAL_2, (sqrt(2), sqrt(2) / 3)),
    Golden("multislerp", "a zero task vector shortens", ((4, 0), (0, 0)), (0.7, 0.3), (0.7, 0)),
    Golden("expo", "three tenths beyond the mean", SIXTY, (0.25, 0.75), (0.325, 0.975)),
    Golden("relex", "straight on: 1, 2, then 4 along one direction", ((1, 2), (2, 4)), EQUAL_2, (4 / 5, 8 / 5)),
    Golden("relex", "standing still in one place: that place", ((1, 1), (1, 1)), EQUAL_2, (1 / 2, 1 / 2)),
    Golden("karcher", "two at 60 degrees, as SLERP", SIXTY, EQUAL_2, (1 / sqrt(3), 1 / sqrt(3))),
    Golden("karcher", "two at 90 degrees, a third of the way", ORTHOGONAL_2, (2 / 3, 1 / 3), (sqrt(3) / 2, 1 / 2)),
    Golden("karcher", "three at right angles: the diagonal", ORTHOGONAL_3, EQUAL_3, (1 / sqrt(3),) * 3),
    Golden("karcher", "norms 1 and 3: mean length 2", ((1, 0), (0, 9)), EQUAL_2, (sqrt(2), sqrt(2) / 3)),
    Golden("karcher", "a zero task vector shortens by its share", ((1, 0), (0, 0)), (0.75, 0.25), (0.75, 0)),
    Golden("model-stock", "two at 60 degrees: t = 2/3", SIXTY, EQUAL_2, (1 / 3, 1 / 3)),
    Golden("model-stock", "norms do not enter", ((1, 1.5), (1.5, 9)), EQUAL_2, (1 / 3, 1 / 3)),
    Golden("model-stock", "three at 60 degrees: t = 3/4", ((1, 0.5, 0.5), (0.5, 1, 0.5), (0.5, 0.5, 1)), EQUAL_3, (1 / 4,) * 3),
    Golden(
        "model-stock",
        "mean cosine 0.3 of 0.6, 0.3 and 0: t = 9/16",
        ((1, 0.6, 0.3), (0.6, 1, 0), (0.3, 0, 1)),
        EQUAL_3,
        (3 / 16,) * 3,
    ),
    Golden("model-stock", "parallel: the mean", ((1, 2), (2, 4)), EQUAL_2, (1 / 2, 1 / 2)),
    Golden("model-stock", "at right angles: the init", ORTHOGONAL_4, EQUAL_4, (0, 0, 0, 0)),
    Golden("model-stock", "mean cosine below zero: the init", ((1, -0.5), (-0.5, 1)), EQUAL_2, (0, 0)),
    Golden("slerp-weights", "collinear weights: LERP", ((4, 4), (4, 4)), (0.7, 0.3), (0.7, 0.3)),
    Golden("slerp-weights", "60 degrees: sin 30 / sin 60", SIXTY, EQUAL_2, (1 / sqrt(3), 1 / sqrt(3))),
    Golden("slerp-weights", "three at right angles, as SLERP", ORTHOGONAL_3, EQUAL_3, (sqrt(6) / 4, sqrt(6) / 4, 1 / 2)),
)

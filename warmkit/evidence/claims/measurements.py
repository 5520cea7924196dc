"""Measurements of a claim on one seed: points for figures, and the numbers that its statements are about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Point = dict[str, Any]
Line = Sequence[Mapping[str, Any]]


@dataclass
class Measurements:
    """Points and numbers of one seed.

    Attributes:
        points: Each has `part` (the figures that show it), `line`, `at` (its place on the line: a step, a lambda, an eta, M)
            and numbers.
        numbers: What statements are about, by name; None where a line did not reach what it is compared at.
    """

    points: list[Point] = field(default_factory=lambda: [])
    numbers: dict[str, float | None] = field(default_factory=lambda: {})

    def draw(self, part: str, line: str, points: Iterable[Mapping[str, Any]]) -> Line:
        """Add points of a line, each with its `at`; return them."""
        added = [{**point, "part": part, "line": line} for point in points]
        self.points += added
        return added

    def draw_lines(self, part: str, lines: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        """Add points of several lines."""
        for line, points in lines.items():
            self.draw(part, line, points)

    def state(self, **numbers: float) -> None:
        """Add numbers; NaN becomes None."""
        self.numbers |= {name: float(each) if math.isfinite(each) else None for name, each in numbers.items()}


def at(line: Line, number: str, places: Sequence[float], along: str = "kl") -> NDArray[np.float64]:
    """Return a number along a line at some KL (or other coordinate), NaN beyond its ends.

    The points are sorted by the coordinate and joined by straight pieces: between points far apart that shows too little of
    what is concave.

    Example:
        >>> line = [{"kl": 0.0, "gold": 1.0}, {"kl": 4.0, "gold": 3.0}]
        >>> at(line, "gold", [1.0, 5.0])
        array([1.5, nan])
    """
    ordered = sorted(line, key=lambda point: point[along])
    x, y = [point[along] for point in ordered], [point[number] for point in ordered]
    return np.interp(places, x, y, left=np.nan, right=np.nan)


def lead(ours: Line | Sequence[Line], theirs: Line | Sequence[Line], number: str, steps: int = 50) -> float:
    """Return how far one front is above another: the mean difference over the KLs that both reach; NaN where there are none.

    Args:
        ours: A line, or several whose mean is taken.
        theirs: The same.
        number: Which.
        steps: Places, evenly spaced from the larger of the first KLs to the smaller of the last ones.
    """
    first, second = _several(ours), _several(theirs)
    kls = [[point["kl"] for point in line] for line in (*first, *second)]
    low, high = max(map(min, kls)), min(map(max, kls))
    if not low < high:
        return math.nan
    places = np.linspace(low, high, steps)
    mean = [np.mean([at(line, number, places) for line in lines], axis=0) for lines in (first, second)]
    return float(np.mean(mean[0] - mean[1]))


def mean_line(lines: Sequence[Line]) -> Line:
    """Return the mean of several lines, point by point: they have the same places, in the same order.

    Example:
        >>> mean_line([[{"at": 0.5, "kl": 1.0}], [{"at": 0.5, "kl": 3.0}]])
        [{'at': 0.5, 'kl': 2.0}]
    """
    return [
        {"at": points[0]["at"], **{key: sum(each[key] for each in points) / len(points) for key in points[0] if key != "at"}}
        for points in zip(*lines, strict=True)
    ]


def highest(line: Line, number: str = "gold") -> Mapping[str, Any]:
    """Return the point where a number is highest."""
    return max(line, key=lambda point: point[number])


def over_steps(line: Line, number: str) -> float:
    """Return the mean of a number over a run, by steps (trapezoids between the points that were evaluated)."""
    x, y = np.array([point["at"] for point in line]), np.array([point[number] for point in line])
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def _several(lines: Line | Sequence[Line]) -> list[Line]:
    first: Any = lines[0]
    return [lines] if isinstance(first, Mapping) else list(lines)  # pyright: ignore[reportReturnType]

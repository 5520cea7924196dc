"""Means of few values, of seeds or prompts, with intervals that cover what they say.

Percentiles of a bootstrap over n values are too narrow where n is small: of five they cover the mean 84 times in 100 instead of
95, of ten 90 times, of sixteen 92. Student's t is exact for normal values, whatever n.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from warmkit.common.records import dict_of, is_number


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    value: float
    low: float
    high: float


def is_estimate(value: Any) -> bool:
    """Say whether a value of a document is an estimate."""
    return dict_of(is_number)(value) and value.keys() == Estimate.__annotations__.keys()


def student_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Return the mean of n values and its two-sided interval: mean +- t(n - 1) s / sqrt(n), s the deviation with n - 1.

    One value says nothing of how far others would lie: its interval has no ends. Equal values have an interval of one point,
    which is no certainty: the caller decides what that means.

    Args:
        values: At least one.
        level: Share of such intervals that hold the mean.

    Source: Student (1908).

    Examples:
        >>> found = student_interval([1.0, 2.0, 3.0])
        >>> round(found.low, 2), round(found.high, 2)
        (-0.48, 4.48)
    """
    array = np.asarray(values, dtype=np.float64)
    mean = float(array[0] if (array == array[0]).all() else array.mean())
    if len(array) == 1:
        return Estimate(mean, -math.inf, math.inf)
    half = student_quantile(len(array) - 1, level) * float((array - mean).std(ddof=1)) / math.sqrt(len(array))
    return Estimate(mean, mean - half, mean + half)


def wilson_interval(right: int, count: int, level: float = 0.95) -> Estimate:
    """Return a share with its interval, which is never a single point: none of 10 right is 0 to 28 percent.

    Args:
        right: How many of `count`.
        count: At least 1.
        level: Share of such intervals that hold the share, about.

    Source: Wilson (1927).

    Examples:
        >>> found = wilson_interval(0, 10)
        >>> found.low, round(found.high, 3)
        (0.0, 0.278)
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, whole = right / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / whole
    half = z / whole * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


@functools.lru_cache(maxsize=256)
def student_quantile(freedom: int, level: float) -> float:
    """Return the t that |T| stays below with a probability.

    Args:
        freedom: Degrees of freedom, at least 1.
        level: The probability, above 0 and below 1.

    Examples:
        >>> round(student_quantile(4, 0.95), 3)
        2.776
    """
    low, high = 0.0, math.pi / 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return math.sqrt(freedom) * math.tan(middle)
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)


def _within(angle: float, freedom: int) -> float:
    """Return P(|T| < sqrt(n) tan(angle)) for n degrees of freedom: a finite sum.

    Source: Abramowitz and Stegun (1964), 26.7.3 and 26.7.4.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for number in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (number - 1) / number
    return 2 / math.pi * (angle + sine * total) if odd else sine * total

"""Axes: where they end and what their ticks are, so that noise is no cliff and one run far out does not flatten the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from textwrap import wrap
from typing import Any, Literal

from warmkit.report.chart import Chart, is_number

UNITS = {"degrees": (10.0, 0.0, 180.0), "%": (2.0, 0.0, 100.0), "percent": (2.0, 0.0, 100.0), "tokens": (2.0, 0.0, math.inf)}
"""By the unit at the end of a title: how much an axis shows at least, and where the unit itself ends."""
FAR = 4  # times the middle one of the others: a line that goes further is far out
SMALL = 1e-3
TITLE = 44  # letters of a line of an axis' title, which a phone has room for
LINE, ABOVE = 15, 9  # pixels of such a line, and from an upright axis to its title above it


@dataclass(frozen=True)
class Axis:
    """How numbers lie on an axis.

    Attributes:
        kind: A `symlog` axis is linear up to `constant`, and logarithmic beyond.
        title: In lines that fit.
        domain: Its ends; None where the data's are right.
        ticks: None where evenly spaced ones are right.
        constant: See `kind`.
        small: Whether all numbers are so small that they are written with their exponents, as learning rates are.
    """

    kind: Literal["linear", "log", "symlog"]
    title: list[str]
    domain: tuple[float, float] | None = None
    ticks: Sequence[float] | None = None
    constant: float = 1.0
    small: bool = False


def axis_of(chart: Chart, which: Literal["x", "y"]) -> Axis:
    """Choose an axis: logarithmic where the chart says so or one run's KL is far out; never narrower than its unit asks."""
    columns = [chart.x] if which == "x" else [chart.y, *filter(None, (chart.low, chart.high))]
    title = (chart.x_title or chart.x) if which == "x" else (chart.y_title or chart.y)
    found = [
        float(value) for row in chart.rows for each in columns if is_number(value := row.get(each)) and math.isfinite(value)
    ]
    if which == "y" and chart.reference is not None:
        found.append(chart.reference)
    if not found:
        return Axis("linear", wrap(title, TITLE))
    low, high = min(found), max(found)
    small = 0 < max(map(abs, found)) < SMALL
    if which == "x" and chart.log_x:
        return Axis("log", wrap(title, TITLE), ticks=_ticks(low, high), small=small)
    if title.startswith("KL") and (constant := _bend(chart, columns[0])) is not None:
        ticks = [0.0, *_ticks(constant, high)]
        return Axis("symlog", wrap(f"{title}, logarithmic", TITLE), ticks=ticks, constant=constant)
    domain = None if which == "x" else _domain(low, high, title, chart.zero or chart.kind == "bars")
    return Axis("linear", wrap(title, TITLE), domain, small=small)


def _domain(low: float, high: float, title: str, zero: bool) -> tuple[float, float]:
    """Widen what is narrower than its unit asks, or has no extent at all."""
    least, floor, ceiling = UNITS.get(title.rsplit(" ", 1)[-1], (0.0, -math.inf, math.inf))
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    least = least or (0.0 if low != high else abs(low) or 1.0)
    if high - low < least:
        middle = (low + high) / 2
        low = max(floor, min(middle - least / 2, ceiling - least))
        high = low + least
    return low, high


def _bend(chart: Chart, column: str) -> float | None:
    """Return where an axis turns logarithmic, if one line goes so much further than the others; None where it stays linear."""
    reach: dict[Any, float] = {}
    for row in chart.rows:
        if is_number(value := row.get(column)):
            line = (row.get(chart.line), row.get(chart.thin) if chart.thin else None)
            reach[line] = max(reach.get(line, 0.0), value)
    *others, furthest = sorted(reach.values()) or [0.0]
    if not others or others[0] <= 0 or furthest <= FAR * median(others):
        return None
    return others[0] / 2


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10, ... between two positive numbers; of many decades only the first of each.

    Examples:
        >>> _ticks(0.3, 12)
        [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first < 4 else (1,)
    found = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    return [each for each in found if low <= each <= high]

"""Sentences: what a chart shows, computed from its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from warmkit.common.records import is_number
from warmkit.report.chart import Chart, numeric

Points = Sequence[tuple[Any, float]]
UNITS = {"%": " %", "percent": " %", "degrees": " degrees", "nats": " nats", "points": " points", "tokens": " tokens"}
FEW = 3  # lines that are all told


def sentence(chart: Chart) -> str:
    """Say what a chart shows: its own words, or else where its lines begin and end, peak, or differ most.

    Examples:
        >>> rows = [{"line": name, "step": step, "loss": step * loss} for name, loss in (("a", 1), ("b", 2)) for step in (1, 9)]
        >>> sentence(Chart("loss", "Loss", rows, "step", "loss"))
        'From step 1 to 9: a from 1 to 9; b from 2 to 18.'
    """
    lines = _lines(chart)
    if chart.says or not lines:
        return chart.says
    if chart.kind == "histogram":
        return _middles(lines)
    if chart.kind in ("points", "bars") or not numeric(chart, chart.x):
        return _extremes(chart, lines)
    same = len(lines) > 1 and len({tuple(x for x, _ in points) for points in lines.values()}) == 1  # chosen, not measured
    return _course(chart, lines) if same or not chart.order else _peaks(chart, lines)


def short_title(title: str) -> str:
    """Return what an axis is about in a word or a few.

    Examples:
        >>> short_title("KL to the SFT model, nats"), short_title("eta: 0 is the init, 1 the merge")
        ('KL', 'eta')
    """
    return "KL" if title.startswith("KL") else re.split(r"[,:]", title)[0]


def _lines(chart: Chart) -> dict[str, list[tuple[Any, float]]]:
    """Return the points of every line, without what is faint or grey behind."""
    y = chart.x if chart.kind == "histogram" else chart.y
    bold = [row for row in chart.rows if not (chart.thin and row.get(chart.thin) is not None)] or chart.rows
    found: dict[str, list[tuple[Any, float]]] = {}
    for row in bold:
        name = str(row.get(chart.line) or chart.title)
        if is_number(row.get(y)) and row.get(chart.x) is not None and (not chart.emphasised or name in chart.emphasised):
            found.setdefault(name, []).append((row[chart.x], float(row[y])))
    return found


def _course(chart: Chart, lines: Mapping[str, Points]) -> str:
    """Tell the ends of lines over what was chosen, or who is highest where they differ most; level ones are marks to see by."""
    moving = {name: dict(points) for name, points in lines.items() if len({y for _, y in points}) > 1}
    known = moving or {name: dict(points) for name, points in lines.items()}
    shared = sorted(set.intersection(*(set(each) for each in known.values())))
    x = short_title(chart.x_title or chart.x)
    if len(known) > 1 and shared:
        spread = {place: _spread([each[place] for each in known.values()]) for place in shared}
        most = max(shared, key=lambda place: spread[place])
        if x != "step" and spread[shared[-1]] < spread[most] / 2:
            return f"The lines differ most at {x} {_text(most)}: {_order(chart, known, most)}."
    if len(known) > FEW and shared:
        return f"At {x} {_text(shared[-1])} {_order(chart, known, shared[-1])}."
    ends = {(min(each), max(each)) for each in known.values()}
    told = "; ".join(f"{_named(name, known)}from {_from_to(chart, each)}" for name, each in known.items())
    first, last = ends.pop()
    return f"First to last {x}: {told}." if ends else f"From {x} {_text(first)} to {_text(last)}: {told}."


def _from_to(chart: Chart, line: Mapping[Any, float]) -> str:
    first, last = line[min(line)], line[max(line)]
    return f"{_number(chart, first).split()[0]} to {_number(chart, last)}"


def _order(chart: Chart, known: Mapping[str, Mapping[Any, float]], place: Any) -> str:
    """Say who is highest and who is lowest at a place."""
    by_value = sorted(known, key=lambda name: known[name][place])
    high, low = (_number(chart, known[name][place]) for name in (by_value[-1], by_value[0]))
    return f"{by_value[-1]} ({high}) is highest, {by_value[0]} ({low}) lowest" if high != low else f"all have {high}"


def _peaks(chart: Chart, lines: Mapping[str, Points]) -> str:
    """Tell the highest point of lines in a plane; a single point is a mark to see by."""
    paths = {name: points for name, points in lines.items() if len(points) > 1} or lines
    tops = {name: max(points, key=lambda point: point[1]) for name, points in paths.items()}
    ranked = sorted(tops, key=lambda name: -tops[name][1])
    told = [(name, f"{_number(chart, tops[name][1])} at {_place(chart, tops[name][0])}") for name in ranked]
    if len(told) <= FEW:
        return f"Highest: {'; '.join(f'{_named(name, tops)}({text})' if len(tops) > 1 else text for name, text in told)}."
    (high, at), (low, there) = told[0], told[-1]
    return f"The highest peak is that of {high} ({at}), the lowest that of {low} ({there})."


def _extremes(chart: Chart, lines: Mapping[str, Points]) -> str:
    """Tell the highest and the lowest point."""
    points = [(y, x, name) for name, found in lines.items() for x, y in found]
    texts: list[str] = []
    for y, x, name in (max(points, key=lambda each: each[0]), min(points, key=lambda each: each[0])):
        at = _place(chart, x)
        texts.append(f"{_number(chart, y)} ({'; '.join([*([name] if len(lines) > 1 and name != at else []), at])})")
    return f"Highest: {texts[0]}; lowest: {texts[1]}."


def _middles(lines: Mapping[str, Points]) -> str:
    """Tell medians."""
    told = [f"{_named(name, lines)}{_text(median(value for _, value in points))}" for name, points in lines.items()]
    return f"Median: {'; '.join(told)}."


def _named(name: str, among: Mapping[str, Any]) -> str:
    return f"{name} " if len(among) > 1 else ""


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _place(chart: Chart, x: Any) -> str:
    """Write a place on the x-axis: a name, a number with its unit, or with the name of the axis before it."""
    title = chart.x_title or chart.x
    if not is_number(x):
        return f"{title} {x}" if str(x).isdigit() else str(x)
    unit = UNITS.get(re.split(r"[, ]", title)[-1], "")
    return f"KL {_text(x)}" if title.startswith("KL") else f"{_text(x)}{unit}" if unit else f"{short_title(title)} {_text(x)}"


def _number(chart: Chart, value: float) -> str:
    return _text(value) + UNITS.get(re.split(r"[, ]", chart.y_title or chart.y)[-1], "")


def _text(value: Any) -> str:
    """Write a number with three digits; what is a millionth of a unit or less is rounding.

    Examples:
        >>> _text(0.12345), _text(1234567.0), _text(-1e-8), _text(3e-5)
        ('0.123', '1,234,567', '0', '3e-05')
    """
    if not is_number(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else "0" if abs(value) < 1e-7 else f"{value:.3g}"

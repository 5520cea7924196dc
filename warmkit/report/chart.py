"""Charts: what a figure shows.

The words are those of the drawing: rows, a column on x, one on y, one that names the line.

Source: colours after Okabe and Ito (2008), darkened to 3:1 on white and on black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from warmkit.common.records import is_number

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c06a9b", "#bd8000", "#7a6fd0", "#9c6b3c", "#7d858d")
GREY = "#808890"
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3])  # of lines beside each other, so that one can be seen through the next
MARKED = 32  # points of a line that get a mark each


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        name: Anchor and file name: letters, digits, dashes.
        title: Above it.
        rows: Each has the columns that the next ones name.
        x: Column on x: numbers, or texts in their order.
        y: Column on y; a histogram counts and needs none.
        x_title: Beside the axis, by default the column.
        y_title: The same.
        line: Column that names the line, which gives colour and mark; missing in all rows: a single line.
        order: Column that orders the points of a line (a trajectory is ordered by its step), by default x.
        low: Column of a band's lower end, of the upper one `high`.
        high: See `low`.
        thin: Column that names single runs; rows that have it are drawn thin and faint behind.
        kind: What is drawn; points and bars whose x are names lie in rows, with the names on the left.
        caption: How to read it.
        says: What it shows, in one sentence; by default `sentences.sentence` finds one.
        log_x: Whether x is logarithmic.
        zero: Whether axes begin at 0.
        emphasised: Lines drawn thicker; the others are grey.
        label: Column of texts beside the points.
        reference: Where a thin line crosses: a draw, a right angle.
        tips: More columns that are told on hover.
    """

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    x: str
    y: str
    x_title: str = ""
    y_title: str = ""
    line: str = "line"
    order: str | None = None
    low: str | None = None
    high: str | None = None
    thin: str | None = None
    kind: Literal["lines", "points", "bars", "histogram"] = "lines"
    caption: str = ""
    says: str = ""
    log_x: bool = False
    zero: bool = False
    emphasised: Sequence[str] = ()
    label: str | None = None
    reference: float | None = None
    tips: Sequence[str] = ()


def line_names(chart: Chart) -> list[str]:
    """Return the names of the lines in the order of the rows."""
    return list(dict.fromkeys(str(row[chart.line]) for row in chart.rows if row.get(chart.line) is not None))


def numeric(chart: Chart, column: str) -> bool:
    """Say whether a column holds numbers, or texts that are places on an axis."""
    return all(is_number(row[column]) for row in chart.rows if row.get(column) is not None)


# ---- data -----------------------------------------------------------------------------------------------------------


def columns_of(chart: Chart) -> dict[str, tuple[str, str]]:
    """Return short name -> (column, title) of all columns that the chart uses."""
    used = {
        "line": (chart.line, chart.line.capitalize()),
        "thin": (chart.thin, chart.thin),
        "label": (chart.label, chart.label),
        "order": (chart.order, chart.order),
        "x": (chart.x, chart.x_title or chart.x),
        "y": (chart.y if chart.kind != "histogram" else None, chart.y_title or chart.y),
        "low": (chart.low, "low"),
        "high": (chart.high, "high"),
        **{f"tip{place}": (column, column) for place, column in enumerate(chart.tips)},
    }
    known = {column for row in chart.rows for column in row}
    return {short: (column, title or column) for short, (column, title) in used.items() if column in known}

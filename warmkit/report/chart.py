"""Charts: what a figure shows, and the Vega-Lite of it, drawn by a browser or into a picture.

The words are those of the drawing: rows, a column on x, one on y, one that names the line. `specification` says the rest in
Vega-Lite, through Altair; a page draws it, and `svg` draws the same without a browser.

Source: Satyanarayan et al. (2017), Vega-Lite; colours after Okabe and Ito (2008), darkened to 3:1 on white and on black.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from warmkit.errors import UsageError

Theme = Literal["light", "dark", "page"]
"""What texts and rules are drawn in; `page` takes the colour of the text around, whatever that is."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c06a9b", "#bd8000", "#7a6fd0", "#9c6b3c", "#7d858d")
GREY = "#808890"
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3])  # of lines beside each other, so that one can be seen through the next
MARKED = 32  # points of a line that get a mark each
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


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


def can_draw() -> bool:
    """Return whether what draws charts is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("altair", "vl_convert"))


def require_charts() -> None:
    """Raise a clear error where charts cannot be drawn.

    Raises:
        UsageError: If Altair or vl-convert is not installed.
    """
    if not can_draw():
        raise UsageError("reports need altair and vl-convert-python; install them: pip install 'warmkit[report]'")


def specification(chart: Chart, theme: Theme = "light", compact: bool = False, width: int | None = None) -> dict[str, Any]:
    """Write a chart as Vega-Lite with its data inside.

    Columns get short names that need no escaping, and numbers six digits; `usermeta.columns` says what they are.

    Args:
        chart: What to draw.
        theme: Colours of texts and rules.
        compact: Lower, for charts side by side.
        width: Pixels of a picture, in which nothing can be pointed at; by default the chart is as wide as its page allows.

    Raises:
        UsageError: If Altair is not installed.
    """
    require_charts()
    from warmkit.report.drawing import drawing

    columns = columns_of(chart)
    lines = line_names(chart)
    spec = drawing(chart, lines, compact, width)
    return {
        **spec,
        "data": {"name": "rows", "values": _values(chart, columns, single=len(lines) < 2)},
        "config": config(theme),
        "usermeta": {"columns": [[short, title] for short, (_, title) in columns.items()]},
    }


def line_names(chart: Chart) -> list[str]:
    """Return the names of the lines in the order of the rows."""
    return list(dict.fromkeys(str(row[chart.line]) for row in chart.rows if row.get(chart.line) is not None))


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


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


def _values(chart: Chart, columns: Mapping[str, tuple[str, str]], single: bool) -> list[dict[str, Any]]:
    kept = {short: column for short, (column, _) in columns.items()}
    values = [
        {short: _plain(row[column]) for short, column in kept.items() if row.get(column) is not None} for row in chart.rows
    ]
    if single:
        values = [{"line": chart.title, **each} for each in values]
    return values


def _plain(value: Any) -> Any:
    """Return what JSON can hold: numbers rounded, others as text; what is no number is missing."""
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return _round(number) if math.isfinite(number) else None


def _round(number: float) -> float:
    return float(f"{number:.6g}")


# ---- looks ----------------------------------------------------------------------------------------------------------


def config(theme: Theme) -> dict[str, Any]:
    """Return how all charts look."""
    inks = {"light": ("#2b3036", "#ffffff"), "dark": ("#d7dce1", "#15181c"), "page": ("currentColor", "transparent")}
    ink, paper = inks[theme]
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12}
    rules = {f"{part}Color": ink for part in ("domain", "tick", "grid")}
    faint = {"gridOpacity": 0.12, "domainOpacity": 0.35, "tickOpacity": 0.35}
    above = {
        "titleAngle": 0,
        "titleAlign": "left",
        "titleAnchor": "end",
        "titleBaseline": "bottom",
        "titleX": -28,
        "titleY": -9,
    }
    wrapped = {"orient": "top", "direction": "horizontal", "title": None, "columnPadding": 16, "rowPadding": 4}
    heading = {"color": ink, "subtitleColor": ink, "fontSize": 14, "fontWeight": 600, "subtitleFontSize": 12}
    return {
        "background": paper,
        "font": FONT,
        "view": {"stroke": None},
        "title": {**heading, "subtitlePadding": 5, "anchor": "start", "offset": 12},
        "axis": {
            **text,
            **rules,
            **faint,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelLimit": 130,
        },
        "axisX": {"grid": False},
        "axisY": above,
        "legend": {**text, **wrapped, "symbolSize": 70, "symbolStrokeWidth": 2},
        "range": {"category": list(COLOURS)},
        "text": {"color": ink, "fontSize": 11},
    }

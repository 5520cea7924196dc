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
from typing import Any, Literal

from warmkit.errors import UsageError

Theme = Literal["light", "dark", "page"]
"""What texts and rules are drawn in; `page` takes the colour of the text around, whatever that is."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c06a9b", "#bd8000", "#7a6fd0", "#9c6b3c", "#7d858d")
GREY = "#8f979f"
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
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
        thin: Column that names single runs; rows that have it are drawn thin and faint behind. Where every row has it, the
            line itself is their mean at every place.
        kind: What is drawn.
        caption: Below it.
        log_x: Whether x is logarithmic.
        zero: Whether axes begin at 0.
        emphasised: Lines drawn thicker; the others are grey.
        label: Column of texts beside the points.
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
    log_x: bool = False
    zero: bool = False
    emphasised: Sequence[str] = ()
    label: str | None = None
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


def specification(chart: Chart, theme: Theme = "light", compact: bool = False) -> dict[str, Any]:
    """Write a chart as Vega-Lite with its data inside.

    Columns get short names that need no escaping, and numbers six digits; `usermeta.columns` says what they are.

    Args:
        chart: What to draw.
        theme: Colours of texts and rules.
        compact: Lower, with a narrower legend, for charts side by side.

    Raises:
        UsageError: If Altair is not installed.
    """
    require_charts()
    from warmkit.report.drawing import drawing

    columns = _columns(chart)
    lines = line_names(chart)
    spec = drawing(chart, lines, compact)
    return {
        **spec,
        "data": {"name": "rows", "values": _values(chart, columns, single=len(lines) < 2)},
        "config": _config(theme),
        "usermeta": {"columns": [[short, title] for short, (_, title) in columns.items()]},
    }


def svg(chart: Chart) -> str:
    """Draw a chart into a picture, without a browser.

    Raises:
        UsageError: If Altair or vl-convert is not installed.
    """
    require_charts()
    import vl_convert

    return vl_convert.vegalite_to_svg(specification(chart) | {"width": 620, "title": chart.title})


def line_names(chart: Chart) -> list[str]:
    """Return the names of the lines in the order of the rows."""
    return list(dict.fromkeys(str(row[chart.line]) for row in chart.rows if row.get(chart.line) is not None))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numeric(chart: Chart, column: str) -> bool:
    """Say whether a column holds numbers, or texts that are places on an axis."""
    return all(is_number(row[column]) for row in chart.rows if row.get(column) is not None)


# ---- data -----------------------------------------------------------------------------------------------------------


def _columns(chart: Chart) -> dict[str, tuple[str, str]]:
    """Return short name -> (column, title) of all columns that the chart uses."""
    used = {
        "line": (chart.line, chart.line if chart.line != "line" else "Line"),
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
    if chart.thin is not None and values and all("thin" in each for each in values):
        values += _means(values)
    return values


def _means(values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over runs at every place of every line; a place is an x, or an order where there is one."""
    places: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for each in values:
        if is_number(each.get("y")):
            places.setdefault((each.get("line"), each.get("order", each.get("x"))), []).append(each)
    return [
        {**{key: rows[0][key] for key in ("line", "order", "x") if key in rows[0]}, **_mean(rows)} for rows in places.values()
    ]


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    numbers = {key: [row[key] for row in rows if is_number(row.get(key))] for key in ("x", "y")}
    return {key: _round(sum(found) / len(found)) for key, found in numbers.items() if found}


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


def _config(theme: Theme) -> dict[str, Any]:
    ink, paper = {"light": ("#2b3036", "#ffffff"), "dark": ("#d7dce1", "#15181c"), "page": ("currentColor", "transparent")}[
        theme
    ]
    return {
        "background": paper,
        "font": FONT,
        "view": {"stroke": None},
        "title": {"color": ink, "anchor": "start", "fontSize": 14, "fontWeight": 600, "offset": 12},
        "axis": {
            "labelColor": ink,
            "titleColor": ink,
            "domainColor": ink,
            "tickColor": ink,
            "gridColor": ink,
            "gridOpacity": 0.12,
            "domainOpacity": 0.35,
            "tickOpacity": 0.35,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelFlush": False,
        },
        "axisX": {"grid": False},
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 12,
            "labelLimit": 260,
            "symbolSize": 70,
            "symbolStrokeWidth": 2,
            "orient": "top",
            "direction": "horizontal",
            "title": None,
            "columnPadding": 16,
            "rowPadding": 4,
            "offset": 10,
        },
        "range": {"category": list(COLOURS)},
        "text": {"color": ink, "fontSize": 10},
    }

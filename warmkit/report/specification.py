"""Vega-Lite of a chart, made with Altair: a page draws it, and a picture has the same without a browser.

Source: Satyanarayan et al. (2017), Vega-Lite.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any, Literal

from warmkit.errors import UsageError
from warmkit.report.axes import ABOVE
from warmkit.report.chart import COLOURS, Chart, columns_of, line_names

Theme = Literal["light", "dark", "page"]
"""What texts and rules are drawn in; `page` takes the colour of the text around, whatever that is."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


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
        "titleY": -ABOVE,
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

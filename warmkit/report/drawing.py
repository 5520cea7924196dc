"""How a chart is drawn: layers of bands, thin runs, lines, marks and texts, in Altair."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from warmkit.report.chart import COLOURS, DASHES, GREY, MARKED, SHAPES, Chart, numeric

HEIGHT, COMPACT = 280, 200
WIDE, NARROW = 720, 330  # pixels between the ends of the x-axis, about


def drawing(chart: Chart, lines: Sequence[str], compact: bool = False) -> dict[str, Any]:
    """Return the Vega-Lite of the layers over data called `rows`, with the columns that `specification` gives them.

    Altair's own checks, which take ten times as long as all else, are left to the tests.

    Args:
        chart: What to draw.
        lines: Names of its lines; without any there is one, called as the chart.
        compact: Whether it stands beside another.
    """
    draw = {"lines": _lines, "points": _lines, "bars": _bars, "histogram": _histogram}[chart.kind]
    with debug_mode(False):
        layers = draw(chart, _Encoding(chart, list(lines) or [chart.title], NARROW if compact else WIDE))
        whole = alt.layer(*layers, data=alt.NamedData(name="rows")).properties(
            width="container", height=COMPACT if compact else HEIGHT
        )
        return whole.to_dict(validate=False)


class _Encoding:
    """The channels that layers share."""

    def __init__(self, chart: Chart, lines: list[str], pixels: int) -> None:
        self.chart, self.lines, self.pixels = chart, lines, pixels
        self.legend: Any = alt.Legend(columns=_legend_columns(lines, pixels), symbolOpacity=1) if len(lines) > 1 else None
        self.picked = alt.selection_point(name="picked", fields=["line"], bind="legend")

    @cached_property
    def x(self) -> Any:
        chart, title = self.chart, self.chart.x_title or self.chart.x
        if not numeric(chart, chart.x):
            return alt.X("x:O", title=title, sort=None, axis=self.names)
        kind: Any = "log" if chart.log_x else "linear"
        axis = alt.Axis() if chart.log_x else alt.Axis(tickCount=min(8, self.pixels // 45), **_whole(chart))
        return alt.X("x:Q", title=title, axis=axis, scale=alt.Scale(type=kind, zero=chart.zero, nice=False, padding=12))

    @cached_property
    def names(self) -> Any:
        """The axis of places that have names, slanted where they do not fit side by side."""
        found = dict.fromkeys(str(row.get(self.chart.x)) for row in self.chart.rows)
        widest = max(map(len, found), default=0)
        fit = 6.5 * widest * len(found) <= self.pixels
        return alt.Axis(
            labelAngle=0 if fit else -30,
            labelLimit=max(150, self.pixels // max(1, len(found))) if fit else 96,
            labelOverlap=len(found) > 20,
        )

    @cached_property
    def y(self) -> Any:
        return alt.Y("y:Q", title=self.chart.y_title or self.chart.y, scale=alt.Scale(zero=self.chart.zero, nice=True))

    @cached_property
    def colour(self) -> Any:
        if not self.chart.emphasised:
            colours = [COLOURS[place % len(COLOURS)] for place in range(len(self.lines))]
        else:
            shown = [name for name in self.lines if name in self.chart.emphasised]
            colours = [COLOURS[shown.index(name) % len(COLOURS)] if name in shown else GREY for name in self.lines]
        return alt.Color("line:N", scale=alt.Scale(domain=self.lines, range=colours), legend=self.legend, title=None)

    @cached_property
    def shape(self) -> Any:
        shapes = [SHAPES[place % len(SHAPES)] for place in range(len(self.lines))]
        return alt.Shape("line:N", scale=alt.Scale(domain=self.lines, range=shapes), legend=self.legend, title=None)

    @cached_property
    def dash(self) -> Any:
        """Lines past the last colour are told from the first by their dashes."""
        if len(self.lines) <= len(COLOURS):
            return alt.StrokeDashValue([1, 0])
        dashes = [DASHES[place // len(COLOURS) % len(DASHES)] for place in range(len(self.lines))]
        return alt.StrokeDash("line:N", scale=alt.Scale(domain=self.lines, range=dashes), legend=self.legend, title=None)

    @cached_property
    def width(self) -> Any:
        names = [name for name in self.lines if name in self.chart.emphasised]
        return alt.StrokeWidthValue(1.8) if not names else _when(alt.FieldOneOfPredicate("line", names), 3.0, 1.3)

    @cached_property
    def along(self) -> Any:
        """What joins the points of a line one after another."""
        return alt.Order("order:Q" if self.chart.order else "x:Q")

    def faded(self, full: float) -> Any:
        """Let lines that are not picked in the legend fade."""
        return alt.condition(self.picked, alt.value(full), alt.value(full / 8))

    @cached_property
    def tooltip(self) -> list[Any]:
        chart = self.chart
        named = len(self.lines) > 1 or any(row.get(chart.line) is not None for row in chart.rows)
        known: list[tuple[str, str | None, str]] = [
            ("line", chart.line if named else None, chart.line if chart.line != "line" else "line"),
            ("thin", chart.thin, str(chart.thin)),
            ("order", chart.order if chart.order != "order" else None, str(chart.order)),
            ("x", chart.x, chart.x_title or chart.x),
            ("y", chart.y, chart.y_title or chart.y),
            ("low", chart.low, "low"),
            ("high", chart.high, "high"),
            *((f"tip{place}", column, column) for place, column in enumerate(chart.tips)),
        ]
        return [_tip(chart, short, column, title) for short, column, title in known if column is not None]


def _whole(chart: Chart) -> dict[str, Any]:
    """Let whole numbers have whole ticks."""
    found = [value for row in chart.rows if isinstance(value := row.get(chart.x), int)]
    if not found or len(found) < len(chart.rows):
        return {}
    first, last = min(found), max(found)
    return {"values": [*range(first, last + 1)], "format": "d"} if last - first < 8 else {"tickMinStep": 1}


def _tip(chart: Chart, short: str, column: str, title: str) -> Any:
    if short in ("line", "thin") or not numeric(chart, column):
        return alt.Tooltip(f"{short}:N", title=title)
    return alt.Tooltip(f"{short}:Q", title=title, format=".5~g")


def _when(test: Any, yes: float, no: float) -> Any:
    return alt.condition(test, alt.value(yes), alt.value(no))


def _legend_columns(lines: Sequence[str], pixels: int) -> int:
    """Return how many names fit beside each other."""
    widths = [7 * len(name) + 34 for name in lines]
    return len(lines) if sum(widths) <= pixels else max(1, pixels // max(widths))


def _lines(chart: Chart, encoding: _Encoding) -> list[Any]:
    main = alt.Chart().transform_filter("!isValid(datum.thin)") if chart.thin else alt.Chart()
    base = main.encode(x=encoding.x, y=encoding.y, color=encoding.colour)
    layers: list[Any] = []
    if chart.low and chart.high:
        band = main.mark_area().encode(
            x=encoding.x, y=alt.Y("low:Q", title=encoding.chart.y_title or chart.y), y2="high:Q", color=encoding.colour,
            opacity=encoding.faded(0.16),
        )  # fmt: skip
        layers.append(band)
    if chart.thin:
        layers += _runs(chart, encoding)
    if chart.kind == "lines":
        line = base.mark_line(interpolate="linear").encode(
            order=encoding.along, strokeDash=encoding.dash, strokeWidth=encoding.width, opacity=encoding.faded(1)
        )
        layers.append(line)
    return [*layers, *_marks(chart, encoding, base)]


def _runs(chart: Chart, encoding: _Encoding) -> list[Any]:
    """Return the single runs; paths in a plane tell their places on hover."""
    shown = 0.75 if chart.emphasised else 0.4
    base = alt.Chart().transform_filter("isValid(datum.thin)").encode(x=encoding.x, y=encoding.y, color=encoding.colour)
    lines = base.mark_line(strokeWidth=1).encode(detail="thin:N", order=encoding.along, opacity=encoding.faded(shown))
    if not chart.order:
        return [lines]
    return [lines, base.mark_point(filled=True, size=16).encode(opacity=encoding.faded(shown), tooltip=encoding.tooltip)]


def _marks(chart: Chart, encoding: _Encoding, base: alt.Chart) -> list[Any]:
    """Return the points: all where they are few, else the one under the pointer; and what is written beside them."""
    few = chart.kind == "points" or len({row.get(chart.order or chart.x) for row in chart.rows}) <= MARKED
    near = alt.selection_point(name="near", on="pointerover", clear="pointerout", nearest=True, empty=False)
    size, rest = (110, 42) if few else (80, 0)
    points = base.mark_point(filled=True).encode(
        shape=encoding.shape,
        size=alt.condition(near, alt.value(size), alt.value(rest)),
        opacity=encoding.faded(1),
        tooltip=encoding.tooltip,
    )
    marks: list[Any] = [points.add_params(encoding.picked, near)]
    if chart.label:
        marks.append(base.mark_text(dx=7, dy=-7, align="left").encode(text="label:N", opacity=encoding.faded(0.9)))
    return marks


def _bars(chart: Chart, encoding: _Encoding) -> list[Any]:
    base = alt.Chart().encode(x=alt.X("x:N", title=chart.x_title or chart.x, sort=None, axis=encoding.names))
    if len(encoding.lines) > 1:
        base = base.encode(xOffset=alt.XOffset("line:N", sort=encoding.lines))
    y = alt.Y("y:Q", title=chart.y_title or chart.y, scale=alt.Scale(zero=chart.zero))
    bars: Any = base.mark_bar(cornerRadiusEnd=2).encode(
        y=y, color=encoding.colour, opacity=encoding.faded(0.9), tooltip=encoding.tooltip
    )
    if not (chart.low and chart.high):
        return [bars.add_params(encoding.picked)]
    reach = base.mark_rule(strokeWidth=1.5, color=GREY).encode(y=alt.Y("low:Q"), y2="high:Q", opacity=encoding.faded(1))
    return [bars.add_params(encoding.picked), reach]


def _histogram(chart: Chart, encoding: _Encoding) -> list[Any]:
    axis = alt.Axis(labelOverlap=True, labelSeparation=8, tickCount=encoding.pixels // 60)
    bars = alt.Chart().mark_bar(binSpacing=1).encode(
        x=alt.X("x:Q", bin=alt.Bin(maxbins=24), title=chart.x_title or chart.x, scale=alt.Scale(zero=chart.zero), axis=axis),
        y=alt.Y("count():Q", title=chart.y_title or "count", stack=None),
        color=encoding.colour,
        opacity=encoding.faded(0.55 if len(encoding.lines) > 1 else 0.9),
        tooltip=[alt.Tooltip("line:N", title="line"), alt.Tooltip("x:Q", bin=alt.Bin(maxbins=24)), alt.Tooltip("count():Q")],
    )  # fmt: skip
    return [bars.add_params(encoding.picked)]

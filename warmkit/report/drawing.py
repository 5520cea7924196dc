"""Drawing of a chart: layers of bands, single runs, lines, marks and texts, in Altair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from warmkit.report.axes import ABOVE, LINE, axis_of
from warmkit.report.chart import COLOURS, DASHES, GREY, MARKED, SHAPES, Chart, columns_of, numeric

HEIGHT, COMPACT, ROW, NAMES = 280, 200, 24, 170  # pixels; of a row with a name, and beside it
LETTER, SYMBOL = 6.8, 34  # pixels in a legend
ROOM = "(0 * width + containerSize()[0] - 50)"  # of a page, in Vega's words; `width` alone changes while it lays out
SCIENTIFIC = "datum.value == 0 ? '0' : format(datum.value, '~e')"


def drawing(chart: Chart, lines: Sequence[str], compact: bool = False, width: int | None = None) -> dict[str, Any]:
    """Return the Vega-Lite of the layers over data called `rows`, with the columns that `specification` gives them.

    Altair's own checks, which take ten times as long as all else, are left to the tests.

    Args:
        chart: What to draw.
        lines: Names of its lines; without any there is one, called as the chart.
        compact: Whether it stands beside another.
        width: Pixels of a picture, in which nothing can be pointed at; None: as wide as there is room.
    """
    draw = {"lines": _lines, "points": _lines, "bars": _rows, "histogram": _histogram}[chart.kind]
    encoding = _Encoding(chart, list(lines) or [chart.title], width)
    with debug_mode(False):
        height = encoding.rows or (COMPACT if compact else HEIGHT)
        whole = alt.layer(*draw(chart, encoding), data=alt.NamedData(name="rows"))
        return whole.properties(width=width or "container", height=height).to_dict(validate=False)


class _Encoding:
    """The channels that layers share."""

    def __init__(self, chart: Chart, lines: list[str], width: int | None) -> None:
        self.chart, self.lines, self.still = chart, lines, width is not None
        self.pixels = str(width) if width else ROOM
        self.named = chart.kind != "histogram" and bool(chart.rows) and not numeric(chart, chart.x)
        self.strips = chart.kind == "histogram" and len(lines) > 1
        in_rows = self.named and chart.kind in ("points", "bars")
        names = {str(row.get(chart.x)) for row in chart.rows} if in_rows else lines if self.strips else ()
        self.rows = len(names) * (max(ROW, LINE * len(lines)) if in_rows else ROW)  # pixels; 0: values stand upright
        if names and not self.still:
            self.pixels = f"({ROOM} - {min(NAMES, LETTER * max(map(len, names)))})"
        self.legend: Any = self._legend() if len(lines) > 1 and not self.strips else None
        self.picked = alt.selection_point(name="picked", fields=["line"], bind="legend")
        self.near = alt.selection_point(name="near", on="pointerover", clear="pointerout", nearest=True, empty=False)

    def _legend(self) -> Any:
        """Return a legend of as many columns as there is room for."""
        widths = [LETTER * len(name) + SYMBOL for name in self.lines]
        columns = f"{self.pixels} >= {sum(widths)} ? {len(widths)} : max(1, floor({self.pixels} / {max(widths)}))"
        title = 0 if self.rows else LINE * len(axis_of(self.chart, "y").title)  # which lies below, above the axis
        return alt.Legend(
            offset=10 + title, columns=alt.expr(columns), labelLimit=alt.expr(f"max(120, {self.pixels} - 20)"), symbolOpacity=1
        )

    @cached_property
    def x(self) -> Any:
        if not self.named:
            return self._numbers(alt.X, "x")
        return alt.X("x:O", title=self.chart.x_title or self.chart.x, sort=None, axis=self._names())

    def _names(self) -> Any:
        """Return the axis of places that have names, slanted where they do not fit side by side."""
        found = dict.fromkeys(str(row.get(self.chart.x)) for row in self.chart.rows)
        at = f"{self.pixels} < {LETTER * max(map(len, found), default=0) * len(found)} ? "
        turns = {"labelAngle": "-40 : 0", "labelAlign": "'right' : 'center'", "labelBaseline": "'middle' : 'top'"}
        slanted: dict[str, Any] = {name: alt.expr(at + turn) for name, turn in turns.items()}
        return alt.Axis(**slanted, labelOverlap=len(found) > 20)

    def y(self, channel: Any, column: str = "y:Q") -> Any:
        """Return a column on the axis of y, upright or lying."""
        value = self._numbers(channel, "y")
        return (
            value if column == "y:Q" else channel(column, title=axis_of(self.chart, "y").title, scale=value.to_dict()["scale"])
        )

    def _numbers(self, channel: Any, which: Any) -> Any:
        chart, axis = self.chart, axis_of(self.chart, which)
        ticks: dict[str, Any] = {"values": axis.ticks, "format": "~g"} if axis.ticks else _whole(chart) if which == "x" else {}
        if axis.small:
            ticks["labelExpr"] = SCIENTIFIC
        if which == "x" and not axis.ticks:
            ticks.setdefault("tickCount", alt.expr(f"min(8, ceil({self.pixels} / 45))"))
        if which == "y" and len(axis.title) > 1 and not self.rows:  # whose first line is what is placed
            ticks["titleY"] = -ABOVE - LINE * (len(axis.title) - 1)
        extra: dict[str, Any] = {"constant": axis.constant} if axis.kind == "symlog" else {}
        if axis.domain:
            low, high = axis.domain
            extra |= {"domain": [low, high], "nice": not -0.02 * high < low < 0}
            extra |= {"padding": 8} if self.rows and self.chart.kind == "points" else {}
        else:
            extra |= {"zero": chart.zero, "nice": False, "padding": 12 if which == "x" else 6}
        return channel(f"{which}:Q", title=axis.title, axis=alt.Axis(**ticks), scale=alt.Scale(type=axis.kind, **extra))

    @cached_property
    def colour(self) -> Any:
        if not self.chart.emphasised:
            colours = [COLOURS[place % len(COLOURS)] for place in range(len(self.lines))]
        else:
            shown = [name for name in self.lines if name in self.chart.emphasised]
            colours = [COLOURS[shown.index(name) % len(COLOURS)] if name in shown else GREY for name in self.lines]
        return self._by_line(alt.Color, colours)

    @cached_property
    def few(self) -> bool:
        """Whether every point gets a mark."""
        chart = self.chart
        return chart.kind == "points" or len({row.get(chart.order or chart.x) for row in chart.rows}) <= MARKED

    @cached_property
    def shape(self) -> Any:
        shapes = [SHAPES[place % len(SHAPES)] for place in range(len(self.lines))]
        return self._by_line(alt.Shape, shapes)

    def dashed(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return as a mark's property, or as a channel, how lines differ in dashes: one that lies below another is seen.

        As a channel it shows in the legend; where marks do, dashes around the marks would only spoil them.
        """
        dashes = [DASHES[(place + place // len(COLOURS)) % len(DASHES)] for place in range(len(self.lines))]
        if self.few:
            return {"strokeDash": alt.expr(f"{json.dumps(dashes)}[{self.place}]")}, {}
        return {}, {"strokeDash": self._by_line(alt.StrokeDash, dashes)}

    @property
    def place(self) -> str:
        """The place of a row's line among the lines, in Vega's words."""
        return f"indexof({json.dumps(self.lines, ensure_ascii=False)}, datum.line)"

    def _by_line(self, channel: Any, values: Sequence[Any]) -> Any:
        return channel("line:N", scale=alt.Scale(domain=self.lines, range=values), legend=self.legend, title=None)

    @cached_property
    def width(self) -> Any:
        names = [name for name in self.lines if name in self.chart.emphasised]
        thick = alt.condition(alt.FieldOneOfPredicate("line", names), alt.value(2.6), alt.value(1.2))
        return thick if names else alt.StrokeWidthValue(1.8)

    @cached_property
    def along(self) -> dict[str, Any]:
        """What joins the points of a line one after another; names stand in their own order."""
        return {"order": alt.Order("order:Q")} if self.chart.order else {} if self.named else {"order": alt.Order("x:Q")}

    def faded(self, full: float) -> Any:
        """Let lines that are not picked in the legend fade."""
        return alt.value(full) if self.still else alt.condition(self.picked, alt.value(full), alt.value(full / 8))

    def pointed(self, layer: Any, *parameters: Any) -> Any:
        """Let a layer tell its values to who points at it; a picture tells nothing."""
        return layer if self.still else layer.encode(tooltip=self.tooltip).add_params(*parameters)

    @cached_property
    def tooltip(self) -> list[Any]:
        known = {short: each for short, each in columns_of(self.chart).items() if short != "label" and each[1] != "order"}
        return [_tip(self.chart, short, column, title) for short, (column, title) in known.items()]


def _whole(chart: Chart) -> dict[str, Any]:
    """Let whole numbers have whole ticks."""
    found = [value for row in chart.rows if isinstance(value := row.get(chart.x), int)]
    if not found or len(found) < len(chart.rows):
        return {}
    first, last = min(found), max(found)
    return {"values": [*range(first, last + 1)], "format": "d"} if last - first < 8 else {"tickMinStep": 1}


def _tip(chart: Chart, short: str, column: str, title: str) -> Any:
    if short in ("line", "thin") or not numeric(chart, column):
        return alt.Tooltip(f"{short}:N", title=column if short == "line" else title)
    return alt.Tooltip(f"{short}:Q", title=title, format=".5~g")


def _lines(chart: Chart, encoding: _Encoding) -> list[Any]:
    if encoding.rows:
        return _rows(chart, encoding)
    main = alt.Chart().transform_filter("!isValid(datum.thin)") if chart.thin else alt.Chart()
    base = main.encode(x=encoding.x, y=encoding.y(alt.Y), color=encoding.colour)
    layers = _reference(encoding, "y")
    if chart.low and chart.high:
        band = main.mark_rule(strokeWidth=1.2) if _folds(chart) else main.mark_area()
        ends = {"y": encoding.y(alt.Y, "low:Q"), "y2": "high:Q", "opacity": encoding.faded(0.4 if _folds(chart) else 0.14)}
        layers.append(band.encode(x=encoding.x, color=encoding.colour, **ends))
    if chart.thin:
        runs = (
            alt.Chart().transform_filter("isValid(datum.thin)").encode(x=encoding.x, y=encoding.y(alt.Y), color=encoding.colour)
        )
        layers.append(runs.mark_line(strokeWidth=1).encode(**encoding.along, detail="thin:N", opacity=encoding.faded(0.45)))
    if chart.kind == "lines":
        mark, channel = encoding.dashed()
        line = base.mark_line(interpolate="linear", **mark).encode(**encoding.along, **channel)
        layers.append(line.encode(strokeWidth=encoding.width, opacity=encoding.faded(1)))
    return [*layers, *_marks(chart, encoding, base)]


def _folds(chart: Chart) -> bool:
    """Say whether a line turns back over itself, or is none, so that no band can lie along it."""
    if chart.kind == "points" or not chart.order:
        return chart.kind == "points"
    lines: dict[Any, list[tuple[Any, Any]]] = {}
    for row in chart.rows:
        if chart.low in row:
            lines.setdefault(row.get(chart.line), []).append((row[chart.order], row[chart.x]))
    along = [[x for _, x in sorted(points)] for points in lines.values()]
    return any(xs != sorted(xs) for xs in along)


def _reference(encoding: _Encoding, which: str) -> list[Any]:
    if encoding.chart.reference is None:
        return []
    scale = encoding.y(alt.Y).to_dict()["scale"]
    place = (alt.YDatum if which == "y" else alt.XDatum)(encoding.chart.reference, scale=scale)
    return [alt.Chart().transform_aggregate(n="count()").mark_rule(strokeDash=[3, 3], color=GREY).encode(**{which: place})]


def _marks(chart: Chart, encoding: _Encoding, base: alt.Chart) -> list[Any]:
    """Return the points: all where they are few, else the one under the pointer; and what is written beside them."""
    size, rest = (110, 42) if encoding.few else (80, 0)
    near = alt.value(rest) if encoding.still else alt.condition(encoding.near, alt.value(size), alt.value(rest))
    points = base.mark_point(filled=True).encode(size=near, opacity=encoding.faded(1))
    points = points.encode(shape=encoding.shape) if encoding.few else points
    marks = [encoding.pointed(points, encoding.picked, encoding.near)] if encoding.few or not encoding.still else []
    if chart.label and any(row.get(chart.label) is not None for row in chart.rows):
        below = f"{encoding.place} % 2 ? 15 : -8"  # neighbours write on different sides
        texts = alt.Chart().transform_filter("isValid(datum.label)").mark_text(dy=alt.expr(below), align="center")
        marks.append(texts.encode(x=encoding.x, y=encoding.y(alt.Y), text="label:N", opacity=encoding.faded(1)))
    return marks


def _rows(chart: Chart, encoding: _Encoding) -> list[Any]:
    """Return points or bars on rows that have names, with their intervals, the lines of a name below each other."""
    base = alt.Chart().encode(y=_names_on_rows("x:N"))
    if len(encoding.lines) > 1:
        base = base.encode(yOffset=alt.YOffset("line:N", sort=encoding.lines))
    marks: Any = base.mark_bar() if chart.kind == "bars" else base.mark_point(filled=True, size=60).encode(shape=encoding.shape)
    marks = marks.encode(x=encoding.y(alt.X), color=encoding.colour, opacity=encoding.faded(0.9))
    layers = [*_reference(encoding, "x"), encoding.pointed(marks, encoding.picked)]
    if not (chart.low and chart.high):
        return layers
    ends = {"x": encoding.y(alt.X, "low:Q"), "x2": "high:Q", "opacity": encoding.faded(0.9)}
    return [*layers, base.mark_rule(strokeWidth=1.5, color=GREY).encode(**ends)]


def _names_on_rows(column: str) -> Any:
    return alt.Y(column, title=None, sort=None, axis=alt.Axis(labelLimit=NAMES, grid=True, ticks=False, labelPadding=6))


def _histogram(chart: Chart, encoding: _Encoding) -> list[Any]:
    """Return bars of counts; of several lines, which would hide each other, every value as a tick in a row of its line."""
    title = axis_of(chart, "x").title
    if encoding.strips:
        axis = alt.Axis(tickCount=alt.expr(f"{encoding.pixels} / 65"))
        x = alt.X("x:Q", title=title, axis=axis, scale=alt.Scale(zero=chart.zero, nice=True))
        ticks = alt.Chart().mark_tick(thickness=2, size=ROW - 8, opacity=0.6)
        return [encoding.pointed(ticks.encode(x=x, y=_names_on_rows("line:N"), color=encoding.colour))]
    axis = alt.Axis(labelOverlap=True, labelSeparation=8, tickCount=alt.expr(f"{encoding.pixels} / 60"))
    bars = alt.Chart().mark_bar(binSpacing=1).encode(
        x=alt.X("x:Q", bin=alt.Bin(maxbins=24), title=title, scale=alt.Scale(zero=chart.zero), axis=axis),
        y=alt.Y("count():Q", title=chart.y_title or "count", stack=None, axis=alt.Axis(tickMinStep=1, format="d")),
        color=encoding.colour,
        opacity=alt.value(0.9),
    )  # fmt: skip
    told = [alt.Tooltip("x:Q", bin=alt.Bin(maxbins=24)), alt.Tooltip("count():Q")]
    return [bars if encoding.still else bars.encode(tooltip=told)]

"""Charts: their Vega-Lite is valid, holds the data as they are, and draws without a browser."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from dataclasses import replace
from typing import Any

import pytest

from warmkit.errors import UsageError
from warmkit.report.chart import COLOURS, GREY, Chart
from warmkit.report.picture import svg
from warmkit.report.specification import require_charts, specification

altair = pytest.importorskip("altair")
pytest.importorskip("vl_convert")

ROWS: list[dict[str, Any]] = [
    {"line": line, "x": x, "y": x * x + place} for place, line in enumerate(("warp", "sft")) for x in range(5)
]
LINES = Chart("c", "Title", ROWS, "x", "y")
BAND = replace(LINES, rows=[{**row, "a": row["y"] - 1, "b": row["y"] + 1} for row in ROWS], low="a", high="b")
RUNS = [{**row, "seed": seed, "y": row["y"] + seed} for row in ROWS for seed in (0, 2)]
SEEDS = replace(LINES, rows=[*RUNS, *ROWS], thin="seed")
CHARTS = {
    "lines": LINES,
    "one line": replace(LINES, rows=[{"x": 1, "y": 2}, {"x": 2, "y": 3}]),
    "band": BAND,
    "seeds": SEEDS,
    "trajectory": replace(LINES, rows=[{**row, "step": -row["x"]} for row in ROWS], order="step"),
    "points": replace(LINES, kind="points", label="line", tips=("x",)),
    "points in rows": replace(BAND, rows=[{**row, "x": f"run {row['x']}"} for row in BAND.rows], kind="points", reference=2),
    "path with a band": replace(BAND, order="x"),
    "bars": replace(BAND, kind="bars", zero=True),
    "histogram": replace(LINES, kind="histogram"),
    "histogram of one": replace(LINES, rows=[{"x": row["x"]} for row in ROWS], kind="histogram"),
    "names on x": replace(LINES, rows=[{**row, "x": f"layer {row['x']}"} for row in ROWS]),
    "logarithm": replace(LINES, rows=[{**row, "x": row["x"] + 1} for row in ROWS], log_x=True),
    "emphasised": replace(LINES, emphasised=("warp",)),
    "many lines": replace(LINES, rows=[{"line": f"l{n}", "x": x, "y": n} for n in range(12) for x in range(3)]),
    "nothing": replace(LINES, rows=[]),
}


def layers(chart: Chart) -> list[dict[str, Any]]:
    return specification(chart)["layer"]


def mark(layer: dict[str, Any]) -> str:
    return layer["mark"]["type"]


@pytest.mark.parametrize("name", CHARTS)
def test_every_kind_of_chart_is_valid_vega_lite(name: str) -> None:
    spec = specification(CHARTS[name])
    altair.LayerChart.from_dict(spec, validate=True)
    json.dumps(spec, allow_nan=False)


@pytest.mark.parametrize("name", CHARTS)
def test_every_kind_of_chart_is_drawn_without_a_browser(name: str) -> None:
    picture = svg(CHARTS[name])
    assert f">{CHARTS[name].title}</text>" in picture
    places = {(row.get("line"), row["x"]) for row in CHARTS[name].rows}
    assert len(re.findall("<(?:path|rect)", picture)) - 1 >= len(places), "one is the paper"


def test_columns_may_have_any_name() -> None:
    rows = [{"line": "a", "kl[sft].mean": x, 'reward\'s "best"': 2 * x} for x in range(3)]
    spec = specification(Chart("c", "T", rows, "kl[sft].mean", 'reward\'s "best"'))
    assert spec["data"]["values"] == [{"line": "a", "x": x, "y": 2 * x} for x in range(3)]
    assert ["x", "kl[sft].mean"] in spec["usermeta"]["columns"]


def test_what_is_no_number_is_missing_and_numbers_keep_six_digits() -> None:
    rows = [{"x": 1, "y": math.nan}, {"x": 2, "y": math.inf}, {"x": 3, "y": 1 / 3}]
    assert [row["y"] for row in specification(replace(LINES, rows=rows))["data"]["values"]] == [None, None, 0.333333]


def test_columns_that_no_channel_uses_are_left_out() -> None:
    rows = [{**row, "text": "long" * 100} for row in ROWS]
    assert specification(replace(LINES, rows=rows))["data"] == specification(LINES)["data"]


def test_a_trajectory_joins_its_points_by_their_order_not_by_x() -> None:
    line = next(layer for layer in layers(CHARTS["trajectory"]) if mark(layer) == "line")
    assert line["encoding"]["order"]["field"] == "order"
    plain = next(layer for layer in layers(LINES) if mark(layer) == "line")
    assert plain["encoding"]["order"]["field"] == "x"


def test_a_band_lies_behind_its_line() -> None:
    marks = [mark(layer) for layer in layers(BAND)]
    assert marks.index("area") < marks.index("line")
    assert "area" not in [mark(layer) for layer in layers(LINES)]


def test_lines_that_are_not_emphasised_are_grey() -> None:
    line = next(layer for layer in layers(CHARTS["emphasised"]) if mark(layer) == "line")
    scale = line["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"])) == {"warp": COLOURS[0], "sft": GREY}


def test_lines_differ_in_more_than_colour() -> None:
    spec = layers(CHARTS["many lines"])
    shape = next(layer["encoding"]["shape"]["scale"]["range"] for layer in spec if mark(layer) == "point")
    line = next(layer for layer in spec if mark(layer) == "line")
    dashes = json.loads(line["mark"]["strokeDash"]["expr"].partition("[indexof")[0])
    colour = line["encoding"]["color"]["scale"]["range"]
    assert len({(a, tuple(b)) for a, b in zip(colour, dashes)}) == 12
    assert len(set(shape[:8])) == 8
    assert dashes[0] != dashes[1], "of two lines at one place both are seen"


def test_long_lines_show_their_dashes_in_the_legend() -> None:
    rows = [{"line": line, "x": x, "y": x} for line in "ab" for x in range(100)]
    line = next(layer for layer in layers(replace(LINES, rows=rows)) if mark(layer) == "line")
    assert line["encoding"]["strokeDash"]["scale"]["domain"] == ["a", "b"]
    assert all("shape" not in layer["encoding"] for layer in layers(replace(LINES, rows=rows)))


def test_several_histograms_do_not_hide_each_other() -> None:
    (ticks,) = layers(CHARTS["histogram"])
    assert (mark(ticks), ticks["encoding"]["y"]["field"]) == ("tick", "line")
    (bars,) = layers(CHARTS["histogram of one"])
    assert mark(bars) == "bar"


def test_a_band_along_a_path_that_turns_back_is_drawn_as_intervals() -> None:
    back = replace(BAND, rows=[{**row, "step": row["x"], "x": (row["x"] - 2) ** 2} for row in BAND.rows], order="step")
    assert "area" not in [mark(layer) for layer in layers(back)]
    assert mark(layers(back)[0]) == "rule"
    assert "area" in [mark(layer) for layer in layers(CHARTS["path with a band"])]


def test_colours_can_be_seen_on_white_and_on_black_paper() -> None:
    papers = [specification(LINES, theme)["config"]["background"] for theme in ("light", "dark")] + ["#fcfcfb", "#191d21"]
    for colour in (*COLOURS, GREY):
        for paper in papers:
            a, b = sorted((luminance(colour), luminance(paper)))
            assert (b + 0.05) / (a + 0.05) >= 3, (colour, paper)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_without_the_libraries_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    assert importlib.util.find_spec("altair") is None
    with pytest.raises(UsageError, match=r"pip install 'warmkit\[report\]'"):
        require_charts()


def test_a_title_of_two_lines_ends_above_the_axis() -> None:
    """Vega places the first line; the others must not cover the highest tick, which stands at 0."""
    picture = svg(replace(LINES, y_title="wins against the answers of the SFT model by the control, percent"))
    (found,) = re.findall(r'translate\(-28,([-\d.]+)\)"[^>]*><tspan>[^<]*</tspan><tspan x="0" dy="(\d+)">', picture)
    assert float(found[0]) + float(found[1]) < -9

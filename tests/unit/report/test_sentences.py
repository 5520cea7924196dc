"""Sentences say what the rows hold: ends, peaks, extremes, medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from warmkit.report.chart import Chart
from warmkit.report.sentences import sentence


def chart(lines: Mapping[str, Sequence[tuple[Any, float]]], **more: Any) -> Chart:
    rows = [{"line": name, "x": x, "y": y, "at": at} for name, points in lines.items() for at, (x, y) in enumerate(points)]
    named: dict[str, Any] = {"x_title": "step", "y_title": "accuracy, %", **more}
    return Chart("c", "C", rows, "x", "y", **named)


COURSE = {"a": [(0, 50.0), (10, 61.239)], "b": [(0, 50.0), (10, 40.0)]}
MANY = {name: [(0, 1.0), (9, value)] for name, value in (("a", 2.0), ("b", 5.0), ("c", 3.0), ("d", 4.0))}
MIDDLE = {"WA": [(0.0, 70.0), (0.5, 80.0), (1.0, 70.0)], "ENS": [(0.0, 70.0), (0.5, 75.0), (1.0, 70.0)]}
LEVEL = {**MIDDLE, "probe": [(0.0, 99.0), (0.5, 99.0), (1.0, 99.0)]}
BEST = "WA (80 %) is highest, ENS (75 %) lowest."
PATHS = {"a": [(0.0, 0.0), (5.0, 2.0), (9.0, 1.0)], "b": [(0.0, 0.0), (2.0, 1.5)]}
KL: dict[str, Any] = {"x_title": "KL to the SFT model, nats", "y_title": "reward", "order": "at"}


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (chart(COURSE), "From step 0 to 10: a from 50 to 61.2 %; b from 50 to 40 %."),
        (chart({"a": COURSE["a"]}), "From step 0 to 10: from 50 to 61.2 %."),
        (chart({**COURSE, "b": [(0, 50.0), (5, 40.0)]}), "First to last step: a from 50 to 61.2 %; b from 50 to 40 %."),
        (chart(MANY, y_title="loss"), "At step 9 b (5) is highest, a (2) lowest."),
        (chart({name: [(0, 0.0), (9, 2.0)] for name in "abcd"}, y_title="loss"), "At step 9 all have 2."),
        (chart(MIDDLE, x_title="lambda, from a (0) to b (1)"), f"The lines differ most at lambda 0.5: {BEST}"),
        (chart(LEVEL, x_title="lambda"), f"The lines differ most at lambda 0.5: {BEST}"),
        (chart(PATHS, **KL), "Highest: a (2 at KL 5); b (1.5 at KL 2)."),
        (chart({"a": PATHS["a"]}, **KL), "Highest: 2 at KL 5."),
        (
            chart({name: [(0.0, 0.0), (at, at)] for name, at in (("a", 1.0), ("b", 4.0), ("c", 2.0), ("d", 3.0))}, **KL),
            "The highest peak is that of b (4 at KL 4), the lowest that of a (1 at KL 1).",
        ),
        (
            chart({"a / b": [("norm", 81.0), ("0", 57.0)]}, x_title="layer", y_title="angle, degrees"),
            "Highest: 81 degrees (norm); lowest: 57 degrees (layer 0).",
        ),
        (chart(COURSE, kind="points"), "Highest: 61.2 % (a; step 10); lowest: 40 % (b; step 10)."),
        (chart({"a": [(1.0, 0), (5.0, 0), (3.0, 0)], "b": [(7.0, 0)]}, kind="histogram"), "Median: a 3; b 7."),
        (chart({}), ""),
        (chart(COURSE, says="My own."), "My own."),
    ],
)  # fmt: skip
def test_a_chart_says_what_it_shows(shown: Chart, said: str) -> None:
    assert sentence(shown) == said


def test_what_lies_behind_is_not_told() -> None:
    behind = [{"line": "paths", "run": "r", "x": 0.0, "y": 9.0, "at": 0}]
    shown = chart({"front": PATHS["a"]}, **KL)
    shown = replace(shown, rows=[*shown.rows, *behind], thin="run", emphasised=["front"])
    assert sentence(shown) == "Highest: 2 at KL 5."


def test_rounding_is_nothing_and_small_numbers_are_something() -> None:
    assert sentence(chart({"a": [(0, -1.22e-8), (9, 3e-5)]}, y_title="learning rate")) == "From step 0 to 9: from 0 to 3e-05."

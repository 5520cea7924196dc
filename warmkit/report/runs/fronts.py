"""Charts of fronts: reward against KL, what eta or lambda does, and one reward against another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from warmkit.report.chart import Chart
from warmkit.report.html_page import Cell, Grid, Table, slug
from warmkit.report.runs.metrics import Line, blocks
from warmkit.report.runs.part import BAND, ends, filled, heading, span, words

Point = Mapping[str, Any]
"""`{"eta", "coefficients", "values": {name: {"value", "low", "high"}}}`, as `FrontPoint.to_dict` writes it."""
KL = "KL to the SFT model, nats"
PATHS = "paths of training"
SMOOTH = 14  # points of a path of training
APART = 0.09  # how far numbers stand apart, as a share of the chart


def front_charts(
    fronts: Mapping[str, Sequence[Point]], trajectories: Mapping[str, Sequence[Line]] | None = None, prefix: str = "front"
) -> list[Chart | Grid]:
    """Draw reward and controls against the KL with the trajectories beside them, and what the knob does.

    Args:
        fronts: By what the legend calls them.
        trajectories: Of training runs, by name: step, kl_sft and values.
        prefix: Of the charts' names.

    Source: WARP (Ramé et al., 2024), figures 3, 4 and 8-10.
    """
    everything = [point for points in fronts.values() for point in points]
    if not everything:
        return []
    knob, lines = knob_of(everything), _lines(fronts)
    charts: list[Chart | Grid] = [
        _against_kl(lines, trajectories or {}, name, knob, prefix) for name in ["reward", *_names(everything, "control_")]
    ]
    if knob in ("eta", "lambda"):
        charts.append(Grid([_against_knob(lines, name, knob, prefix) for name in ("reward", "kl_sft")]))
    return charts


def reward_charts(fronts: Mapping[str, Sequence[Point]], policies: Sequence[str] = (), prefix: str = "rewards") -> list[Chart]:
    """Draw one reward or control against another; policies alone are named.

    Source: Rewarded soups (Ramé et al., 2023), figures 1 and 2.
    """
    lines = _lines(fronts)
    names = _names([point for points in lines.values() for point in points], "reward_", "control_")
    charts: list[Chart] = []
    for first, second in combinations(names, 2):
        rows: list[dict[str, Any]] = []
        for line, points in lines.items():
            for point in points:
                row = {"line": line, first: _value(point, first), second: _value(point, second), "order": _knob(point)}
                rows.append(row | {"mix": mix(point)} | _alone(point, policies))
        title, name = f"{heading(second)} against {words(first)}", slug(f"{prefix} {first} {second}")
        kind = "lines" if _joined(lines) else "points"
        chart = Chart(name, title, rows, first, second, words(first), words(second), order="order", kind=kind, label="label")
        charts.append(replace(chart, tips=("mix",), caption="Names: policies alone." if policies else ""))
    return charts


def _alone(point: Point, policies: Sequence[str]) -> dict[str, str]:
    """Return the name of the policy that a point is, if it is one."""
    shares = list(point["coefficients"] or [])
    return {"label": policies[shares.index(1)]} if policies and 1 in shares and point["eta"] == 1 else {}


def front_table(fronts: Mapping[str, Sequence[Point]], caption: str = "") -> Table:
    """Lay out every point of every front."""
    points = [point for each in fronts.values() for point in each]
    values = [name for name in (points[0]["values"] if points else ()) if name.startswith(("reward", "control_"))]
    values = [name for name in values if name != "reward_model" or len(values) > 2]
    columns = ["front", "eta", "mix", *(f"{words(name)} (95%)" for name in values), "KL (95%)", "length"]
    rows: list[list[Cell]] = [
        [
            line,
            point["eta"],
            mix(point),
            *(span(point["values"][name]) if name in point["values"] else None for name in [*values, "kl_sft"]),
            round(_value(point, "length"), 1) if "length" in point["values"] else None,
        ]
        for line, each in fronts.items()
        for point in each
    ]
    return filled(Table(columns, rows, caption, folded=True))


def knob_of(points: Sequence[Point]) -> str | None:
    """Return what slides along a front: eta, or lambda between two policies, or else a mix of more."""
    if len({point["eta"] for point in points}) > 1:
        return "eta"
    mixes = {tuple(point["coefficients"] or ()) for point in points}
    return None if len(mixes) < 2 else "lambda" if len(next(iter(mixes))) == 2 else "mix"


def mix(point: Point) -> str:
    """Write the shares of a point."""
    shares = point["coefficients"] or []
    return f"lambda {shares[1]:.3g}" if len(shares) == 2 else " / ".join(f"{each:.3g}" for each in shares)


def _lines(fronts: Mapping[str, Sequence[Point]]) -> dict[str, list[Point]]:
    """Return what one line joins: all etas of a mix, or all mixes at one eta."""
    lines: dict[str, list[Point]] = {}
    for label, points in fronts.items():
        sliding, mixes = knob_of(points) == "eta", {tuple(point["coefficients"] or ()) for point in points}
        for point in points:
            name = f"{label}, {mix(point)}" if sliding and len(mixes) > 1 else label
            lines.setdefault(name, []).append(point)
    return {name: sorted(points, key=_knob) for name, points in lines.items()}


def _joined(lines: Mapping[str, Sequence[Point]]) -> bool:
    return all(knob_of(points) != "mix" for points in lines.values())


def _knob(point: Point) -> float:
    shares = point["coefficients"] or []
    return float(point["eta"]) + (float(shares[1]) if len(shares) == 2 else 0)  # in one line one of them alone changes


def _names(points: Sequence[Point], *prefixes: str) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point["values"] if name.startswith(prefixes)))


def _value(point: Point, name: str) -> float:
    return float(point["values"][name]["value"])


def _against_kl(
    lines: Mapping[str, Sequence[Point]], trajectories: Mapping[str, Sequence[Line]], name: str, knob: str | None, prefix: str
) -> Chart:
    rows: list[dict[str, Any]] = []
    told = knob if knob in ("eta", "lambda") else None
    spaced = _spaced([point for points in lines.values() for point in points], name) if told else set()
    for line, points in lines.items():
        for point in points:
            at = f"eta {point['eta']:g}" if knob == "eta" else mix(point)
            row = {"line": line, "kl_sft": _value(point, "kl_sft"), name: _value(point, name), "order": _knob(point), "at": at}
            label = {"label": f"{_at(point, told):.3g}"} if told and id(point) in spaced else {}
            rows.append(row | ends(point["values"][name]) | label)
    paths = {run: blocks(found, ["kl_sft", name], SMOOTH) for run, found in trajectories.items()}
    for run, found in paths.items():
        rows += [{"line": PATHS, "run": run, "order": each["step"], "at": f"step {each['step']:g}", **each} for each in found]
    behind = [run for run, found in paths.items() if found]
    caption = f"{f'Numbers: {told}. ' if told else ''}Intervals are of 95%, bootstrap over prompts"
    caption += f"; faint: means along the training of {', '.join(behind)}." if behind else "."
    kind = "lines" if _joined(lines) else "points"
    chart = Chart(slug(f"{prefix} {name}"), f"{heading(name)} against the KL", rows, "kl_sft", name, KL, words(name), kind=kind)
    faint: dict[str, Any] = {"thin": "run", "emphasised": list(lines)} if behind else {}
    return replace(chart, order="order", **BAND, label="label", tips=("at",), caption=caption, **faint)


def _spaced(points: Sequence[Point], name: str) -> set[int]:
    """Return the ids of points that have room for a number beside the others' numbers; the last one of all has."""
    places = [(_value(point, "kl_sft"), _value(point, name)) for point in points]
    wide, high = (max(each) - min(each) or 1.0 for each in zip(*places))
    kept: list[int] = []
    for number in reversed(range(len(places))):
        x, y = places[number]
        if all(math.hypot((x - places[other][0]) / wide, (y - places[other][1]) / high) >= APART for other in kept):
            kept.append(number)
    return {id(points[number]) for number in kept}


def _against_knob(lines: Mapping[str, Sequence[Point]], name: str, knob: str, prefix: str) -> Chart:
    rows = [
        {"line": line, knob: _at(point, knob), name: _value(point, name), **ends(point["values"][name])}
        for line, points in lines.items()
        for point in points
    ]
    x = "lambda, share of the second policy" if knob == "lambda" else "eta: 0 is the init, 1 the merge"
    title = f"{heading(name)} against {knob}"
    return Chart(slug(f"{prefix} {knob} {name}"), title, rows, knob, name, x, words(name), **BAND)


def _at(point: Point, knob: str) -> float:
    return float(point["eta"]) if knob == "eta" else float((point["coefficients"] or [0, 0])[1])

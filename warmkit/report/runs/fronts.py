"""Charts of fronts: reward against KL, what eta or lambda does, and one reward against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from warmkit.report.chart import Chart
from warmkit.report.page import Cell, Grid, Table, slug
from warmkit.report.runs.part import filled, heading, span, words

Point = Mapping[str, Any]
"""`{"eta", "coefficients", "values": {name: {"value", "low", "high"}}}`, as `FrontPoint.to_dict` writes it."""
KL = "KL to the SFT model, nats"
PATHS = "paths of training"


def front_charts(
    fronts: Mapping[str, Sequence[Point]], trajectories: Sequence[Mapping[str, Any]] = (), prefix: str = "front"
) -> list[Chart | Grid]:
    """Draw reward and controls against the KL with the trajectories beside them, and what the knob does.

    Args:
        fronts: By what the legend calls them.
        trajectories: Rows of line, step, kl_sft and values.
        prefix: Of the charts' names.

    Source: WARP (Ramé et al., 2024), figures 3, 4 and 8-10.
    """
    everything = [point for points in fronts.values() for point in points]
    if not everything:
        return []
    knob, lines = knob_of(everything), _lines(fronts)
    charts: list[Chart | Grid] = [
        _against_kl(lines, trajectories, name, knob, prefix) for name in ["reward", *_names(everything, "control_")]
    ]
    if knob in ("eta", "lambda"):
        charts.append(Grid([_against_knob(lines, name, knob, prefix) for name in ("reward", "kl_sft")]))
    return charts


def reward_charts(fronts: Mapping[str, Sequence[Point]], prefix: str = "rewards") -> list[Chart]:
    """Draw one reward or control against another.

    Source: Rewarded soups (Ramé et al., 2023), figures 1 and 2.
    """
    lines = _lines(fronts)
    names = _names([point for points in lines.values() for point in points], "reward_", "control_")
    charts: list[Chart] = []
    for first, second in combinations(names, 2):
        rows = [
            {"line": line, first: _value(point, first), second: _value(point, second), "order": _knob(point), "mix": mix(point)}
            for line, points in lines.items()
            for point in points
        ]
        title, name = f"{words(second)} against {words(first)}", slug(f"{prefix} {first} {second}")
        kind = "lines" if _joined(lines) else "points"
        charts.append(
            Chart(name, title, rows, first, second, words(first), words(second), order="order", kind=kind, tips=("mix",))
        )
    return charts


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
    lines: Mapping[str, Sequence[Point]], trajectories: Sequence[Mapping[str, Any]], name: str, knob: str | None, prefix: str
) -> Chart:
    few = len(lines) == 1 and all(len(points) <= 12 for points in lines.values())
    rows: list[dict[str, Any]] = []
    for line, points in lines.items():
        for point in points:
            value, at = point["values"][name], f"eta {point['eta']:g}" if knob == "eta" else mix(point)
            row = {"line": line, "kl_sft": _value(point, "kl_sft"), name: value["value"], "order": _knob(point), "at": at}
            rows.append(row | {"low": value["low"], "high": value["high"]} | ({"label": f"{point['eta']:g}"} if few else {}))
    rows += [_step(row, name) for row in trajectories if name in row]
    behind = bool(trajectories)
    caption = "The band is the bootstrap interval of 95% over prompts"
    caption += "; grey: where training passed." if behind else "."
    title = f"{heading(name)} against the KL"
    return Chart(
        slug(f"{prefix} {name}"),
        title,
        rows,
        "kl_sft",
        name,
        KL,
        words(name),
        order="order",
        low="low",
        high="high",
        kind="lines" if _joined(lines) else "points",
        caption=caption,
        thin="run" if behind else None,
        emphasised=list(lines) if behind else (),
        label="label" if few and knob == "eta" else None,
        tips=("at",),
    )


def _step(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one place of a path of training."""
    place = {"line": PATHS, "run": row["line"], "kl_sft": row["kl_sft"], name: row[name]}
    return {**place, "order": row["step"], "at": f"step {row['step']:g}"}


def _against_knob(lines: Mapping[str, Sequence[Point]], name: str, knob: str, prefix: str) -> Chart:
    rows = [
        {"line": line, knob: _at(point, knob), name: _value(point, name), **_ends(point["values"][name])}
        for line, points in lines.items()
        for point in points
    ]
    x = "lambda, share of the second policy" if knob == "lambda" else "eta: 0 is the init, 1 the merge"
    title = f"{heading(name)} against {knob}"
    return Chart(slug(f"{prefix} {knob} {name}"), title, rows, knob, name, x, words(name), low="low", high="high")


def _at(point: Point, knob: str) -> float:
    return float(point["eta"]) if knob == "eta" else float((point["coefficients"] or [0, 0])[1])


def _ends(estimate: Mapping[str, float]) -> dict[str, float]:
    return {"low": estimate["low"], "high": estimate["high"]}

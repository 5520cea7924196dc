"""Charts and tables of WA against ENS and the individuals: what `warmkit warm` and `warmkit eval rm` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from warmkit.common.units import size
from warmkit.report.chart import Chart
from warmkit.report.html_page import Cell, Table, slug
from warmkit.report.runs.part import BAND, filled, percent, span

Row = Mapping[str, Any]
MODELS, ACCURACY = "M, models that are averaged", "pairwise accuracy, %"


def accuracy_charts(rows: Sequence[Row]) -> list[Chart]:
    """Draw accuracy against M, a chart a data set: WA, ENS, the individuals in their order, the probe.

    Source: WARM (Ramé et al., 2024), figure 6.
    """
    return [_accuracy([row for row in rows if row["data"] == data], data) for data in _data(rows)]


def _data(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["data"] for row in rows))


def _accuracy(rows: Sequence[Row], data: str) -> Chart:
    points: list[dict[str, Any]] = []
    for row in rows:
        kinds = {"WA of M": "wa", "ENS of M": "ens", "number M alone": "individual", "probe only": "probe"}
        for line, key in kinds.items():
            if row.get(key) is not None:
                band = {"low": 100 * row["wa_low"], "high": 100 * row["wa_high"]} if key == "wa" and "wa_low" in row else {}
                points.append({"line": line, "M": row["m"], "accuracy": 100 * row[key], **band})
    last, caption = max(rows, key=lambda row: row["m"]), "The band is the bootstrap interval of WA, 95% over pairs."
    ens, first = percent(last["ens"]), percent(rows[0]["individual"])
    says = f"WA of {last['m']} has {percent(last['wa'])} %, ENS {ens} %, the first model alone {first} %."
    chart = Chart(slug(f"accuracy {data}"), f"Accuracy on {data}", points, "M", "accuracy", MODELS, ACCURACY, **BAND)
    return replace(chart, says=says, caption=caption)


def accuracy_table(rows: Sequence[Row]) -> Table:
    """Lay out accuracy for every M on every data set."""
    columns = ["data", "M", "WA, %", "95%", "ENS, %", "WA less ENS, points (95%)", "number M alone, %", "probe only, %"]
    cells: list[list[Cell]] = [
        [
            row["data"],
            row["m"],
            percent(row["wa"]),
            f"{100 * row['wa_low']:.1f} to {100 * row['wa_high']:.1f}",
            percent(row["ens"]),
            span(row["wa_less_ens"], 100, "+.1f"),
            percent(row["individual"]),
            percent(row.get("probe")),
        ]
        for data in _data(rows)
        for row in rows
        if row["data"] == data
    ]
    return filled(Table(columns, cells, "Accuracy by the number of models"))


def individual_table(individuals: Mapping[str, Mapping[str, Row]], caption: str) -> Table:
    """Lay out every model on every data set."""
    columns = ["model", "data", "pairs", "accuracy, % (95%)", "loss", "calibration error", "correlation with length"]
    rows: list[list[Cell]] = [
        [
            name,
            data,
            each["pairs"],
            f"{100 * each['accuracy']:.1f} ({100 * each['low']:.1f} to {100 * each['high']:.1f})",
            f"{each['loss']:.4f}",
            f"{each['calibration_error']:.3f}",
            f"{each['length_correlation']:+.2f}",
        ]
        for name, reports in individuals.items()
        for data, each in reports.items()
        if isinstance(each, dict) and "accuracy" in each
    ]
    return Table(columns, rows, caption)


def orders_chart(orders: Mapping[str, Any]) -> Chart | None:
    """Draw WA by M with members taken from best to worst and in random orders.

    Source: WARM (Ramé et al., 2024), figure 6.
    """
    ranked, random = orders["ranked"], orders["random"]
    if not random:
        return None
    rows = [{"line": "best to worst", "M": m + 1, "accuracy": 100 * value} for m, value in enumerate(ranked)]
    for number, order in enumerate(random):
        rows += [
            {"line": "random orders", "order": f"order {number + 1}", "M": m + 1, "accuracy": 100 * value}
            for m, value in enumerate(order)
        ]
    means = [sum(values) / len(values) for values in zip(*random)]
    rows += [{"line": "random orders", "M": m + 1, "accuracy": 100 * value} for m, value in enumerate(means)]
    caption = "Faint: single orders; their mean is the line."
    y = "accuracy of WA on validation, %"
    return Chart("orders", "Order of the members", rows, "M", "accuracy", MODELS, y, thin="order", caption=caption)


def agreement_table(agreements: Mapping[str, Mapping[str, float]]) -> Table:
    names = list(agreements)
    rows: list[list[Cell]] = [
        [a, *(percent(others.get(b)) if a != b else None for b in names)] for a, others in agreements.items()
    ]
    return Table(["model", *names], rows, "How often two models prefer the same answer, %")


def partners_table(partners: Mapping[str, Any]) -> Table:
    """Lay out what every two runs gain by being averaged, and which run most others lose with."""
    gains, bad = partners["gains"], partners["bad"]
    rows: list[list[Cell]] = [
        [f"{a} (does not average)" if a in bad else a, *(span(others[b], 100, "+.1f") if a != b else None for b in gains)]
        for a, others in gains.items()
    ]
    caption = f"Average of two less the mean of the two, points of accuracy (95% over {partners['pairs']} ranking pairs)"
    return Table(["model", *gains], rows, caption if partners["enough"] else f"{caption}: too few pairs to tell")


def cost_table(cost: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [label, cost[key]["passes"], round(cost[key]["seconds"], 3), size(cost[key]["weight_bytes"])]
        for label, key in (("WA", "wa"), ("ENS", "ens"))
    ]
    columns = ["average", "forward passes", "seconds", "weights in memory"]
    return Table(columns, rows, f"Cost of scoring {cost['pairs']} pairs on {cost['device']}")
